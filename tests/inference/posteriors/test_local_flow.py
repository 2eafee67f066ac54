"""A flow of its own for every datum."""

import pytest
import torch
from planes import banana, by_quadrature
from stories import fingerprint, gamma_story
from torch.autograd.functional import jacobian

from ppvae.inference import log_joint
from ppvae.inference.posteriors.local import fit_normals
from ppvae.inference.posteriors.local_flow import LocalFlow, fit_flows
from ppvae.selfcheck.analytic import LinearGaussian


def some_flow(size, batch=3, couplings=3):
    """Far from the identity."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return 0.5 * torch.randn(batch, *shape, generator=draw, dtype=torch.float64)

    tril = normal(size, size).tril(-1) + torch.diag_embed(normal(size).exp())
    couplings = couplings if size > 1 else 0
    inner, outer = (couplings, size, 4), (couplings, 4, 2 * size)
    weights = normal(*inner), normal(couplings, 4), normal(*outer), normal(couplings, 2 * size)
    return LocalFlow(normal(size), tril, normal(size), normal(size).tanh(), *weights)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_density_is_that_of_the_map_forward_and_back(size):
    flow, noise = some_flow(size), torch.randn(7, 3, size).double()
    u, log_q = flow.rsample(noise)
    torch.testing.assert_close(flow.log_prob(u), log_q, atol=1e-8, rtol=0)
    of_one = jacobian(lambda e: flow.rsample(e)[0], noise[:1])[0, :, :, 0]  # (3, size, 3, size)
    log_det = torch.stack([of_one[row, :, row].slogdet().logabsdet for row in range(3)])
    base = torch.distributions.Normal(0.0, 1.0).log_prob(noise[0]).sum(-1)
    torch.testing.assert_close(log_q[0], base - log_det, atol=1e-8, rtol=0)
    assert sum(of_one[0, :, other].abs().max() for other in (1, 2)) == 0  # no datum moves another


def test_it_is_the_posterior_where_that_is_normal():
    known = LinearGaussian()
    x = known.data(6)
    flow = fit_flows(known.story(widen=1.4, shift=0.3), x, num_steps=300, progress=False)
    u, log_q = flow.rsample(torch.randn(4000, 6, 2).double())
    gap = known.log_evidence(x) - (log_joint(known.story(), x, {"z": u}) - log_q).mean(0)
    assert gap.max() < 0.02
    assert gap.min() > -0.01


def elbo(story, x, q, draws=8000):
    u = q.sample((draws,))
    return (log_joint(story, x, {"z": u}) - q.log_prob(u)).mean(0)


@pytest.mark.parametrize("steps", [250, pytest.param(600, marks=pytest.mark.soak)])
def test_a_banana_has_a_gap_for_normals_and_less_of_one_for_a_flow(steps):
    story, x = banana()
    log_p, _, _ = by_quadrature(story, x)
    gaps = {}
    for covariance in ("diagonal", "full"):
        found = fit_normals(
            story, x, num_steps=300, particles=32, covariance=covariance, progress=False, tolerance=0.002
        )
        q = torch.distributions.MultivariateNormal(found.loc, scale_tril=found.scale_tril)
        gaps[covariance] = log_p - elbo(story, x, q)
    flow = fit_flows(story, x, num_steps=steps, progress=False)
    u, log_q = flow.rsample(torch.randn(8000, 3, 2).double())
    log_w = log_joint(story, x, {"z": u}) - log_q
    gaps["flow"] = log_p - log_w.mean(0)
    error = log_w.std(0) / len(log_w) ** 0.5
    assert (gaps["diagonal"] > 0.15).all()
    assert (gaps["flow"] > -4 * error).all()
    assert (gaps["flow"] < 0.4 * gaps["full"]).all()


def test_a_single_latent_is_bent_too():
    story, x, truth = gamma_story()
    normal = fit_normals(story, x, num_steps=400, particles=16, progress=False, tolerance=0.001)
    flow = fit_flows(story, x, progress=False, start=normal)
    assert flow.inward.shape[1] == 0
    u, log_q = flow.rsample(torch.randn(8000, 3, 1).double())
    z = u[..., 0].exp()
    bound = (log_joint(story, x, {"z": z}) + u[..., 0] - log_q).mean(0)
    q = torch.distributions.Normal(normal.loc[:, 0], normal.scale_tril[:, 0, 0])
    v = q.sample((8000,))
    plain = (log_joint(story, x, {"z": v.exp()}) + v - q.log_prob(v)).mean(0)
    assert (truth - plain > 0.003).all()
    assert (truth - bound).sum() < 0.5 * (truth - plain).sum()
    assert (truth - bound > -0.01).all()


def test_no_datum_depends_on_the_others_and_nothing_changes():
    known = LinearGaussian()
    x, story = known.data(5), known.story(widen=1.4, shift=0.3)
    before = fingerprint(story)
    options = {"num_steps": 60, "progress": False}
    whole = fit_flows(story, x, **options)
    assert fingerprint(story) == before
    backwards = fit_flows(story, x.flip(0), **options)
    alone = fit_flows(story, x[2:3], **options)
    for one, other, third in zip(whole, backwards, alone, strict=True):
        torch.testing.assert_close(one, other.flip(0), atol=1e-8, rtol=0)
        torch.testing.assert_close(one[2:3], third, atol=1e-8, rtol=0)


def test_the_stopping_rule_stops_and_never_leaves_a_datum_worse_off():
    known = LinearGaussian()
    x, story = known.data(8), known.story()
    looks = []

    class Counted(torch.nn.Module):
        def model(self, x):
            looks.append(len(x))
            story.model(x)

        def guide(self, x):
            story.guide(x)

    fit_normals(Counted(), x, num_steps=1000, progress=False, tolerance=0.005)
    assert len(looks) < 700  # it began at the answer
    whole = len(looks)
    looks.clear()
    fit_normals(Counted(), x, num_steps=1000, progress=False)
    assert len(looks) >= 1000 > whole


@pytest.mark.parametrize("option", ["num_steps", "particles", "couplings", "hidden"])
def test_options_out_of_range_are_refused(option):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=f"{option} should be at least 1, got 0"):
        fit_flows(known.story(), known.data(2), progress=False, **{option: 0})


def test_couplings_take_turns():
    """Couplings that all shifted one half by the other would leave that other as it is."""
    flow, noise = some_flow(2, couplings=2), torch.randn(1, 3, 2).double()
    of_one = jacobian(lambda e: flow.rsample(e)[0], noise)[0, :, :, 0]  # (3, size, 3, size)
    assert all((of_one[row, :, row] != 0).all() for row in range(3))
