"""Closed-form divergences: by quadrature, by hand and by Pyro's own estimator."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_oracles import mean, unbiased
from objective_stories import Chain, binary, gradients, vae
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from ppvae import networks
from ppvae.inference import elbo, free_bits, mean_field_elbo
from ppvae.models import encoders, priors


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


@pytest.mark.parametrize("objective", [mean_field_elbo, free_bits])
def test_latents_in_another_order_are_refused_where_a_divergence_is_a_closed_form(objective):
    with pytest.raises(ValueError, match="got top, z in the model and z, top in the guide: elbo"):
        objective(Chain(reverse=True), torch.randn(6))
    assert elbo(Chain(reverse=True), torch.randn(6)).isfinite()


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_divergence_and_may_be_a_tensor(beta):
    story, x = vae(), binary()
    q = story.encoder(x).base_dist
    for objective in (elbo, mean_field_elbo, partial(free_bits, nats=0.0)):
        story.prior = priors.StandardNormal(2)
        losses = []
        for weight in (beta, torch.tensor(beta), 1.0):
            torch.manual_seed(3)
            losses.append(objective(story, x, particles=2, beta=weight))
        torch.testing.assert_close(losses[0], losses[1])
        if objective is mean_field_elbo:
            kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
            torch.testing.assert_close(losses[0] - losses[2], (beta - 1) * kl)


def test_free_bits_leave_a_dimension_alone_until_its_divergence_is_spent():
    """KL of each dimension by hand, averaged over the batch before it is compared with what is free."""
    story, x = vae(prior=priors.StandardNormal(2)), binary()
    with torch.no_grad():
        story.encoder.network[-1].weight.mul_(2)
        story.encoder.network[-1].bias.copy_(torch.tensor([2.0, 0.0, 0.0, -0.1]))
    q = story.encoder(x).base_dist
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    nats = kl.detach().mean().item()
    assert kl[1] < nats < kl[0]
    torch.manual_seed(3)
    lost = free_bits(story, x, nats=1e6) - 2e6
    torch.manual_seed(3)
    torch.testing.assert_close(free_bits(story, x, nats=nats), lost + kl[0] + nats, rtol=0, atol=0.2)  # float32 of 2e6
    torch.manual_seed(3)
    plain = mean_field_elbo(story, x)
    torch.manual_seed(3)
    torch.testing.assert_close(free_bits(story, x, nats=nats), plain - kl[1] + nats)
    torch.manual_seed(3)
    mine = gradients(story, free_bits(story, x, nats=nats))
    torch.manual_seed(3)
    expected = gradients(story, mean_field_elbo(story, x, beta=0.0) + kl[0])
    torch.testing.assert_close(mine, expected)


def test_free_bits_of_a_guide_that_is_no_product_are_of_the_site():
    story, x = vae(encoder=encoders.FullNormal(networks.mlp(5, [7], 5))), binary()
    torch.manual_seed(3)
    plain = elbo(story, x, beta=0.0)
    torch.manual_seed(3)
    torch.testing.assert_close(free_bits(story, x, nats=50.0), plain + 50)


@pytest.mark.parametrize(
    ("options", "weight"), [({"particles": 2}, {}), ({"beta": 2.5}, {"particles": 1, "beta": 2.5})]
)
def test_a_gradient_is_the_exact_one_on_average(options, weight):
    unbiased(partial(mean_field_elbo, **options), mean, **weight)
