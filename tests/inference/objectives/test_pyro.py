"""Objectives against Pyro's own estimator and against closed forms."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_stories import Discrete, binary, gradients, vae
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from ppvae.inference import elbo, iwae, log_weights, mean_field_elbo, objectives, renyi, wake_sleep
from ppvae.models import priors


@pytest.mark.parametrize(("make", "data"), [(vae, binary), (Discrete, lambda: torch.randn(6))])
@pytest.mark.parametrize("particles", [1, 4])
def test_elbo_is_pyros_trace_elbo_loss_and_gradients(make, data, particles):
    story, x = make(), data()
    torch.manual_seed(3)
    loss = elbo(story, x, particles=particles)
    mine = gradients(story, loss)
    pyros = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    torch.manual_seed(3)
    reference = pyros.differentiable_loss(story.model, story.guide, x) / len(x)
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients(story, reference).items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("particles", [1, 4])
def test_mean_field_elbo_is_pyros_loss_and_gradients(particles):
    story, x = vae(prior=priors.DiagonalNormal(2)), binary()
    torch.manual_seed(3)
    loss = mean_field_elbo(story, x, particles=particles)
    mine = gradients(story, loss)
    pyros = TraceMeanField_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    torch.manual_seed(3)
    reference = pyros.differentiable_loss(story.model, story.guide, x) / len(x)
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients(story, reference).items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("alpha", [0, 0.5, 2.0])
def test_renyi_is_pyros_renyi_bound_and_iwae_its_alpha_zero(alpha):
    story, x = vae(), binary()
    pyros = RenyiELBO(alpha=alpha, num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    objective = iwae if alpha == 0 else partial(renyi, alpha=alpha)
    torch.manual_seed(3)
    loss = objective(story, x, particles=5)
    mine = gradients(story, loss)
    torch.manual_seed(3)
    with pyro.get_param_store().scope():
        story.zero_grad()
        reference = pyros.loss_and_grads(story.model, story.guide, x) / len(x)
    assert loss.item() == pytest.approx(reference, rel=1e-6)
    for name, parameter in story.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad / len(x), rtol=1e-4, atol=1e-6, msg=name)


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


@pytest.mark.parametrize("name", objectives.__all__)
def test_an_objective_is_a_scalar_that_reaches_every_parameter(name):
    story, objective = vae(), getattr(objectives, name)
    if name == "free_bits":  # no dimension free: one that is passes no gradient
        objective = partial(objective, nats=0.0)
    torch.manual_seed(3)
    loss = objective(story, binary())
    assert loss.shape == ()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(story, loss).values())
    torch.manual_seed(3)
    with torch.no_grad():
        torch.testing.assert_close(objective(story, binary()), loss)


class Scaled(nn.Module):
    """What ordinary programs have: a scaled KL, an inner plate seen in part, a factor in the guide."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.poutine.scale(scale=20.0):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 10, subsample_size=4, dim=-3) as index:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T[index].unsqueeze(-2))

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            with pyro.poutine.scale(scale=20.0):
                z = pyro.sample("z", dist.Normal(self.loc * x[:, 0], 1.0))
            pyro.factor("penalty", z**2, has_rsample=True)


def test_elbo_takes_scales_subsamples_and_guide_factors_as_trace_elbo_does():
    story, x = Scaled(), torch.randn(6, 10)
    torch.manual_seed(3)
    loss = elbo(story, x)
    mine = gradients(story, loss)
    torch.manual_seed(3)
    with pyro.plate("particles", 1, dim=-2):
        reference = Trace_ELBO(max_plate_nesting=3).differentiable_loss(story.model, story.guide, x) / len(x)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine["loc"], gradients(story, reference)["loc"], rtol=1e-5, atol=1e-5)


class Weighted(nn.Module):
    """A latent dimension for every place of an inner plate, its KL scaled and masked in both programs."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3))
        self.mask = torch.tensor([True, False, True]).reshape(3, 1, 1)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("pixels", 3, dim=-3):
            with pyro.poutine.scale(scale=20.0), pyro.poutine.mask(mask=self.mask):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T.unsqueeze(-2))

    def guide(self, x):
        plates = pyro.plate("data", len(x), dim=-1), pyro.plate("pixels", 3, dim=-3)
        with plates[0], plates[1], pyro.poutine.scale(scale=20.0), pyro.poutine.mask(mask=self.mask):
            pyro.sample("z", dist.Normal(self.loc * x[:, 0], 0.7))


def test_mean_field_elbo_takes_scales_and_masks_as_pyro_does():
    story, x = Weighted(), torch.randn(6, 3)
    torch.manual_seed(3)
    loss = mean_field_elbo(story, x)
    mine = gradients(story, loss)
    torch.manual_seed(3)
    with pyro.plate("particles", 1, dim=-2):
        reference = TraceMeanField_ELBO(max_plate_nesting=3).differentiable_loss(story.model, story.guide, x) / len(x)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine["loc"], gradients(story, reference)["loc"], rtol=1e-5, atol=1e-5)


def test_a_log_weight_of_a_part_of_a_plate_is_refused():
    for estimate in (log_weights, iwae):
        with pytest.raises(ValueError, match="every place of a plate; plate 'pixels'"):
            estimate(Scaled(), torch.randn(6, 10))
