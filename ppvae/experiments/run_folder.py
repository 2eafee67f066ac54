"""The run folder: configuration, what was observed, weights and curves as plain files, without pickle."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from safetensors.torch import save_model

from ppvae.data import Dataset, load_dataset
from ppvae.data.files import nan_as_null, read_json, write_csv, write_json
from ppvae.data.observation import Observation
from ppvae.evaluation.comparability import Contract
from ppvae.experiments.options import fit_parser, parse_run
from ppvae.experiments.story_file import Stored, rebuilt
from ppvae.inference.evidence.bidirectional import Sandwich
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.program.traces import scored
from ppvae.training.history import Epoch

CONFIG, OBSERVATION, WEIGHTS, METRICS = "config.yaml", "observation.json", "weights.safetensors", "metrics.jsonl"
STORY = "story.json"  # what the configuration does not say of a story that was assembled in Python


@dataclass(frozen=True)
class Run:
    """A run folder, read back."""

    path: Path
    options: Namespace
    seen: Observation | None  # by a story that was saved without its data, nothing
    story: Any

    @property
    def observation(self) -> Observation:
        """What was observed.

        Raises:
            ValueError: the folder does not say.
        """
        if self.seen is None:
            way = "ppvae.save(story, path, data) does, with data of ppvae.data.load_dataset"
            raise ValueError(f"{self.path} does not say what its story's data are, and this needs them: {way}")
        return self.seen

    def data(self) -> Dataset:
        """The data of the run, checked to be observed as they were at its fit."""
        observation = self.observation
        data = load_data_of(self.options)
        if data.observation != observation:
            same = str(data.observation) == str(observation)
            got = f"other values under the name {observation.name}" if same else str(data.observation)
            raise ValueError(
                f"the data should be those of the run ({observation}), got {got}; "
                "a figure on other data could not be compared with it"
            )
        return data


def read(path: str | Path, trust: bool = False) -> Run:
    """A run folder with everything in it that later commands need.

    Raises:
        FileNotFoundError: no run at `path`.
        ValueError: a file of it that cannot be read; without trust, a configuration that names what is not of ppvae.
    """
    path = Path(path)
    assembled = (path / STORY).is_file()
    check_whole(path, (CONFIG, STORY if assembled else OBSERVATION, WEIGHTS))
    parser = fit_parser()
    options = parse_run(parser, path / CONFIG, trust)
    if assembled:
        seen = _observation(path / OBSERVATION) if (path / OBSERVATION).is_file() else None
        story = rebuilt(parser, options, Stored.read(path / STORY), path / WEIGHTS)
    else:
        seen = _observation(path / OBSERVATION)
        story = rebuilt(parser, options, seen, path / WEIGHTS)
    return Run(path, options, seen, story)


def check_whole(path: Path, names: Sequence[str]) -> None:
    """Raise FileNotFoundError where a folder lacks a file that it should hold."""
    if all((path / name).is_file() for name in names):
        return
    if [file.name for file in path.glob("*")] == [WEIGHTS]:
        way = "ppvae.load(path, story=...) puts them into a story that you build as that one was"
        raise FileNotFoundError(f"{path} holds weights alone: {way}")
    raise FileNotFoundError(f"a run folder should hold {', '.join(names)}; {path} does not")


def _observation(path: Path) -> Observation:
    try:
        observation = Observation.from_dict(read_json(path))
        observation.features  # noqa: B018, of a shape that is none
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} should say what was observed, but: {error!r}") from error
    return observation


def load_data_of(options: Namespace) -> Dataset:
    """The data that options name."""
    names = ("root", "binarisation", "scaling", "label", "missing", "labelled")
    return load_dataset(options.data, **{name: options.get(name) for name in names}, seed=0)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder that appears under its name only when all of it is written.

    Raises:
        FileExistsError: the folder is there and not empty.
    """
    refuse_used(path)
    path = Path(path).resolve()
    above = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    part.chmod(0o755)
    try:
        yield part
        if path.is_dir():  # an empty folder is filled: it may be a mount, or where the command runs
            for item in list(part.iterdir()):
                shutil.move(item, path)
        else:
            os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for folder in above:
            with suppress(OSError):  # it is in use by now
                folder.rmdir()


def refuse_used(path: str | Path) -> None:
    """Raise FileExistsError when `path` is there and holds anything."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"an output folder should be new or empty; {path} is not: name another, or remove it")


def write(folder: Path, config: str, observation: Observation, story: Any, epochs: list[Epoch]) -> None:
    """Everything that `read` needs, and the curves."""
    (folder / CONFIG).write_text(config.rstrip() + "\n", encoding="utf-8")
    write_json(folder / OBSERVATION, observation.as_dict())
    save_model(story, str(folder / WEIGHTS))
    lines = [json.dumps(nan_as_null(asdict(epoch))) + "\n" for epoch in epochs]
    (folder / METRICS).write_text("".join(lines), encoding="utf-8")


def write_evidence(run: Run, evidence: Evidence, way: str, split: str, seed: int) -> Path:
    """The summary as JSON and the per-datum figures as CSV, replaced whole if they are there.

    In nats per datum on the scale that was seen; `log_jacobian` takes a density to the raw scale, on which its bits per
    dimension are. `way`, the method and what it was given, is a part of the files' names.
    """
    path = run.path / f"evidence-{split}-{way}-seed{seed}.json"
    write_csv(path.with_suffix(".csv"), evidence.columns())
    contract = Contract(run.observation, evidence.measure, scored(run.story))
    summary = {
        "of": contract.of or "p(x)",
        "log_jacobian": contract.log_jacobian,  # log p(raw) = log_p + log_jacobian
        "bits_per_dim": contract.bits_per_dimension(evidence.estimate.mean().item()),
        **evidence.summary(),
    }
    write_json(path, {"observation": run.observation.as_dict(), "split": split, "seed": seed, **summary})
    return path


def write_bounds(run: Run, bounds: dict[int, Sandwich], way: str, seed: int) -> Path:
    """Bounds from both sides on data that the story drew, by the number of temperatures, as JSON."""
    path = run.path / f"evidence-simulated-{way}-seed{seed}.json"
    rungs = [{"num_temperatures": temperatures, **both.summary()} for temperatures, both in bounds.items()]
    write_json(path, {"observation": run.observation.as_dict(), "seed": seed, "rungs": rungs})
    return path


def write_measures(run: Run, name: str, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Path:
    """A summary as JSON, and rows with the same columns as CSV beside it; replaced whole if they are there."""
    path = run.path / f"{name}.json"
    write_csv(path.with_suffix(".csv"), {column: [row[column] for row in rows] for column in rows[0]})
    write_json(path, {"observation": run.observation.as_dict(), "of": scored(run.story) or "p(x)", **summary})
    return path
