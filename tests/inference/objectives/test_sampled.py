"""Reductions of log-weights against exact values and gradients, Pyro's own estimators, and one another."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_oracles import (
    Gaussian,
    Mixed,
    agree,
    between,
    double_order,
    estimated,
    far,
    flat,
    half,
    log_mean_exp,
    mean,
    unbiased,
)
from objective_stories import KINDS, Discrete, alike, binary, gradients, vae
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import nn

from ppvae.inference import ciwae, elbo, iwae, log_weights, miwae, renyi, vimco
from ppvae.selfcheck.analytic import LinearGaussian

GAUSSIAN = {
    "elbo": (partial(elbo, particles=2), mean, {}),
    "elbo, beta": (partial(elbo, beta=2.5), mean, {"particles": 1, "beta": 2.5}),
    "iwae": (partial(iwae, particles=2), log_mean_exp, {}),
    "vimco": (partial(vimco, particles=2), log_mean_exp, {}),
    "miwae": (partial(miwae, outer=2, particles=2), log_mean_exp, {}),
    "ciwae": (partial(ciwae, particles=2, beta=0.3), between, {}),
    "renyi": (partial(renyi, particles=2, alpha=0.5), half, {}),
    "renyi, 2": (partial(renyi, particles=2, alpha=2.0), double_order, {}),
}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_reparameterised_gradient_is_the_exact_one_on_average(name):
    objective, bound, options = GAUSSIAN[name]
    unbiased(objective, bound, **options)


def test_quadrature_has_converged_and_tells_the_bounds_apart():
    known = Gaussian()
    fine, coarse = (flat(known.story, known.expected(log_mean_exp, nodes=nodes)) for nodes in (121, 81))
    torch.testing.assert_close(coarse, fine, rtol=1e-6, atol=1e-6)
    assert far(known.story, known.x, partial(renyi, particles=2), known.expected(log_mean_exp))
    assert far(known.story, known.x, partial(ciwae, particles=2, beta=0.3), known.expected(mean))


MIXED = {
    "elbo": (partial(elbo, particles=2), mean),
    "iwae": (partial(iwae, particles=2), log_mean_exp),
    "vimco": (partial(vimco, particles=2), log_mean_exp),
    "miwae": (partial(miwae, outer=2, particles=2), log_mean_exp),
    "ciwae": (partial(ciwae, particles=2, beta=0.3), between),
    "renyi": (partial(renyi, particles=2, alpha=0.5), half),
    "renyi, 1": (partial(renyi, particles=2, alpha=1.0), mean),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_gradient_with_a_discrete_latent_is_the_exact_one_on_average(name):
    objective, bound = MIXED[name]
    story = Mixed()
    exact = story.expected(bound)
    agree(story, story.x, objective, exact, flat(story, exact), rough=0.1)


def test_vimco_has_less_noise_than_iwae():
    story = Mixed()
    coin = 1 + [name for name, _ in story.named_parameters()].index("coin") + 1  # the loss, and loc of size 2
    noise = {f: estimated(story, story.x, partial(f, particles=10))[1][coin].item() for f in (iwae, vimco)}
    assert noise[vimco] < 0.5 * noise[iwae]


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


SAME = {  # what is the same estimator, draw by draw
    "miwae of one bound is iwae": (partial(miwae, outer=1, particles=4), partial(iwae, particles=4)),
    "ciwae without elbo is iwae": (partial(ciwae, particles=4, beta=0.0), partial(iwae, particles=4)),
    "ciwae without iwae is renyi at 1": (partial(ciwae, particles=4, beta=1.0), partial(renyi, particles=4, alpha=1.0)),
    "renyi at 0 is iwae": (partial(renyi, particles=4, alpha=0.0), partial(iwae, particles=4)),
}


PATHS = {
    "renyi at 1 is the elbo": (partial(renyi, particles=4, alpha=1.0), partial(elbo, particles=4)),
    "vimco without a discrete latent is iwae": (partial(vimco, particles=4), partial(iwae, particles=4)),
}


@pytest.mark.parametrize("name", [*SAME, *PATHS])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_estimator_has_the_same_value_and_gradient(name, kind):
    if kind == "discrete" and name in PATHS:
        pytest.skip("of reparameterised stories")
    alike(kind, *(SAME | PATHS)[name])
