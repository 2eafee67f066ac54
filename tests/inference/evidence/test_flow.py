"""Importance sampling from a flow that is fitted to every datum."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from planes import banana, by_quadrature
from stories import Written, two_modes

from ppvae.inference import flow_sampling
from ppvae.inference.evidence import flow
from ppvae.inference.posteriors.local import fit_normals
from ppvae.inference.posteriors.local_flow import fit_flows
from ppvae.inference.program.prepared import prepared
from ppvae.selfcheck.analytic import LinearGaussian


def test_sampling_from_it_agrees_with_quadrature():
    story, x = banana()
    found = flow_sampling(story, x, particles=4000, num_steps=200, progress=False)
    log_p, _, _ = by_quadrature(story, x)
    assert ((found.estimate - log_p).abs() < 4 * found.standard_error).all()
    assert found.standard_error.max() < 0.03
    assert found.bound == "stochastic lower bound"
    assert "and the guide" in found.method


def test_a_mode_that_only_the_guide_knows_of_is_counted():
    story, x, truth = two_modes()

    def both(x):
        root = x.clamp_min(0.1).sqrt()
        normals = dist.Normal(torch.stack([-root, root], dim=-1), 0.2)
        pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(2).double()), normals))

    found = flow_sampling(Written(story.within[0], both), x, particles=4000, num_steps=60, progress=False)
    assert ((found.estimate - truth).abs() < 4 * found.standard_error).all()
    assert found.standard_error.max() < 0.05


def test_the_normal_beside_a_flow_is_wider_than_it_was_fitted(monkeypatch):
    """The safe side: a tail that both cut off would be missed."""
    known, used = LinearGaussian(), []

    class Spied(torch.distributions.MultivariateNormal):
        def __init__(self, loc, scale_tril, validate_args):
            used.append(scale_tril)
            super().__init__(loc, scale_tril=scale_tril, validate_args=validate_args)

    x, story = known.data(1), known.story()
    normal = fit_normals(story, x, num_steps=3, progress=False)
    fitted = fit_flows(story, x, num_steps=3, start=normal, progress=False)
    monkeypatch.setattr(flow, "MultivariateNormal", Spied)
    flow.mixture_sampling(prepared(story, (x,)), fitted, normal, flow.Budget(25), 0, False)
    assert used
    assert all(torch.equal(scale_tril, 1.2 * normal.scale_tril) for scale_tril in used)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"particles": 0}, "particles should be at least 1, got 0"),
        ({"target_error": 0.0}, "target_error should be positive and finite, got 0"),
    ],
)
def test_a_budget_out_of_range_is_refused_before_anything_is_fitted(option, message, monkeypatch):
    monkeypatch.setattr(flow, "fit_normals", pytest.fail)
    known = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        flow_sampling(known.story(), known.data(2), progress=False, **option)
