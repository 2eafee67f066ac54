"""Have Markov chains met, and how many independent draws are theirs worth?"""

import math

import torch
from pyro.ops.stats import autocovariance, split_gelman_rubin
from torch import Tensor


def r_hat(draws: Tensor) -> Tensor:
    """Split R-hat: whether chains that started apart agree. 1 where they do; above 1.01 they should run on.

    sqrt(((n - 1) / n W + B / n) / W) of the 2 C half-chains of n draws: B / n is the variance of their means, W the
    mean of their variances. Gelman & Rubin 1992, https://doi.org/10.1214/ss/1177011136; halves, so that a chain that
    still drifts disagrees with itself, and the limit: Vehtari et al. 2021, https://arxiv.org/abs/1903.08008

    Args:
        draws: `(chains, draws, ...)` of any quantity.

    Returns:
        `(...)`, no unit. nan for a quantity that never moved, inf where chains stand still apart.

    Raises:
        ValueError: fewer than 2 chains, or than 4 draws of each.
    """
    _check(draws)
    return split_gelman_rubin(draws.double())


def effective_draws(draws: Tensor) -> Tensor:
    """How many independent draws would give the mean as well as these: C N / tau, over all C chains of N draws.

    tau = -1 + 2 sum_t (rho_2t + rho_2t+1) is the autocorrelation time of the half-chains, summed over pairs of lags as
    long as they are positive, and kept from rising: Geyer's initial monotone sequence, Geyer 1992,
    https://doi.org/10.1214/ss/1177011137. The variance between chains counts as correlation. As Stan and ArviZ have it:
    Vehtari et al. 2021, section 3.2, https://arxiv.org/abs/1903.08008. `pyro.ops.stats.effective_sample_size` divides a
    lag's products by their number and adds every positive pair, after a negative one as well, which is mostly noise.

    Args:
        draws: `(chains, draws, ...)` of any quantity.

    Returns:
        `(...)`, from 0 to C N log10(C N): more than C N where draws alternate. nan for a quantity that never moved.

    Raises:
        ValueError: fewer than 2 chains, or than 4 draws of each.
    """
    _check(draws)
    chains = _halves(draws.double())
    rho = _autocorrelation(chains)  # (lags, ...)
    pairs = rho[: len(rho) // 2 * 2].unflatten(0, (-1, 2)).sum(dim=1)[: max((len(rho) - 1) // 2, 1)]
    kept = (pairs > 0).cumprod(dim=0)
    kept[-1] = 0  # of the first pair that is left out the even lag alone is counted, where it is positive
    rest = rho.gather(0, 2 * kept.sum(dim=0, keepdim=True))[0].clamp_min(0)
    tau = -1 + 2 * (kept * pairs.cummin(dim=0).values).sum(dim=0) + rest
    total = chains.shape[0] * chains.shape[1]
    return total / tau.clamp_min(1 / math.log10(total))  # chains that alternate would otherwise be worth any number


def _halves(draws: Tensor) -> Tensor:
    """Every chain as two: `(2 chains, draws // 2, ...)`. Of an odd number the middle one is left out."""
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _autocorrelation(chains: Tensor) -> Tensor:
    """rho_t = 1 - (W - mean autocovariance at lag t) / (variance over all chains): `(draws, ...)` of every lag."""
    size = chains.shape[1]
    lags = torch.arange(size, dtype=chains.dtype, device=chains.device).reshape(-1, *[1] * (chains.dim() - 2))
    # Pyro divides by the number of products, which blows up the noise of long lags; all of size has less variance
    covariance = autocovariance(chains, dim=1).mean(dim=0) * (size - lags) / size
    within = covariance[0] * size / (size - 1)
    rho = 1 - (within - covariance) / (covariance[0] + chains.mean(dim=1).var(dim=0))
    rho[0] = torch.where(rho[0].isnan(), torch.nan, 1.0)
    return rho


def _check(draws: Tensor) -> None:
    if draws.dim() < 2 or draws.shape[0] < 2 or draws.shape[1] < 4:
        raise ValueError(f"draws should be (chains, draws, ...), at least 2 of 4 draws; got {tuple(draws.shape)}")
