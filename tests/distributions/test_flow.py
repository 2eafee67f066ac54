"""Flows as Pyro distributions: densities by autograd's Jacobian and by quadrature, and their draws."""

import runpy
import sys

import pyro.distributions as dist
import pytest
import torch
from torch.distributions.transforms import AffineTransform

from ppvae.distributions import flow
from ppvae.distributions.flow import Flow, zuko
from ppvae.models import priors


def test_importing_flows_leaves_validation_on(monkeypatch):
    """zuko turns it off for every distribution of torch."""
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    runpy.run_path(flow.__file__)
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(torch.zeros(2), -torch.ones(2))


def test_a_flow_scores_a_draw_again_with_its_gradient():
    """Pyro's wrapper keeps the density of a draw, which one taken without gradients must not use."""
    prior = priors.RealNVP(2, hidden=[8])
    density = prior()
    density.log_prob(density.sample((5,))).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in prior.parameters())


def made(features, family=zuko.flows.MAF):
    """A smooth flow, far from the identity."""
    torch.manual_seed(0)
    flow = family(features, transforms=2, hidden_features=(8,), activation=torch.nn.Tanh).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.2)
    return flow


@pytest.mark.parametrize("family", [zuko.flows.MAF, zuko.flows.NSF])
def test_the_density_is_the_bases_by_the_jacobian_of_the_flow(family):
    p = made(3, family)()
    z = torch.randn(4, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda z: p.transform(z).sum(0), z).movedim(1, 0)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(p.transform(z)).sum(-1)
    torch.testing.assert_close(Flow(p).log_prob(z), base + torch.linalg.slogdet(jacobian).logabsdet)


def test_the_density_integrates_to_one_and_has_the_moments_of_the_draws():
    axis = torch.linspace(-16, 16, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = Flow(made(2)())
    mass = p.log_prob(grid).exp().detach() * (axis[1] - axis[0]) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=1e-5)
    draws = p.sample((20_000,))
    for statistic in (lambda z: z, torch.square, lambda z: z.prod(-1, keepdim=True)):
        values = statistic(draws)
        error = values.std(0) / 20_000**0.5
        assert ((values.mean(0) - mass @ statistic(grid)).abs() < 5 * error).all()


def test_draws_pass_the_gradient_of_the_inverse():
    """Of z = (e - b) / a."""
    shift, scale = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([0.5, 2.0], requires_grad=True)
    base = zuko.distributions.DiagNormal(torch.zeros(2), torch.ones(2))
    p = Flow(zuko.distributions.NormalizingFlow(AffineTransform(shift, scale, 1), base))
    z = p.rsample((7,))
    noise = (z * scale + shift).detach()
    found = torch.autograd.grad(z.square().sum(), (shift, scale))
    expected = torch.autograd.grad(((noise - shift) / scale).square().sum(), (shift, scale))
    torch.testing.assert_close(found, expected)
    assert not p.sample().requires_grad


def test_shapes_expand():
    p = Flow(made(2)()).expand([3])
    assert (p.batch_shape, p.event_shape) == ((3,), (2,))
    assert p.sample((4,)).shape == p.rsample((4,)).shape == (4, 3, 2)
    assert p.log_prob(p.sample()).shape == (3,)
    assert p.support.check(p.sample()).all()
