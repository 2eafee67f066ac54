"""Where the bounds lie, and what noise their gradients have."""

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_stories import binary, vae
from torch import nn

from ppvae.inference import dreg, elbo, iwae, log_mean_exp, log_weights, renyi, sticking_the_landing
from ppvae.selfcheck.analytic import LinearGaussian


def test_elbo_of_an_inexact_guide_is_the_evidence_less_the_divergence():
    known = LinearGaussian()
    x, story = known.data(3), known.story(widen=1.5, shift=0.2)
    log_w = log_weights(story, x, particles=20_000)
    exact = known.marginal().log_prob(x) - known.gap(1.5, 0.2)
    error = log_w.std(0) / math.sqrt(len(log_w))
    assert ((log_w.mean(0) - exact).abs() < 4 * error).all()
    assert error.max() < 0.02  # the tolerance means something


def test_iwae_of_an_inexact_guide_lies_between_elbo_and_evidence_and_rises():
    known = LinearGaussian()
    x, story = known.data(1), known.story(widen=1.5, shift=0.2)
    log_w = log_weights(story, x, particles=60_000).reshape(-1, 60)  # (repeats, particles)
    bounds, errors = [], []
    for particles in (1, 2, 10, 60):
        repeated = log_mean_exp(log_w[:, :particles].T)
        bounds.append(repeated.mean().item())
        errors.append((repeated.std() / math.sqrt(len(repeated))).item())
    for lower, higher, error in zip(bounds, bounds[1:], errors, strict=False):
        assert higher > lower + 2 * error
    evidence = known.marginal().log_prob(x).item()
    assert bounds[-1] < evidence + 4 * errors[-1]
    assert bounds[-1] > bounds[0] + 0.5 * (evidence - bounds[0])


def test_more_particles_of_elbo_only_lower_the_noise():
    story, x = vae(), binary()
    one = torch.stack([elbo(story, x).detach() for _ in range(300)])
    many = torch.stack([elbo(story, x, particles=20).detach() for _ in range(300)])
    error = (one.var() / 300 + many.var() / 300).sqrt()
    assert abs(one.mean() - many.mean()) < 4 * error
    assert many.std() < 0.5 * one.std()


def test_sticking_the_landing_has_no_gradient_at_the_exact_guide():
    known = LinearGaussian()
    x, story = known.data(4), known.story()
    for objective, zero in ((sticking_the_landing, True), (partial(dreg, particles=5), True), (elbo, False)):
        story.zero_grad()
        objective(story, x).backward()
        steepest = max(p.grad.abs().max().item() for p in story.encoder.parameters())
        assert (steepest < 1e-12) is zero
        assert story.likelihood.network.weight.grad.abs().max() > 1e-2


class PerDatum(nn.Module):
    """z ~ N(0, 1), x ~ N(z, 1); every datum has its own q = N(loc, scale), so one gradient holds a draw for each."""

    def __init__(self, rows):
        super().__init__()
        self.loc = nn.Parameter(torch.full((rows,), 1.2).double())  # the posterior's is x / 2 = 0.5
        self.scale = 0.8  # and sqrt(1 / 2)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.loc, self.scale))


def signal_to_noise(objective, rows):
    story = PerDatum(rows)
    loss = objective(story, torch.ones(rows).double())
    (slopes,) = torch.autograd.grad(loss, story.loc)
    return (slopes.mean().abs() / slopes.std()).item()


@pytest.mark.parametrize("rows", [6000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_signal_to_noise_grows_with_the_particles_of_dreg_and_falls_with_those_of_iwae(rows):
    """Rainforth et al. 2018: as sqrt(1 / K) for IWAE. Tucker et al. 2019: as sqrt(K) for DReG."""
    single, double = (
        [signal_to_noise(partial(objective, particles=particles), rows) for particles in (2, 16, 128)]
        for objective in (iwae, dreg)
    )
    error = 1 / math.sqrt(rows)  # of each, where it is small
    for more, fewer in itertools.pairwise(reversed(single)):
        assert fewer > more + 2 * error  # 0.19 and 0.07: 6 errors of a difference away
    for fewer, more in itertools.pairwise(double):
        assert more > 1.5 * fewer
    assert double[-1] > 100 * single[-1]


def test_the_bounds_are_ordered_below_the_evidence():
    known = LinearGaussian()
    x, story = known.data(1), known.story(widen=1.5, shift=0.2)
    rows = x.expand(4000, -1)
    ordered = [
        partial(renyi, alpha=3.0, particles=8),
        partial(elbo, particles=8),
        partial(renyi, alpha=0.5, particles=8),
        partial(iwae, particles=8),
        partial(iwae, particles=64),
    ]
    found = []
    with torch.no_grad():
        for objective in ordered:
            losses = torch.stack([-objective(story, part) for part in rows.split(100)])
            found.append((losses.mean().item(), (losses.std() / math.sqrt(len(losses))).item()))
    evidence = known.marginal().log_prob(x).item()
    for (lower, error), (higher, other) in zip(found, [*found[1:], (evidence, 0.0)], strict=True):
        assert higher > lower + 2 * math.hypot(error, other)
