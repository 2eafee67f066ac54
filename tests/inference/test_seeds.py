"""Everything that takes a seed: two of them give different draws, and one gives the same again."""

import importlib
from functools import partial

import pytest
import torch

from ppvae.inference import (
    annealed,
    bidirectional,
    calibration,
    flow_sampling,
    gaps,
    importance,
    laplace_sampling,
    leaderboard,
    prior_sampling,
    reference,
    refined_sampling,
    upper_bound,
)
from ppvae.inference.diagnostics.calibration import RANKED, rank, simulate
from ppvae.inference.diagnostics.leaderboard import SLOW, Reference
from ppvae.inference.evidence.importance import draws
from ppvae.inference.posteriors import ascent
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.local import fit_normals
from ppvae.inference.posteriors.local_flow import fit_flows
from ppvae.inference.posteriors.methods import METHODS, approximate
from ppvae.selfcheck.analytic import LinearGaussian

FEW = {"particles": 30, "progress": False}
SHORT = {"progress": False, "num_steps": 3}
BRIEF = {"hmc": {"num_warmup": 2}, "local": {"num_steps": 3}}
STORY = LinearGaussian().story(widen=1.5, shift=0.2)


MODULES = [importlib.import_module(f"ppvae.inference.posteriors.{name}") for name in ("local", "local_flow")]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A flow begins at a Normal of few steps, and a pilot of annealing settles in two."""
    monkeypatch.setattr("ppvae.inference.evidence.annealing.SETTLING", 2)
    monkeypatch.setattr(MODULES[1], "fit_normals", partial(fit_normals, num_steps=3))


def figures(evidence):
    return [evidence.estimate, evidence.elbo]


def inferred(method):
    short = partial(METHODS[method], **BRIEF.get(method.split()[0], {}))
    return lambda x, seed: [approximate(STORY, x, short, num_samples=8, seed=seed, progress=False).draws]


SEEDED = {  # everything that takes a seed, to all of the figures that should follow it
    "importance": lambda x, seed: figures(importance(STORY, x, seed=seed, **FEW)),
    "widened": lambda x, seed: figures(importance(STORY, x, seed=seed, widening=1.2, **FEW)),
    "defensive": lambda x, seed: figures(importance(STORY, x, seed=seed, defensive=0.2, **FEW)),
    "to a target": lambda x, seed: figures(importance(STORY, x, seed=seed, target_error=0.3, **FEW)),
    "prior_sampling": lambda x, seed: figures(prior_sampling(STORY, x, seed=seed, **FEW)),
    "upper_bound": lambda x, seed: figures(upper_bound(STORY, x, seed=seed, **FEW)),
    "draws": lambda x, seed: [draws(STORY, x, seed=seed, **FEW)],
    "laplace_sampling": lambda x, seed: figures(laplace_sampling(STORY, x, seed=seed, **FEW)),
    "refined_sampling": lambda x, seed: figures(refined_sampling(STORY, x, seed=seed, num_steps=3, **FEW)),
    "flow_sampling": lambda x, seed: figures(flow_sampling(STORY, x, seed=seed, num_steps=3, **FEW)),
    "annealed": lambda x, seed: figures(annealed(STORY, x, num_temperatures=2, num_leapfrog_steps=1, seed=seed, **FEW)),
    "bidirectional": lambda x, seed: of_sandwich(
        bidirectional(STORY, x, particles=8, num_temperatures=2, num_leapfrog_steps=1, seed=seed, progress=False)
    ),
    "hmc": lambda x, seed: [
        run_chains(STORY, x, num_samples=4, num_warmup=2, num_leapfrog_steps=2, seed=seed, progress=False).u
    ],
    "reference": lambda x, seed: [reference(STORY, x, num_samples=4, num_warmup=2, seed=seed, progress=False).draws],
    "fit_normals": lambda x, seed: fit_normals(STORY, x, seed=seed, **SHORT),
    "fit_flows": lambda x, seed: fit_flows(STORY, x, seed=seed, tolerance=None, **SHORT)[:5],
    "gaps": lambda x, seed: of_gaps(gaps(STORY, x, num_steps=3, num_flow_steps=3, seed=seed, **FEW)),
    "calibration": lambda x, seed: [
        calibration(STORY, x, "amortised", num_simulations=20, num_samples=50, seed=seed, progress=False).ranks.double()
    ],
    "simulate": lambda x, seed: [(made := simulate(STORY, x, 20, seed))[0][0], made[1]],
    **{f"infer {method}": inferred(method) for method in METHODS if method not in SLOW},
    "leaderboard": lambda x, seed: of_leaderboard(x, seed),
}


def of_sandwich(found):
    return [found.x, *figures(found.lower), *figures(found.upper)]


def of_gaps(found):
    return [found.log_p.estimate, found.flow.elbo, found.full.elbo, found.diagonal.elbo, found.amortised.elbo]


def of_leaderboard(x, seed):
    against = Reference(x[:, :2], x[:, :2].exp(), x[:, :2].exp(), 0 * x[:, :2] + 1, x[None, :, :2])
    options = {"methods": ["amortised"], "num_samples": 25, "num_simulations": 20, "seed": seed, "progress": False}
    (entry,) = leaderboard(STORY, x, x[:, 0], against, **options)
    return [entry.posterior.draws, entry.evidence.elbo, entry.calibration.ranks.double()]


@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_gives_the_same_draws_again_and_another_gives_others(name):
    x = LinearGaussian().data(2)
    first, again, other = (SEEDED[name](x, seed) for seed in (5, 5, 6))
    for one, same, another in zip(first, again, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.allclose(one, another, atol=1e-6, rtol=0)


ASCENTS = ["refined_sampling", "flow_sampling", "fit_normals", "fit_flows", "gaps"]
ASCENTS += [f"infer {method}" for method in ("semi-amortised", "local diagonal", "local full", "local flow")]


@pytest.mark.parametrize("name", ASCENTS)
def test_the_seed_is_that_of_every_ascent_too(name, monkeypatch):
    """Where a figure has draws of its own beside the fit, a fit that ignored the seed would not be seen in it."""
    seeds = []

    def spied(parameters, elbo, size, steps, draws, lr, seed, tolerance=None):
        seeds.append(seed)
        return ascent.ascend(parameters, elbo, size, steps, draws, lr, seed, tolerance)

    for module in MODULES:
        monkeypatch.setattr(module, "ascend", spied)
    SEEDED[name](LinearGaussian().data(2), 5)
    assert set(seeds) == {5}


def test_the_seed_of_simulated_data_is_that_of_what_is_inferred_from_them_too():
    """Where another seed means other data, that it is ignored further on would not be seen in the figures."""
    x, few = LinearGaussian().data(2), {"seed": 5, "progress": False}
    made, u = simulate(STORY, x, 20, 5)
    found = calibration(STORY, x, "amortised", num_simulations=20, num_samples=50, **few)
    assert torch.equal(found.ranks, rank(approximate(STORY, made, "amortised", num_samples=50, **few).draws, u).ranks)
    against = Reference(x[:, :2], x[:, :2].exp(), x[:, :2].exp(), 0 * x[:, :2] + 1, x[None, :, :2])
    (entry,) = leaderboard(STORY, x, x[:, 0], against, methods=["amortised"], num_samples=25, num_simulations=20, **few)
    found = calibration(STORY, x, "amortised", num_simulations=20, num_samples=4 * RANKED, **few)
    assert torch.equal(entry.calibration.ranks, found.ranks)
    short = {"particles": 8, "num_temperatures": 2, "num_leapfrog_steps": 1} | few
    sandwich = bidirectional(STORY, x, **short)
    assert torch.equal(sandwich.lower.estimate, annealed(STORY, sandwich.x, **short).estimate)
