"""Mixtures of Normals: density against Pyro's own, draws, and their gradient against quadrature."""

import math

import pyro.distributions as dist
import pytest
import torch

from ppvae.distributions.normal_mixture import NormalMixture


def parameters(components=3, dim=2, batch=()):
    generator = torch.Generator().manual_seed(1)
    shapes = [(*batch, components), (*batch, components, dim), (*batch, components, dim)]
    logits, loc, log_scale = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return logits, 1.5 * loc, (0.5 * log_scale).exp()


def test_the_density_is_pyros():
    given = parameters()
    z = torch.randn(50, 2).double()
    logits, loc, scale = given
    expected = dist.MixtureOfDiagNormals(loc, scale, logits).log_prob(z)
    torch.testing.assert_close(NormalMixture(*given).log_prob(z), expected)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_gradient_of_an_expectation_is_that_of_the_quadrature(dim):
    torch.manual_seed(0)

    def f(z):
        return (0.7 * z[..., 0] - 0.3 * z[..., -1]).sin() + z[..., 0] * z[..., -1] ** 2 / 10

    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    given = [part.requires_grad_() for part in parameters(dim=dim)]
    mass = NormalMixture(*given).log_prob(grid).exp() * (axis[1] - axis[0]) ** dim
    exact = torch.autograd.grad((mass * f(grid)).sum(), given)
    rows = [part.detach().expand(40_000, *part.shape).clone().requires_grad_() for part in given]
    draws = NormalMixture(*rows).rsample()
    for estimate, value in zip(torch.autograd.grad(f(draws).sum(), rows), exact, strict=True):
        error = estimate.std(0) / math.sqrt(len(estimate))
        assert ((estimate.mean(0) - value).abs() < 4 * error).all()
        assert error.max() < 0.05  # an error so large would hide anything


def test_one_component_is_the_normal_itself():
    logits, loc, scale = (part.requires_grad_() for part in parameters(components=1))
    draws = NormalMixture(logits, loc, scale).rsample((100,))
    noise = ((draws - loc[0]) / scale[0]).detach()
    gradient = torch.autograd.grad(draws.pow(2).sum(), (loc, scale))
    z = loc[0] + scale[0] * noise
    for ours, theirs in zip(gradient, torch.autograd.grad(z.pow(2).sum(), (loc, scale)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_equal_components_have_a_finite_gradient():
    loc = torch.zeros(3, 2, requires_grad=True)
    NormalMixture(torch.zeros(3), loc, torch.ones(3, 2)).rsample((10,)).sum().backward()
    torch.testing.assert_close(loc.grad, torch.full((3, 2), 10 / 3))


def test_shapes_expand():
    q = NormalMixture(*parameters(batch=(5,)))
    wide = q.expand((4, 5))
    draws = wide.rsample((3,))
    assert (wide.batch_shape, wide.event_shape, draws.shape) == ((4, 5), (2,), (3, 4, 5, 2))
    torch.testing.assert_close(wide.log_prob(draws), q.log_prob(draws))
    torch.testing.assert_close(wide.mean[1], q.mean)
