"""Objectives against Pyro's own estimator and against closed forms."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known import LinearGaussian
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import nn

from ppvae import networks
from ppvae.inference import elbo, iwae, log_mean_exp, log_weights
from ppvae.models import VAE, guides, likelihoods, priors


class Discrete(nn.Module):
    """A latent that passes no gradient, beside one that does."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.2, -0.3, 0.1]))
        self.loc = nn.Parameter(torch.tensor([-1.0, 0.0, 2.0]))
        self.encode = nn.Linear(1, 5)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            z = pyro.sample("z", dist.Normal(self.loc[k], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(self, x):
        out = self.encode(x.unsqueeze(-1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Categorical(logits=out[..., :3]))
            pyro.sample("z", dist.Normal(out[..., 3], out[..., 4].exp()))


def vae():
    torch.manual_seed(0)
    return VAE(
        priors.GaussianMixture(2, components=3),
        likelihoods.Bernoulli(networks.mlp(2, [7], 5)),
        guides.DiagonalNormal(networks.mlp(5, [7], 4)),
    )


def binary():
    return torch.bernoulli(torch.full((6, 5), 0.4))


def gradients(story, loss):
    story.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in story.named_parameters()}


@pytest.mark.parametrize(("make", "data"), [(vae, binary), (Discrete, lambda: torch.randn(6))])
@pytest.mark.parametrize("particles", [1, 4])
def test_elbo_is_pyros_trace_elbo_loss_and_gradients(make, data, particles):
    story, x = make(), data()
    torch.manual_seed(3)
    loss = elbo(story, x, particles)
    mine = gradients(story, loss)
    pyros = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    torch.manual_seed(3)
    reference = pyros.differentiable_loss(story.model, story.guide, x) / len(x)
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients(story, reference).items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_iwae_is_pyros_renyi_bound_at_alpha_zero():
    story, x = vae(), binary()
    renyi = RenyiELBO(alpha=0, num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(3)
    mine = gradients(story, iwae(story, x, particles=5))
    torch.manual_seed(3)
    with pyro.get_param_store().scope():
        story.zero_grad()
        loss = renyi.loss_and_grads(story.model, story.guide, x) / len(x)
    torch.manual_seed(3)
    assert iwae(story, x, particles=5).item() == pytest.approx(loss, rel=1e-6)
    for name, parameter in story.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad / len(x), rtol=1e-4, atol=1e-6, msg=name)


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


def test_score_function_gradient_of_iwae_is_unbiased():
    """Against the exact gradient by enumeration of both particles' discrete values; everything else is absent."""

    class Coin(nn.Module):
        def __init__(self):
            super().__init__()
            self.logit = nn.Parameter(torch.tensor(0.3).double())

        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.7).double()))
                pyro.sample("x", dist.Normal(2 * k, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("k", dist.Bernoulli(logits=self.logit))

    story, x = Coin(), torch.tensor([1.5]).double()
    k = torch.tensor([0.0, 1.0]).double()
    q = dist.Bernoulli(logits=story.logit)
    log_w = dist.Bernoulli(0.7).log_prob(k) + dist.Normal(2 * k, 1.0).log_prob(x) - q.log_prob(k)
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    bound = sum(
        (q.log_prob(k[i]) + q.log_prob(k[j])).exp() * log_mean_exp(torch.stack([log_w[i], log_w[j]])) for i, j in pairs
    )
    (exact,) = torch.autograd.grad(-bound, story.logit)
    estimates = []
    repeats = 4000
    loss = iwae(story, x.expand(repeats), particles=2)  # one datum many times: independent draws
    (mean,) = torch.autograd.grad(loss, story.logit)
    for _ in range(50):
        estimates.append(torch.autograd.grad(iwae(story, x.expand(100), particles=2), story.logit)[0])
    error = torch.stack(estimates).std() * math.sqrt(100 / repeats)
    assert abs(mean - exact) < 4 * error


def test_more_particles_of_elbo_only_lower_the_noise():
    story, x = vae(), binary()
    one = torch.stack([elbo(story, x).detach() for _ in range(300)])
    many = torch.stack([elbo(story, x, particles=20).detach() for _ in range(300)])
    error = (one.var() / 300 + many.var() / 300).sqrt()
    assert abs(one.mean() - many.mean()) < 4 * error
    assert many.std() < 0.5 * one.std()


@pytest.mark.parametrize("objective", [elbo, iwae, partial(iwae, particles=3)])
def test_an_objective_is_a_scalar_that_reaches_every_parameter(objective):
    story = vae()
    loss = objective(story, binary())
    assert loss.shape == ()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(story, loss).values())


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


def test_a_log_weight_of_a_part_of_a_plate_is_refused():
    for estimate in (log_weights, iwae):
        with pytest.raises(ValueError, match="every place of a plate; plate 'pixels'"):
            estimate(Scaled(), torch.randn(6, 10))
