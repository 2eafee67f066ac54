"""`ppvae selfcheck`: every objective, estimator and posterior against answers that are known, on this machine."""

from collections.abc import Iterator

import torch

from ppvae.inference.program.streams import own_generators
from ppvae.selfcheck.checks import LIMIT, Check
from ppvae.selfcheck.evidence import bound_checks, evidence_checks, flag_checks
from ppvae.selfcheck.invariance import invariance_checks
from ppvae.selfcheck.objectives import objective_checks
from ppvae.selfcheck.posteriors import posterior_checks

__all__ = ["LIMIT", "Check", "selfcheck"]


def selfcheck(processes: int = 1, seed: int = 0) -> Iterator[Check]:
    """Every check, one by one: under two minutes on two cores.

    Args:
        processes: that the checks of invariance share the data out over.
        seed: of every draw.

    Raises:
        ValueError: processes below 1.
    """
    if processes < 1:
        raise ValueError(f"processes should be at least 1, got {processes}")
    with own_generators():
        torch.manual_seed(seed)
        yield from objective_checks()
        yield from evidence_checks(seed)
        yield from bound_checks(seed)
        yield from flag_checks(seed)
        yield from posterior_checks(seed)
        yield from invariance_checks(seed, processes)
