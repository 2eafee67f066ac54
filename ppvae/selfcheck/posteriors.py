"""Posteriors where they are known: means, covariances, and whether chains have met."""

from collections.abc import Iterator

import torch

from ppvae.inference import laplace
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.local import fit_normals
from ppvae.inference.posteriors.methods import approximate
from ppvae.selfcheck.analytic import LinearGaussian
from ppvae.selfcheck.checks import LIMIT, Check, against, at_most, equal

WHERE = "linear-Gaussian"
DRAWS = 2000


def posterior_checks(seed: int = 0) -> Iterator[Check]:
    """The Laplace approximation, Normals and flows refined for every datum, resampling, Hamiltonian Monte Carlo."""
    known = LinearGaussian()
    story, x = known.story(widen=1.4, shift=0.3), known.data(12)
    mean, covariance = known.posterior_mean(x), known.posterior_covariance
    found = laplace(story, x, progress=False)
    yield equal("posterior", WHERE, "laplace, mean", found.loc, mean)
    yield equal("posterior", WHERE, "laplace, covariance", found.scale_tril @ found.scale_tril.mT, covariance)
    local = fit_normals(story, x, seed=seed, progress=False)
    q = torch.distributions.MultivariateNormal(local.loc, scale_tril=local.scale_tril)
    posterior = torch.distributions.MultivariateNormal(mean, covariance)
    gap = torch.distributions.kl_divergence(q, posterior).max().item()
    yield at_most("posterior", WHERE, "local_normal, largest KL to the posterior", gap, 0.02)
    for method in ("local diagonal", "local flow", "resampled"):
        drawn = approximate(story, x, method, num_samples=DRAWS, seed=seed, progress=False).draws  # (draws, data, size)
        off = (drawn.mean(0) - mean).abs() / covariance.diagonal().sqrt()
        limit = LIMIT / DRAWS**0.5 + 0.05  # a fit is not exact either
        yield at_most("posterior", WHERE, f"{method}, largest error of a mean, in deviations", off.max().item(), limit)
    draws = run_chains(story, x, num_samples=400, num_warmup=200, seed=seed, progress=False)
    deviation = covariance.diagonal().sqrt()
    z = (draws.u.mean((0, 1)) - mean) / (deviation / draws.ess.sqrt())
    worst = int(z.abs().argmax())
    error = (deviation / draws.ess.sqrt()).reshape(-1)[worst].item()
    figure, truth = draws.u.mean((0, 1)).reshape(-1)[worst].item(), mean.reshape(-1)[worst].item()
    yield against("posterior", WHERE, "hmc, mean furthest off", figure, truth, error)
    squares = ((draws.u - mean) / deviation).square().mean((0, 1))  # 1 on average
    error = (2 / draws.ess.mean() / squares.numel()) ** 0.5 * 1.5  # of squares, which have a longer memory than means
    yield against("posterior", WHERE, "hmc, variance over the posterior's", squares.mean().item(), 1.0, error.item())
    yield at_most("posterior", WHERE, "hmc, largest R-hat", draws.r_hat.max().item(), 1.05)
