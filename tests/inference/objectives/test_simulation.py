"""Reweighted wake-sleep: its formulas by quadrature, Pyro's own, and what it simulates."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_oracles import Gaussian, agree, by_role, log_mean_exp
from objective_stories import binary, gradients, vae
from pyro.infer import ReweightedWakeSleep
from torch import nn

from ppvae.inference import wake_sleep
from ppvae.models import encoders


@pytest.mark.parametrize("insomnia", [1.0, 0.3, 0.0])
def test_wake_sleep_follows_its_own_formulas(insomnia):
    known = Gaussian()
    bound = known.expected(log_mean_exp)
    guide = insomnia * known.awake() + (1 - insomnia) * known.asleep()
    agree(
        known.story,
        known.x,
        partial(wake_sleep, particles=2, insomnia=insomnia),
        bound,
        by_role(known.story, bound, guide),
    )


def test_wake_sleep_is_pyros_reweighted_wake_sleep_while_awake():
    """Of one datum: Pyro's weights are of a whole batch."""
    story, x = vae(), binary()[:1]
    torch.manual_seed(3)
    mine = gradients(story, wake_sleep(story, x, particles=5))
    pyros = ReweightedWakeSleep(num_particles=5, insomnia=1.0, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(3)
    with pyro.get_param_store().scope():
        story.zero_grad()
        pyros.loss_and_grads(story.model, story.guide, x)
    for name, parameter in story.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


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
