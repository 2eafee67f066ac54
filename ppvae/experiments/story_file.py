"""What a folder holds of a story beside its parts: its sizes, what learns, its weights; and the story made again."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch import nn

from ppvae.data.files import read_json
from ppvae.data.observation import Observation
from ppvae.experiments.build import build_story
from ppvae.inference.program.streams import own_generators
from ppvae.models import Sizes

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}


@dataclass(frozen=True)
class Stored:
    """What a configuration does not say of a story that was assembled in Python, and no observation either."""

    shape: tuple[int, ...]
    input_scale: float
    maximum: int | None
    classes: int | None
    dtype: str  # of its parameters: such as float32
    frozen: tuple[str, ...]  # the parameters that do not learn: also, torch rounds otherwise where a gradient is wanted

    @staticmethod
    def of(story: nn.Module, sizes: dict[str, Any]) -> "Stored":
        """Of a story and the sizes in its record."""
        kept = {name: sizes[name] for name in ("input_scale", "maximum", "classes")}
        dtypes = [p.dtype for p in story.parameters() if p.is_floating_point()] or [torch.get_default_dtype()]
        frozen = tuple(name for name, parameter in story.named_parameters() if not parameter.requires_grad)
        return Stored(tuple(sizes["shape"]), **kept, dtype=str(dtypes[0]).removeprefix("torch."), frozen=frozen)

    @staticmethod
    def read(path: Path) -> "Stored":
        """From a JSON file.

        Raises:
            ValueError: the file does not say them.
        """
        try:
            record = read_json(path)
            stored = Stored(**record | {name: tuple(record[name]) for name in ("shape", "frozen")})
            kinds = {"input_scale": float, "maximum": int | None, "classes": int | None}
            if not all(isinstance(getattr(stored, name), kind) for name, kind in kinds.items()):
                raise ValueError("one of its numbers is none")
            if not all(isinstance(size, int) and size > 0 for size in stored.shape) or stored.dtype not in DTYPES:
                raise ValueError(f"shape should be of positive sizes, and dtype one of {', '.join(DTYPES)}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} should say how a story was built, but: {error!r}") from error
        return stored

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"shape": list(self.shape), "frozen": list(self.frozen)}

    def sizes(self, latent: int) -> Sizes:
        return Sizes(self.shape, latent, input_scale=self.input_scale, maximum=self.maximum, classes=self.classes)


def rebuilt(parser: ArgumentParser, options: Namespace, seen: Observation | Stored, weights: Path) -> Any:
    """The story that options describe, with its weights from a file, in evaluation mode."""
    sizes = seen.sizes(options.latent) if isinstance(seen, Stored) else seen
    with own_generators():
        story = build_story(parser, options, sizes)
    if isinstance(seen, Stored):
        if DTYPES[seen.dtype] not in {p.dtype for p in story.parameters()}:
            story.to(DTYPES[seen.dtype])
        for name, parameter in story.named_parameters():
            parameter.requires_grad_(name not in seen.frozen)
    fill(story, weights, "config.yaml's story")
    return story.eval()


def fill(story: nn.Module, weights: Path, whose: str = "the story") -> None:
    """Put the weights of a file into a story: all of them, or none.

    Raises:
        ValueError: the file's tensors have other names, shapes or dtypes than the story's.
    """
    before = {name: tensor.clone() for name, tensor in story.state_dict().items()}
    try:
        for name, found in load_file(weights).items():
            if name in before and found.dtype != before[name].dtype:  # to convert them would lose digits, or feign some
                raise RuntimeError(f"{name} is of {found.dtype}, and the story's of {before[name].dtype}")
        load_model(story, weights)
    except (SafetensorError, RuntimeError) as error:
        story.load_state_dict(before)
        said = " ".join(str(error).split())
        raise ValueError(f"{weights} should hold the weights of {whose}, but: {said}") from error
