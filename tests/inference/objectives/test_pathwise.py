"""Estimators with a path of their own: their gradients by quadrature, their noise, and the path itself."""

import itertools
import math
from contextlib import nullcontext
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_oracles import Gaussian, Mixed, agree, by_role, far, flat, log_mean_exp, mean, unbiased
from objective_stories import KINDS, alike, gradients, story_of_two_layers
from torch import nn

from ppvae.inference import dreg, elbo, iwae, piwae, sticking_the_landing
from ppvae.inference.objectives import pathwise
from ppvae.inference.objectives.terms import weigh_terms
from ppvae.selfcheck.analytic import LinearGaussian


def test_piwae_gives_the_model_iwae_and_the_guide_miwae():
    known = Gaussian()
    tight, loose = known.expected(log_mean_exp), known.expected(mean)
    exact = by_role(known.story, model=tight, guide=loose)
    agree(known.story, known.x, partial(piwae, outer=2, particles=1), tight, exact)
    assert (exact - flat(known.story, tight)).norm() > 0.1 * exact.norm()
    assert (exact - flat(known.story, loose)).norm() > 0.1 * exact.norm()


def test_piwae_has_the_score_of_a_discrete_latent_too():
    story = Mixed()
    tight, loose = story.expected(log_mean_exp), story.expected(mean)
    agree(story, story.x, partial(piwae, outer=2, particles=1), tight, by_role(story, tight, loose), rough=0.1)


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


def test_a_path_is_what_backpropagation_through_the_draws_gives():
    """Without log q both are the same: of a penalty and log p(x, z), through two draws, the second given the first."""
    story, x = story_of_two_layers()
    found = []
    for leaves in (pathwise.Leaves(), nullcontext()):
        torch.manual_seed(3)
        with leaves:
            terms = weigh_terms(story, x, 3)
        target = (terms.log_joint.sin() - terms.factors).sum()
        surrogate = target if leaves.__class__ is nullcontext else target + leaves.path(target)
        found.append(gradients(story, surrogate))
    torch.testing.assert_close(*found)


GAUSSIAN = {
    "sticking_the_landing": (sticking_the_landing, mean, {"particles": 1}),
    "dreg": (partial(dreg, particles=2), log_mean_exp, {}),
    "dreg, 3": (partial(dreg, particles=3), log_mean_exp, {"particles": 3, "nodes": 41}),
}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_gradient_is_the_exact_one_on_average(name):
    objective, bound, options = GAUSSIAN[name]
    unbiased(objective, bound, **options)


def test_the_gradient_of_dreg_is_told_from_the_elbos():
    known = Gaussian()
    assert far(known.story, known.x, partial(dreg, particles=2), known.expected(mean))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outer", "particles"), [(1, 4), (1, 1)])
def test_piwae_of_one_bound_is_iwae(kind, outer, particles):
    alike(kind, partial(piwae, outer=outer, particles=particles), partial(iwae, particles=particles))


@pytest.mark.parametrize("kind", ["vae", "two layers"])
def test_dreg_of_one_draw_sticks_the_landing(kind):
    alike(kind, partial(dreg, particles=1), sticking_the_landing)
