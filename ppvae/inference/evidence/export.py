"""Evidence in the form that ArviZ and xarray read."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from xarray import DataTree

UNITS = {
    "estimate": "nats",
    "standard_error": "nats",
    "ess": "draws",
    "pareto_k": "1",
    "elbo": "nats",
    "elbo_standard_error": "nats",
    "particles": "draws",
}
"""The figures of a datum, and the unit of each; "1" is the convention for none."""


def to_datatree(evidence: Any) -> "DataTree":
    """An `Evidence` as an ArviZ DataTree: the figures of every datum along `datum` in its group `evidence`.

    The group's attributes say how and of what: `method`, `bound`, `measure`, and `held` where a latent is. Every
    variable has its `units`.

    Raises:
        ImportError: where ArviZ is not installed.
    """
    try:
        import arviz_base  # optional
    except ImportError as error:
        raise ImportError("to_datatree needs ArviZ: pip install 'ppvae[arviz]'") from error
    columns = {name: torch.as_tensor(getattr(evidence, name)).expand(len(evidence.estimate)) for name in UNITS}
    tree = arviz_base.from_dict(
        {"evidence": {name: column.detach().cpu().numpy() for name, column in columns.items()}},
        sample_dims=[],
        dims={name: ["datum"] for name in UNITS},
        attrs={"evidence": _attributes(evidence)},
    )
    for name, unit in UNITS.items():
        tree["evidence"][name].attrs["units"] = unit
    return tree


def _attributes(evidence: Any) -> dict[str, Any]:
    """Texts only: netCDF takes neither None nor a truth value."""
    said = {name: getattr(evidence, name) for name in ("method", "bound", "measure", "held")}
    library = {"inference_library": "ppvae", "inference_library_version": version("ppvae")}
    return {name: text for name, text in said.items() if text} | {"units": "nats per datum"} | library
