"""Prints docs/api.md: every public name with its signature and the first sentence of its docstring."""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ppvae
from ppvae import data, inference, models, networks
from ppvae.inference import objectives
from ppvae.models import encoders, likelihoods, priors, stories

FIRST = ["encode", "decode", "reconstruct", "sample", "log_joint", "log_weights"]
"""Of any story: what everything else is made of."""

ROOMS: dict[str, tuple[ModuleType, list[str]]] = {
    "ppvae": (ppvae, ["fit", "save", "load", "pretrain", "History"]),
    "ppvae.inference, of any story": (inference, FIRST),
    "ppvae.data": (data, list(data.__all__)),
    "ppvae.models": (models, [name for name in models.__all__ if not inspect.ismodule(getattr(models, name))]),
    "ppvae.models.stories": (stories, list(stories.__all__)),
    "ppvae.models.priors": (priors, list(priors.__all__)),
    "ppvae.models.likelihoods": (likelihoods, list(likelihoods.__all__)),
    "ppvae.models.encoders": (encoders, list(encoders.__all__)),
    "ppvae.networks": (networks, list(networks.__all__)),
    "ppvae.inference": (inference, [name for name in inference.__all__ if name not in {*FIRST, *objectives.__all__}]),
    "ppvae.inference.objectives": (objectives, list(objectives.__all__)),
}


def page() -> str:
    """The whole page, as Markdown."""
    lines = [
        "# Public names",
        "",
        "Made by `make api`. Every name has its docstring: `help(ppvae.inference.importance)`.",
    ]
    for room, (module, names) in ROOMS.items():
        lines += ["", f"## {room}", "", first_sentence(module), ""]
        lines += [line for name in sorted(names, key=str.lower) for line in entry(name, getattr(module, name))]
    return "\n".join(lines) + "\n"


def entry(name: str, thing: Any) -> Iterator[str]:
    """A name, how it is called, and what it is for."""
    yield f"- `{name}{signature(thing)}`  "
    yield f"  {first_sentence(thing)}"


def signature(thing: Any) -> str:
    """Arguments and their defaults, without types: those are in the docstring."""
    parameters = inspect.signature(thing).parameters.values()
    plain = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
    return re.sub(r"<(?:function (\w+) at \w+|class '[\w.]*?(\w+)')>", r"\1\2", str(inspect.Signature(plain)))


def first_sentence(thing: Any) -> str:
    """Of a docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].removesuffix(".") + "."


if __name__ == "__main__":
    print(page(), end="")
