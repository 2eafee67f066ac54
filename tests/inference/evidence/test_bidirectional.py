"""Bidirectional Monte Carlo, where log p(x) is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written, off_from_one
from torch import nn

from ppvae.inference import bidirectional
from ppvae.inference.evidence import annealing
from ppvae.models import Autoencoder, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian, TwoLayers

QUICK = {"num_temperatures": 15, "num_leapfrog_steps": 4, "progress": False}


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_bounds_from_both_sides(start):
    known = LinearGaussian()
    like = torch.zeros(150, 5).double()
    found = bidirectional(known.story(widen=1.5, shift=0.3), like, particles=4, start=start, **QUICK)
    truth = known.log_evidence(found.x)
    assert found.x.shape == (150, 5)
    assert abs(off_from_one(found.lower.estimate - truth)) < 4
    assert abs(off_from_one(truth - found.upper.estimate)) < 4  # E[1 / w] = 1 / p(x)
    for above in (truth - found.lower.estimate, found.upper.estimate - truth):  # on average, to five of its errors
        assert above.mean() > -5 * above.std() / len(above) ** 0.5
    assert (found.upper.elbo >= found.upper.estimate - 1e-9).all()  # the mean logarithm is further up
    assert (found.lower.elbo <= found.lower.estimate + 1e-9).all()
    gap, error = found.gap()
    assert gap > -5 * error
    assert found.upper.bound == "stochastic upper bound"
    assert found.upper.method == f"annealing back to the {start} in 15 steps"
    assert f"{gap:.3f} ± {error:.3f}" in str(found)
    for bound in (found.lower, found.upper):
        assert f"{bound.estimate.mean():.3f}" in str(found)
    # x is a draw from the story
    z = (found.x - known.bias) @ torch.linalg.inv(torch.linalg.cholesky(known.marginal().covariance_matrix)).T
    assert abs(z.square().mean() - 1) < 4 * (2 / z.numel()) ** 0.5


def test_few_steps_from_a_poor_start_leave_a_gap_on_both_sides():
    """Far more than the error of its mean: bounds that changed places would have it below zero."""
    known, few = LinearGaussian(), {"num_temperatures": 2, "start": "prior", "progress": False}
    found = bidirectional(known.story(), torch.zeros(800, 5).double(), particles=2, **few)
    truth = known.log_evidence(found.x)
    for above in (truth - found.lower.estimate, found.upper.estimate - truth):
        assert above.mean() > 5 * above.std() / len(above) ** 0.5
    assert found.gap()[0] > 5 * found.gap()[1]


@pytest.mark.parametrize("steps", [(2, 8, 30), pytest.param((2, 10, 60), marks=pytest.mark.soak)])
def test_the_gap_shrinks_with_the_number_of_steps(steps):
    known, like = LinearGaussian(), torch.zeros(100, 5).double()
    gaps = [
        bidirectional(known.story(), like, particles=4, num_temperatures=count, start="prior", progress=False).gap()
        for count in steps
    ]
    assert gaps[0][0] - gaps[1][0] > 3 * math.hypot(gaps[0][1], gaps[1][1])
    assert gaps[1][0] > 2 * gaps[2][0]


def test_both_sides_of_two_layers_and_masked_data():
    two = TwoLayers(widen=1.2)
    found = bidirectional(
        two, torch.zeros(100, 4).double(), particles=4, **QUICK
    )  # from the prior the ratios are too skewed
    truth = two.log_evidence(found.x)
    assert abs(off_from_one(found.lower.estimate - truth)) < 4
    assert abs(off_from_one(truth - found.upper.estimate)) < 4
    known, mask = LinearGaussian(), torch.rand(100, 5) < 0.7
    found = bidirectional(known.story(2.0), (torch.zeros(100, 5).double(), mask), particles=4, **QUICK)
    truth = known.log_evidence(found.x, mask)
    assert abs(off_from_one(found.lower.estimate - truth)) < 4
    assert abs(off_from_one(truth - found.upper.estimate)) < 4


def test_the_way_back_is_moved_by_the_kernels_of_the_way_there_in_reverse(monkeypatch):
    used, plain, known = [], annealing.transition, LinearGaussian()

    def spied(log_density, u, step, scale, noise, leapfrog):
        used.append(step.clone())
        return plain(log_density, u, step, scale, noise, leapfrog)

    monkeypatch.setattr(annealing, "transition", spied)
    tuning = annealing.SETTLING + 5
    bidirectional(known.story(widen=1.5), torch.zeros(3, 5).double(), particles=4, num_temperatures=6, progress=False)
    forward, back = used[tuning : tuning + 5], used[2 * tuning + 5 :]
    for there, here in zip(forward, reversed(back), strict=True):
        assert torch.equal(there, here)


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_the_chains_that_count_are_not_the_pilots(start, monkeypatch):
    """Nor do they share their noise: step sizes tuned on the very chains that they move would bias the estimate."""
    moved, streams, plain = [], [], annealing.transition

    def spied(log_density, u, step, scale, noise, leapfrog):
        moved.append(u.clone())
        streams.append(noise.generators[0].initial_seed())
        return plain(log_density, u, step, scale, noise, leapfrog)

    monkeypatch.setattr(annealing, "transition", spied)
    known, tuning = LinearGaussian(), annealing.SETTLING + 2
    bidirectional(
        known.story(widen=1.5),
        torch.zeros(2, 5).double(),
        particles=4,
        num_temperatures=3,
        start=start,
        num_leapfrog_steps=1,
        progress=False,
    )
    ways = {"pilot": 0, "forward": tuning, "pilot again": tuning + 2, "back": 2 * tuning + 2}
    first = {way: moved[at] for way, at in ways.items()}
    assert len(moved) == 2 * tuning + 4
    assert not torch.isin(first["pilot"], first["forward"]).any()
    assert torch.equal(first["pilot"], first["pilot again"])  # the same step sizes, forward and back
    seeds = {way: set(streams[at : at + 2]) for way, at in ways.items()}
    assert seeds["pilot"] == seeds["pilot again"]
    assert [len(seeds[way]) for way in ways] == [1, 1, 1, 1]
    assert len(seeds["pilot"] | seeds["forward"] | seeds["back"]) == 3


def test_what_draws_not_from_its_density_is_refused():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.factor("tilt", -z.square() / 2)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x / 2, 1.0)))
    with pytest.raises(ValueError, match="the factor 'tilt' is drawn from by nothing: use annealed"):
        bidirectional(story, torch.zeros(2).double(), progress=False)


def test_a_model_that_is_fed_its_own_x_cannot_be_simulated():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        before = torch.stack([0 * x[:, 0], x[:, 0]], dim=-1)  # every value is drawn by the one before
        pyro.sample("x", dist.Normal(z + before, 1.0).to_event(1), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x, 1.0).to_event(1)))
    with pytest.raises(
        ValueError, match="should not be fed the x that it draws; the density of site 'x' depends on it"
    ):
        bidirectional(story, torch.randn(3, 2).double(), progress=False)


def test_a_flat_prior_draws_nothing():
    story = Autoencoder(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="needs a proper prior"):
        bidirectional(story, torch.zeros(3, 5), start="prior", progress=False)


def test_options_out_of_range_are_refused_as_by_annealed():
    with pytest.raises(ValueError, match="num_temperatures should be at least 1, got 0"):
        bidirectional(LinearGaussian().story(), torch.zeros(2, 5).double(), num_temperatures=0, progress=False)
