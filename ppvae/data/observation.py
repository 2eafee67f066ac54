"""What was observed, and of what a figure is: which can be ranked together, and what converts one into another."""

from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any, Literal

Binarisation = Literal["none", "threshold", "static", "dynamic"]
Scaling = Literal["none", "unit", "standardise", "dequantise"]
Kind = Literal["binary", "levels", "counts", "real"]


@dataclass(frozen=True)
class Observation:
    """What was observed: the record that travels with data, model and every saved result."""

    name: str
    kind: Kind  # binary {0, 1}; levels {0, ..., maximum}; counts {0, 1, ...}; real
    shape: tuple[int, ...]  # how to look at a row
    maximum: int | None = None  # largest level
    binarisation: Binarisation = "none"
    scaling: Scaling = "none"
    log_jacobian: float = 0.0  # log |dx / draw| of a whole datum: log p(raw) = log p(x) + log_jacobian, nats
    contrast: float = 1.0  # the range of x, so that squared errors can be read on a scale from 0 to 1
    units: str = "nats per datum"
    missing: bool = False  # nan stands for values that were not observed, and figures are of the others
    labelled: int | None = None  # how many training labels a story is told, where it is not all of every split
    classes: int | None = None  # labels are 0 ... classes - 1, where there are labels
    fingerprint: str = ""  # of the raw data: figures on other data of the same name are never taken for these

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def input_scale(self) -> float:
        """What a network should multiply x by, to see values near 1."""
        return 1 / self.contrast if self.kind in {"levels", "counts"} else 1.0

    @property
    def measure(self) -> str:
        """Whether p(x) is a probability mass or a density."""
        return "density" if self.kind == "real" else "mass"

    @property
    def support(self) -> str:
        top = {"binary": "{0, 1}", "levels": f"{{0, ..., {self.maximum}}}", "counts": "{0, 1, ...}", "real": "reals"}
        return top[self.kind]

    @property
    def how(self) -> str:
        """How the raw data were made what is observed."""
        return {
            ("none", "none"): "as they are",
            ("none", "unit"): "scaled to [0, 1]",
            ("none", "standardise"): "standardised by feature",
            ("none", "dequantise"): "uniformly dequantised to [0, 1]",
        }.get((self.binarisation, self.scaling), f"{self.binarisation} binarisation")

    def titled(self, how: str) -> str:
        """The name of the data with `how` they are observed, which of them, and what a story is told."""
        missing = "values missing" if self.missing else ""
        told = f"{self.labelled} labels told" if self.labelled is not None else ""
        return ", ".join(filter(None, [self.name, how, missing, told]))

    def __str__(self) -> str:
        what = f"{self.measure} on {self.support}, {self.features} features, {self.units}"
        return f"{self.titled(self.how)}: {what}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"shape": list(self.shape), "measure": self.measure, "support": self.support}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> "Observation":
        found = {field.name: record[field.name] for field in fields(Observation)}
        return Observation(**found | {"shape": tuple(record["shape"])})
