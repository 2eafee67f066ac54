"""Which density and which proposal a story is scored with."""

from dataclasses import replace
from functools import partial

import pyro
import pytest
import torch
from known import LinearGaussian
from torch import nn

from ppvae.inference import importance, laplace_sampling
from ppvae.inference.codes import codes
from ppvae.models import Autoencoder, assemble, guides, likelihoods, priors, stories
from ppvae.scoring import PILOT, give_density, score


def deterministic(prior, latent=2):
    torch.manual_seed(0)
    return Autoencoder(prior, likelihoods.Normal(nn.Linear(latent, 5)), nn.Linear(5, latent))


def same(found, expected):
    return torch.equal(found.estimate, expected.estimate) and found.method == expected.method


def test_a_good_guide_is_the_proposal():
    known = LinearGaussian()
    x, story = known.data(5), known.story(widen=1.2)
    assert same(score(story, (x,), 200), importance(story, x, 200))


def test_a_bad_guide_gives_way_to_a_widened_point_mass_and_keeps_its_elbo():
    known = LinearGaussian()
    x, story = known.data(5), known.story(widen=0.2, shift=0.3)
    found = score(story, (x,), 1000)
    assert torch.equal(found.estimate, laplace_sampling(story, x, 1000).estimate)
    assert found.method.endswith("for 5 of 5 data from a widened point mass at its mean")
    assert torch.equal(found.elbo, importance(story, x, 1000).elbo)
    assert found.unreliable() == 0
    exact = known.marginal().log_prob(x)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()


def half_bad(data=40):
    """A guide that is exact for x with a positive first feature, and far too narrow elsewhere."""
    known = LinearGaussian()
    exact, narrow = known.story(), known.story(widen=0.1)

    class Halves(nn.Module):
        parts = nn.ModuleList([exact, narrow])

        def model(self, x):
            return exact.model(x)

        def guide(self, x):
            a, b = exact.encoder(x).base_dist, narrow.encoder(x).base_dist
            scale = torch.where(x[:, :1] > known.bias[0], a.scale, b.scale)
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", pyro.distributions.Normal(a.loc, scale).to_event(1))

    return known, Halves(), known.data(data)


def test_each_datum_has_the_proposal_of_its_own_k_hat_whatever_the_others_have():
    known, story, x = half_bad()
    good = x[:, 0] > known.bias[0]
    together = score(story, (x,), 500)
    by_guide, widened = importance(story, x, 500), laplace_sampling(story, x, 500)
    pilots = importance(story, x, PILOT, seed=1).pareto_k, laplace_sampling(story, x, PILOT, seed=1).pareto_k
    bad = (pilots[0] > 0.5) & (pilots[1] < pilots[0])
    assert bad[~good].any()
    assert not bad[good].any()
    for name in ("estimate", "standard_error", "ess", "pareto_k"):
        expected = torch.where(bad, getattr(widened, name), getattr(by_guide, name))
        torch.testing.assert_close(getattr(together, name), expected, atol=1e-9, rtol=0)
    apart = torch.cat([score(story, (row,), 500).estimate for row in x.split(1)])
    torch.testing.assert_close(together.estimate, apart, atol=1e-9, rtol=0)
    assert f"for {int(bad.sum())} of 40 data" in together.method


def test_the_figure_does_not_decide(monkeypatch):
    """A proposal with a higher estimate and a larger k-hat is not taken."""
    _, story, x = half_bad(10)

    def higher(*arguments, **options):
        found = laplace_sampling(*arguments, **options)
        return replace(found, estimate=found.estimate + 100, pareto_k=torch.full_like(found.pareto_k, 99.0))

    monkeypatch.setattr("ppvae.scoring.laplace_sampling", higher)
    assert same(score(story, (x,), 100), importance(story, x, 100))


def test_a_prior_that_depends_on_labels_stays():
    torch.manual_seed(0)
    parts = (priors.StandardNormal, likelihoods.Normal, guides.PointMass)
    story = assemble(
        *parts, shape=(5,), latent=2, classes=3, story=partial(stories.conditional, prior_given_labels=True)
    )
    data = (torch.randn(9, 5), torch.arange(9) % 3)
    assert not give_density(story, data)
    assert score(story, data, 50).estimate.isfinite().all()


def test_it_stays_where_the_other_is_no_better_or_impossible():
    x = torch.zeros(3, 5)
    sphere = assemble(priors.HypersphericalUniform, likelihoods.Normal, guides.VonMisesFisher, shape=(5,), latent=3)
    assert same(score(sphere, (x,), 20), importance(sphere, x, 20))
    with torch.no_grad():  # so narrow on the sphere that its weights are useless
        sphere.encoder.network[-1].bias.add_(50)
    assert same(score(sphere, (x,), 100), importance(sphere, x, 100))


def test_a_point_mass_has_no_elbo():
    story = deterministic(priors.StandardNormal(2))
    found = score(story, (torch.randn(4, 5),), 100)
    assert found.elbo.isnan().all()
    assert "ELBO                none: the guide is a point mass" in str(found)
    with pytest.raises(ValueError, match="proper prior"):
        score(deterministic(priors.Flat(2)), (torch.randn(4, 5),), 100)


def test_a_density_is_given_to_a_point_mass_alone():
    known, x = LinearGaussian(), torch.randn(200, 5)
    story = known.story()
    assert not give_density(story, (x.double(),))
    assert isinstance(story.prior, priors.StandardNormal)
    for prior in (priors.Flat(2), priors.StandardNormal(2)):
        story = deterministic(prior)
        assert give_density(story, (x,))
        expected = priors.ex_post(codes(story, x), components=10)
        torch.testing.assert_close(story.prior.loc, expected.loc)
        assert not give_density(story, (x,))  # it has one


@pytest.mark.parametrize(("rows", "components"), [(99, 9), (25, 2), (9, 1), (1, 1)])
def test_few_codes_have_few_gaussians(rows, components):
    story = deterministic(priors.Flat(2))
    give_density(story, (torch.randn(rows, 5),))
    assert len(story.prior.weights) == components


def test_a_dead_code_has_one_gaussian():
    story = deterministic(priors.Flat(2))
    nn.init.zeros_(story.encoder.network.weight)
    give_density(story, (torch.randn(100, 5),))
    assert len(story.prior.weights) == 1
    assert score(story, (torch.randn(3, 5),), 100).estimate.isfinite().all()


def test_the_choice_does_not_bias_what_is_chosen():
    """Over many equal data the mean of p-hat / p is 1 within four errors, as each has streams of its own."""
    known = LinearGaussian()
    x = known.data(1).expand(1000, -1).contiguous()
    story = known.story(widen=0.7, shift=0.05)  # about half the data have k-hat above 0.5
    found = score(story, (x,), 50)
    ratio = (found.estimate - known.marginal().log_prob(x)).exp()
    assert "data from a widened point mass" in found.method
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 1000**0.5
    assert ratio.std() / 1000**0.5 < 0.01
