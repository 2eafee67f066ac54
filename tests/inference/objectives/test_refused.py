"""What an objective refuses: arguments out of range, and stories that it has no way with. What it simulates, too."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_stories import Chain, Discrete, binary, vae
from torch import nn

from ppvae import networks
from ppvae.inference import (
    ciwae,
    dreg,
    elbo,
    enumerated_elbo,
    free_bits,
    iwae,
    maximum_a_posteriori,
    mean_field_elbo,
    miwae,
    piwae,
    renyi,
    sticking_the_landing,
    vimco,
    wake_sleep,
)
from ppvae.models import encoders, priors


@pytest.mark.parametrize(
    ("objective", "options", "words"),
    [
        *[
            (objective, {"particles": 0}, "particles should be at least 1, got 0")
            for objective in (elbo, mean_field_elbo, free_bits, enumerated_elbo, iwae, miwae, piwae, ciwae, renyi)
        ],
        *[
            (objective, {"particles": 0}, "particles should be at least 1, got 0")
            for objective in (dreg, sticking_the_landing, wake_sleep)
        ],
        (vimco, {"particles": 1}, "particles should be at least 2, got 1"),
        (miwae, {"outer": 0}, "outer should be at least 1, got 0"),
        (piwae, {"outer": -1}, "outer should be at least 1, got -1"),
        *[
            (objective, {"beta": -1.0}, "beta should be finite and at least 0, got -1.0")
            for objective in (elbo, free_bits)
        ],
        (mean_field_elbo, {"beta": math.inf}, "beta should be finite and at least 0, got inf"),
        (elbo, {"beta": math.nan}, "beta should be finite and at least 0, got nan"),
        (free_bits, {"nats": -0.1}, "nats should be finite and at least 0, got -0.1"),
        (renyi, {"alpha": -1.0}, "alpha should be finite and at least 0, got -1.0"),
        (ciwae, {"beta": 1.5}, "beta should be between 0 and 1, got 1.5"),
        (ciwae, {"beta": torch.tensor(0.5)}, "weight of a KL, got ciwae"),
        (wake_sleep, {"insomnia": 2.0}, "insomnia should be between 0 and 1, got 2.0"),
    ],
)
def test_arguments_out_of_range_are_refused(objective, options, words):
    with pytest.raises(ValueError, match=words):
        objective(vae(), binary(), **options)


@pytest.mark.parametrize("objective", [mean_field_elbo, free_bits, sticking_the_landing, dreg])
def test_a_latent_that_passes_no_gradient_is_refused_by_name(objective):
    with pytest.raises(ValueError, match=r"site 'k' \(Categorical\) does not: enumerated_elbo .* vimco"):
        objective(Discrete(), torch.randn(6))


@pytest.mark.parametrize("objective", [mean_field_elbo, free_bits])
def test_latents_in_another_order_are_refused_where_a_divergence_is_a_closed_form(objective):
    with pytest.raises(ValueError, match="got top, z in the model and z, top in the guide: elbo"):
        objective(Chain(reverse=True), torch.randn(6))
    assert elbo(Chain(reverse=True), torch.randn(6)).isfinite()


def test_a_latent_without_a_mean_is_refused():
    with pytest.raises(
        ValueError, match=r"which site 'k' \(Categorical\) has not: elbo and enumerated_elbo need none$"
    ):
        maximum_a_posteriori(Discrete(), torch.randn(6))


def test_a_mean_that_lies_off_the_sphere_is_refused():
    story = vae(prior=priors.HypersphericalUniform(2), encoder=encoders.VonMisesFisher(networks.mlp(5, [7], 3)))
    with pytest.raises(ValueError, match=r"which site 'z' \(VonMisesFisher\) has not"):
        maximum_a_posteriori(story, binary())


def test_wake_sleep_refuses_a_point_mass_and_a_model_whose_data_it_cannot_find():
    with pytest.raises(ValueError, match="draws site 'z' as a point mass"):
        wake_sleep(vae(encoder=encoders.PointMass(nn.Linear(5, 2))), binary())
    story, x = vae(), binary()
    masked = (x, torch.ones_like(x))
    with pytest.raises(ValueError, match=r"the sleep phase should find a site .*: insomnia=1"):
        wake_sleep(story, masked, insomnia=0.5)
    assert wake_sleep(story, masked).isfinite()


class Labelled(nn.Module):
    """x | z, y: a batch of two tensors, of which a model that is asleep simulates what it observes."""

    def __init__(self):
        super().__init__()
        self.slope, self.seen = nn.Parameter(torch.tensor(0.5)), []

    def model(self, x, y):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(100 + z + y, 1.0), obs=x)

    def guide(self, x, y):
        self.seen.append((x, y))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.slope * (x - y), 1.0))


def test_the_sleep_phase_shows_the_guide_what_the_model_simulates_and_leaves_the_rest():
    story, x, y = Labelled(), torch.zeros(500), torch.arange(500.0)
    wake_sleep(story, (x, y), particles=2, insomnia=0.5).backward()
    (awake, labels), (asleep, others) = story.seen
    assert awake is x
    assert labels is y
    assert others is y
    assert asleep.shape == x.shape
    rest = asleep - y - 100  # z + noise, of variance 2
    assert abs(rest.mean()) < 4 * math.sqrt(2 / 500)
    assert abs(rest.var() - 2) < 4 * 2 * math.sqrt(2 / 500)


def test_partial_arguments_are_checked_too():
    with pytest.raises(ValueError, match="alpha should be finite"):
        partial(renyi, alpha=math.nan)(vae(), binary())
