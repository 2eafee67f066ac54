"""Flows made for drawing: affine ones are Normals, and a draw keeps the density that any other point is asked for."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions.transforms import AffineTransform

from ppvae.distributions.flow import zuko
from ppvae.distributions.guide_flow import GuideFlow
from ppvae.distributions.sylvester import TriangularSylvester

LOC, SCALE = torch.tensor([[0.5, -1.0], [2.0, 3.0]]).double(), torch.tensor([[0.3, 2.0], [1.0, 0.1]]).double()


def affine(loc=LOC, scale=SCALE):
    return GuideFlow([AffineTransform(0.0, 2.0, 1), AffineTransform(loc, scale / 2, 1)], like=loc)


def bent():
    """Two layers that are no affine map."""
    torch.manual_seed(0)
    matrix, r, s, b = torch.randn(2, 3, 3), 0.9 * torch.rand(2, 3), 0.9 * torch.rand(2, 3), torch.randn(2, 3)
    parts = [part.double().requires_grad_() for part in (matrix, r, s, b)]
    layers = [TriangularSylvester(*parts, flip) for flip in (False, True)]
    return GuideFlow(layers, like=torch.zeros(2, 3).double())


def test_an_affine_flow_is_a_normal():
    q, oracle = affine(), dist.Normal(LOC, SCALE).to_event(1)
    z = 3 * torch.randn(5, 2, 2).double()
    torch.testing.assert_close(q.log_prob(z), oracle.log_prob(z))
    torch.testing.assert_close(q.mean, LOC, atol=1e-12, rtol=0)  # over pairs of draws, exactly
    draws = q.sample((10_000,))
    w = (draws - LOC) / SCALE
    assert (w.mean(0).abs() < 5 / 10_000**0.5).all()
    assert ((w.square().mean(0) - 1).abs() < 5 * (2 / 10_000) ** 0.5).all()


@pytest.mark.parametrize("shape", [(), (4,)])
def test_the_density_that_a_draw_keeps_is_that_of_the_way_back(shape):
    q = bent()
    z = q.rsample(shape)
    kept, anew = q.log_prob(z), q.log_prob(z.clone())
    torch.testing.assert_close(kept, anew, atol=1e-9, rtol=0)
    assert q.log_prob(z) is kept  # no second pass, which for some flows is as many as dimensions


def test_the_density_of_a_draw_is_the_bases_by_the_jacobian():
    noise = torch.randn(2, 3).double()
    forward = bent().dist.transform.inv
    jacobian = torch.autograd.functional.jacobian(lambda e: forward(e).sum(0), noise).movedim(1, 0)
    expected = dist.Normal(0.0, 1.0).log_prob(noise).sum(-1) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(bent().log_prob(forward(noise)), expected)


def test_a_draw_without_a_gradient_is_scored_anew_where_one_is_wanted():
    loc = LOC.clone().requires_grad_()
    q = affine(loc)
    z = q.sample()
    assert not z.requires_grad
    (slope,) = torch.autograd.grad(q.log_prob(z).sum(), loc)
    torch.testing.assert_close(slope, (z - LOC) / SCALE**2)
    with torch.no_grad():
        torch.testing.assert_close(q.log_prob(z), dist.Normal(LOC, SCALE).to_event(1).log_prob(z))


def test_the_gradient_of_a_draw_goes_through_the_flow():
    scale = SCALE.clone().requires_grad_()
    q = affine(scale=scale)
    z = q.rsample()
    (slope,) = torch.autograd.grad((q.log_prob(z) - z.square().sum(-1)).sum(), scale)
    noise = ((z - LOC) / SCALE).detach()
    torch.testing.assert_close(slope, -1 / SCALE - 2 * z.detach() * noise)  # of -log s and -(m + s e)^2


def test_the_mean_of_a_bent_flow_is_that_of_its_draws_and_no_generator_moves():
    q, state = bent(), torch.get_rng_state()
    mean = q.mean
    assert torch.equal(torch.get_rng_state(), state)
    draws = q.sample((20_000,))
    error = draws.std(0) * math.sqrt(1 / 256 + 1 / 20_000)  # the mean is that of 256 fixed draws
    assert ((mean - draws.mean(0)).abs() < 5 * error).all()


def test_shapes_expand_and_a_plate_takes_it():
    q = affine().expand((4, 2))
    assert (q.batch_shape, q.event_shape) == ((4, 2), (2,))
    assert q.rsample((3,)).shape == (3, 4, 2, 2)
    assert q.mean.shape == (4, 2, 2)
    with pyro.plate("particles", 4, dim=-2), pyro.plate("data", 2, dim=-1):
        assert pyro.sample("z", affine()).shape == (4, 2, 2)
    zero = GuideFlow([zuko.transforms.IdentityTransform()], like=torch.zeros(5, 2))
    assert (zero.batch_shape, zero.event_shape) == ((5,), (2,))
