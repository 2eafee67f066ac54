"""Exact evidence: sums and integrals against closed forms, and what has neither."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written, gamma_story, number, one_latent
from torch import nn

from ppvae.inference import exact, importance
from ppvae.inference.evidence import exact as exact_module
from ppvae.models import VAE, Autoencoder, assemble, encoders, likelihoods, linear, priors
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import Enumerable, LinearGaussian, TwoLayers


def test_a_linear_gaussian_story_whatever_its_guide():
    known = LinearGaussian()
    x = known.data(7)
    wrong = known.story(widen=3.0, shift=2.0)
    blind = Autoencoder(wrong.prior, wrong.likelihood, nn.Linear(5, 2)).double()
    for story in (known.story(), wrong, blind):
        evidence = exact(story, x)
        torch.testing.assert_close(evidence.estimate, known.log_evidence(x), atol=1e-9, rtol=0)
        assert evidence.bound == "exact"
        assert evidence.method == "the integral of a Gaussian"
        assert evidence.measure == "density"
        assert evidence.particles.tolist() == [0] * 7
        assert (evidence.standard_error == 0).all()


def test_two_layers_and_masked_data_and_more_data_than_go_at_once():
    two = TwoLayers(widen=1.7)
    x = two.data(600)
    torch.testing.assert_close(exact(two, x).estimate, two.log_evidence(x), atol=1e-9, rtol=0)
    known = LinearGaussian()
    hidden = known.data(50)
    hidden[torch.rand(hidden.shape) < 0.4] = torch.nan
    hidden[:, 0], hidden[-1] = 0.3, torch.nan
    x, mask = masked(hidden)
    evidence = exact(known.story(), (x, mask))
    torch.testing.assert_close(evidence.estimate[:-1], known.log_evidence(x[:-1], mask[:-1]), atol=1e-9, rtol=0)
    assert abs(evidence.estimate[-1]) < 1e-9  # nothing at all is observed: p = 1


def test_principal_components_have_the_evidence_of_their_model():
    torch.manual_seed(0)
    x = torch.randn(200, 6) @ torch.randn(6, 6)
    story = linear.fit_ppca(x, 2)
    torch.testing.assert_close(exact(story, x).estimate.float(), story.log_evidence(x).float(), atol=1e-3, rtol=1e-5)


def test_single_precision_is_right_to_three_digits():
    known = LinearGaussian()
    x = known.data(20)
    evidence = exact(known.story().float(), x.float())
    torch.testing.assert_close(evidence.estimate, known.log_evidence(x), atol=1e-3, rtol=0)


def test_an_enumerable_story_is_its_sum(monkeypatch):
    story, x = Enumerable(), torch.linspace(-2, 3, 50).double()
    evidence = exact(story, x)
    torch.testing.assert_close(evidence.estimate, story.log_evidence(x).detach(), atol=1e-12, rtol=0)
    assert evidence.method == "a sum over its discrete latents"
    monkeypatch.setattr(exact_module, "AT_ONCE", 7)  # two data at a time
    assert torch.equal(exact(story, x).estimate, evidence.estimate)


def test_two_discrete_sites_the_one_given_the_other():
    first, second = number([0.2, 0.8]), number([[0.1, 0.3, 0.6], [0.5, 0.25, 0.25]])

    def model(x):
        a = pyro.sample("a", dist.Bernoulli(first[1]))
        b = pyro.sample("b", dist.Categorical(second[a.long()]))
        pyro.sample("x", dist.Normal(2 * a - b, 1.0), obs=x)

    def guide(x):
        pyro.sample("a", dist.Bernoulli(0 * x + 0.5))
        pyro.sample("b", dist.Categorical(torch.ones(3).double()))

    x = torch.linspace(-3, 3, 9).double()
    terms = [
        (first[a] * second[a, b]).log() + dist.Normal(number(2.0 * a - b), 1.0).log_prob(x)
        for a, b in itertools.product(range(2), range(3))
    ]
    torch.testing.assert_close(exact(Written(model, guide), x).estimate, torch.stack(terms).logsumexp(0))


def test_a_vector_of_bernoullis():
    p, weight = number([0.2, 0.5, 0.9]), number([1.0, -2.0, 0.5])

    def model(x):
        z = pyro.sample("z", dist.Bernoulli(p).to_event(1))
        pyro.sample("x", dist.Normal(z @ weight, 1.0), obs=x)

    x = torch.linspace(-3, 3, 9).double()
    terms = []
    for values in itertools.product((0.0, 1.0), repeat=3):
        z = number(values)
        terms.append(dist.Bernoulli(p).log_prob(z).sum() + dist.Normal(z @ weight, 1.0).log_prob(x))
    torch.testing.assert_close(exact(Written(model, model), x).estimate, torch.stack(terms).logsumexp(0))


def test_a_matrix_of_categoricals():
    logits = torch.randn(2, 2, 3).double()

    def model(x):
        z = pyro.sample("z", dist.Categorical(logits=logits).to_event(2))
        pyro.sample("x", dist.Normal(z.double().sum((-1, -2)), 1.0), obs=x)

    x = torch.linspace(-3, 8, 5).double()
    q, terms = dist.Categorical(logits=logits), []
    for values in itertools.product(range(3), repeat=4):
        z = torch.tensor(values).reshape(2, 2)
        terms.append(q.log_prob(z).sum() + dist.Normal(z.double().sum(), 1.0).log_prob(x))
    torch.testing.assert_close(exact(Written(model, model), x).estimate, torch.stack(terms).logsumexp(0))


def test_one_hot_latents_of_the_package():
    story = assemble(priors.OneHot, likelihoods.Bernoulli, encoders.OneHotCategorical, shape=(4,), latent=3).double()
    x = torch.bernoulli(torch.full((6, 4), 0.5)).double()
    z = torch.eye(3).double()
    terms = story.prior().log_prob(z).unsqueeze(-1) + story.likelihood(z.unsqueeze(1)).log_prob(x)
    evidence = exact(story, x)
    torch.testing.assert_close(evidence.estimate, terms.logsumexp(0).detach())
    assert evidence.measure == "mass"
    sampled = importance(story, x, particles=3000, progress=False)
    assert ((sampled.estimate - evidence.estimate).abs() < 4 * sampled.standard_error + 1e-9).all()


@pytest.mark.parametrize("story", ["decoder", "gamma", "prior"])
def test_a_density_that_is_no_quadratic_is_refused(story):
    x = torch.randn(4, 3).double()
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    made = {
        "decoder": VAE(priors.StandardNormal(2), likelihoods.Normal(decoder), encoders.DiagonalNormal(nn.Linear(3, 4))),
        "prior": VAE(
            priors.StudentT(2, df=5.0), likelihoods.Normal(nn.Linear(2, 3)), encoders.DiagonalNormal(nn.Linear(3, 4))
        ),
    }
    found, x = gamma_story()[:2] if story == "gamma" else (made[story].double(), x)
    with pytest.raises(ValueError, match="whose log p\\(x, z\\) is a quadratic of z; that of this one is not"):
        exact(found, x)


def test_a_decoder_that_is_nearly_linear_is_refused_too():
    class Bent(nn.Module):
        def forward(self, z):
            return dist.Normal(z.sum(-1, keepdim=True) + 1e-4 * z[..., :1] ** 2, 1.0).to_event(1)

    story = VAE(priors.StandardNormal(2), Bent(), encoders.DiagonalNormal(nn.Linear(1, 4))).double()
    with pytest.raises(ValueError, match="quadratic"):
        exact(story, torch.randn(5, 1).double())


def test_counts_kept_as_integers_are_refused_for_what_they_are():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Poisson(z.exp()).to_event(1), obs=x)

    with pytest.raises(ValueError, match="quadratic"):
        exact(Written(model, model), torch.tensor([[1], [4]]))


def test_latents_of_both_kinds_are_refused():
    def model(x):
        c = pyro.sample("c", dist.Bernoulli(number(0.5)))
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="all discrete, or all Gaussian; 'c' is discrete and z is not: use importance"):
        exact(Written(model, model), torch.zeros(2).double())


def test_what_cannot_be_listed_is_refused():
    def inner(x):
        with pyro.plate("inner", 2, dim=-3):
            c = pyro.sample("c", dist.Bernoulli(number(0.5)))
        pyro.sample("x", dist.Normal(c.sum(0), 1.0), obs=x)

    def of(prior):
        def model(x):
            c = pyro.sample("c", prior)
            pyro.sample("x", dist.Normal(c.double().reshape(*c.shape[:2], -1).sum(-1), 1.0), obs=x)

        return model

    x = torch.zeros(2).double()
    for model, message in (
        (inner, "'c' lies in another plate too"),
        (of(dist.Poisson(number(3.0))), r"those of 'c' \(Poisson\) cannot: use importance"),
        (of(dist.Bernoulli(torch.full((20,), 0.5).double()).to_event(1)), r"at most 100000 values; 'c' has 2\^20"),
        (of(dist.Categorical(torch.ones(100_001).double())), "at most 100000 values of all latents together"),
    ):
        with pytest.raises(ValueError, match=message):
            exact(Written(model, model), x)


def test_a_discrete_latent_that_some_data_lack_is_refused():
    """Its sum would count the rest of their density once for every value."""

    def model(x):
        with pyro.poutine.mask(mask=x > 0):
            c = pyro.sample("c", dist.Categorical(torch.ones(3).double()))
        pyro.sample("x", dist.Normal(torch.where(x > 0, c.double(), 0.0), 1.0), obs=x)

    with pytest.raises(ValueError, match="exact needs latents that every datum has; 'c' is masked for some"):
        exact(Written(model, model), number([1.0, -1.0]))


def test_a_factor_of_the_model_is_said():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.factor("tilt", -z.square() / 2)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    evidence = exact(Written(model, model), number([0.3]))
    truth = torch.distributions.Normal(number(0.0), 1.5**0.5).log_prob(number(0.3)).item() - 0.5 * math.log(2)
    assert evidence.estimate.item() == pytest.approx(truth, abs=1e-9)
    assert evidence.method.endswith("of a density that the factor 'tilt' leaves unnormalised")


def test_a_flat_prior_has_no_evidence():
    story = VAE(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4)))
    with pytest.raises(ValueError, match="needs a proper prior"):
        exact(story, torch.zeros(3, 5))


def test_a_density_that_falls_faster_than_a_quadratic_is_refused():
    """Everywhere below the quadratic of its mode, where others are above it: "exact" would be off by 0.2 nats."""
    prior = dist.Normal(number(0.0), 1.0)
    story = one_latent(prior, lambda z: dist.Normal(z + z**3 / 2, 1.0), lambda x: dist.Normal(x, 1.0))
    with pytest.raises(ValueError, match="quadratic"):
        exact(story, number([0.0]))


def test_a_density_that_is_a_quadratic_near_its_mode_alone_is_refused():
    """Its tails begin beyond two standard deviations."""
    prior = dist.Normal(number(0.0), 1.0)
    story = one_latent(prior, lambda z: dist.Normal((z.abs() - 2).clamp_min(0), 1.0), lambda x: dist.Normal(x, 1.0))
    with pytest.raises(ValueError, match="quadratic"):
        exact(story, number([0.0]))
