"""Likelihoods against scipy, closed forms and what the papers say of them."""

import math

import pyro
import pytest
import scipy.stats
import torch
from cases import LIKELIHOODS
from torch import nn
from torch.nn.functional import softplus

from ppvae.models import likelihoods

RAW = torch.tensor([0.3, -1.2, 0.8, 0.4, -0.5, 1.1], dtype=torch.float64)  # three features, then three more
FIRST, SECOND = RAW.chunk(2)
SCALE = (softplus(SECOND) + 1e-3).numpy()
A, B = (softplus(FIRST) + 1e-3).numpy(), (softplus(SECOND) + 1e-3).numpy()
MEAN = FIRST.exp().numpy()
LOC = FIRST.numpy()
REAL = [-0.7, 0.1, 3.0]
COUNTS = [0.0, 3.0, 4.0]

ORACLES = {  # a likelihood, a datum, and its elements under scipy
    "Bernoulli": (likelihoods.Bernoulli, [0.0, 1.0, 1.0], scipy.stats.bernoulli(1 / (1 + (-FIRST).exp().numpy()))),
    "Binomial": (
        lambda n: likelihoods.Binomial(n, total_count=4),
        COUNTS,
        scipy.stats.binom(4, 1 / (1 + (-FIRST).exp().numpy())),
    ),
    "BetaBinomial": (lambda n: likelihoods.BetaBinomial(n, 4), COUNTS, scipy.stats.betabinom(4, A, B)),
    "Poisson": (likelihoods.Poisson, COUNTS, scipy.stats.poisson(MEAN)),
    "NegativeBinomial": (
        lambda n: likelihoods.NegativeBinomial(n, features=3),
        COUNTS,
        scipy.stats.nbinom(1.0, 1 / (1 + MEAN)),
    ),
    "Normal": (lambda n: likelihoods.Normal(n, 0.25), REAL, scipy.stats.norm(LOC, 0.5)),
    "HeteroscedasticNormal": (
        lambda n: likelihoods.HeteroscedasticNormal(n, floor=1e-3),
        REAL,
        scipy.stats.norm(LOC, SCALE),
    ),
    "OptimalNormal": (
        lambda n: likelihoods.OptimalNormal(n, variance=0.25).eval(),
        REAL,
        scipy.stats.norm(LOC, 0.5),
    ),
    "Laplace": (lambda n: likelihoods.Laplace(n, scale=0.5), REAL, scipy.stats.laplace(LOC, 0.5)),
    "StudentT": (lambda n: likelihoods.StudentT(n, df=3.0, scale=0.5), REAL, scipy.stats.t(3.0, LOC, 0.5)),
    "Beta": (likelihoods.Beta, [0.0, 0.3, 1.0], scipy.stats.beta(A, B, -1e-3, 1 + 2e-3)),
    "Beta unstretched": (lambda n: likelihoods.Beta(n, margin=0.0), [0.1, 0.3, 0.9], scipy.stats.beta(A, B)),
}


class Raw(nn.Module):
    """The numbers above for a network, as many as are asked for."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, z):
        return RAW[: 3 * self.outputs]


@pytest.mark.parametrize("name", ORACLES)
def test_scipy_agrees(name):
    make, x, oracle = ORACLES[name]
    p = make(Raw(make(nn.Identity()).outputs)).double()(torch.zeros(2))
    expected = (oracle.logpmf if hasattr(oracle.dist, "pmf") else oracle.logpdf)(x)
    torch.testing.assert_close(
        p.base_dist.log_prob(torch.tensor(x).double()), torch.tensor(expected), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(p.mean, torch.tensor(oracle.mean()), rtol=1e-6, atol=1e-7)


def test_zeros_are_inflated():
    p = likelihoods.ZeroInflatedNegativeBinomial(Raw(2), features=3).double()(torch.zeros(2)).base_dist
    counts, gate = scipy.stats.nbinom(1.0, 1 / (1 + MEAN)), torch.sigmoid(SECOND)
    for count in (0, 1, 5):
        expected = gate * (count == 0) + (1 - gate) * torch.tensor(counts.pmf(count))
        torch.testing.assert_close(p.log_prob(torch.tensor(float(count)).double()), expected.log())
    torch.testing.assert_close(p.mean, (1 - gate) * FIRST.exp())


def normal_loss(likelihood, x, weight):
    """-log p(x | z) + weight KL(N(z, 1) || N(0, 1)), at z."""
    return lambda z: -likelihood(z).log_prob(x) + weight * z.square().sum() / 2


def test_a_weight_on_the_kl_term_is_another_variance():
    """Of one loss both: the other times the weight, but for a constant."""
    network, x, beta, c = nn.Linear(2, 3).double(), torch.randn(3).double(), 4.0, 0.05
    weighted = normal_loss(likelihoods.Normal(network, c).double(), x, weight=beta)
    plain = normal_loss(likelihoods.Normal(network, beta * c).double(), x, weight=1.0)
    constant = 1.5 * (math.log(2 * math.pi * c) - beta * math.log(2 * math.pi * beta * c))
    for z in torch.randn(5, 2).double():
        assert (weighted(z) - beta * plain(z)).item() == pytest.approx(constant, abs=1e-5)


class TestOptimalNormal:
    def test_in_training_it_has_the_variance_of_highest_likelihood(self):
        likelihood, x = likelihoods.OptimalNormal(nn.Identity()).double(), torch.randn(7, 3).double()
        z = torch.zeros(2, 7, 3).double()  # particles too
        fitted = likelihood(z).log_prob(x).sum()
        for variance in (0.9, 1.1):
            other = likelihoods.Normal(nn.Identity(), variance * x.square().mean().item()).double()
            assert other(z).log_prob(x).sum() < fitted
        expected = -21 * (math.log(2 * math.pi * x.square().mean().item()) + 1)  # 42 elements, half each
        assert fitted.item() == pytest.approx(expected)

    def test_its_gradient_is_that_of_the_logarithm_of_the_squared_error(self):
        """Rybkin et al.'s loss: (n / 2) log mean squared error."""
        likelihood, x = likelihoods.OptimalNormal(nn.Identity()).double(), torch.randn(7, 3).double()
        z = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
        ours = torch.autograd.grad(-likelihood(z).log_prob(x).sum(), z)[0]
        theirs = torch.autograd.grad(21 / 2 * (x - z).square().mean().log(), z)[0]
        torch.testing.assert_close(ours, theirs)

    def test_evaluation_has_one_variance_and_changes_nothing(self):
        likelihood = likelihoods.OptimalNormal(nn.Identity(), momentum=0.5).double()
        for size in (1.0, 3.0, 5.0):
            likelihood(torch.zeros(4, 3).double()).log_prob(size * torch.ones(4, 3).double())
        assert likelihood.variance.item() == pytest.approx((((1 + 9) / 2) + 25) / 2)
        likelihood.eval()
        x = torch.randn(4, 3).double()
        alone = [likelihood(torch.zeros(3).double()).log_prob(row) for row in x]
        together = likelihood(torch.zeros(4, 3).double()).log_prob(x)
        assert torch.equal(torch.stack(alone), together)
        assert likelihood.variance.item() == pytest.approx(15)

    def test_what_it_cannot_use_leaves_its_variance_alone(self):
        likelihood = likelihoods.OptimalNormal(nn.Identity())
        with pyro.validation_enabled(False):
            likelihood(torch.zeros(4, 3)).log_prob(torch.full((4, 3), torch.nan))
        assert likelihood.variance.item() == 1
        assert likelihood(torch.ones(4, 3)).log_prob(torch.ones(4, 3)).isfinite().all()  # a perfect fit

    def test_only_what_is_observed_counts(self):
        from ppvae.models.missing import observed

        likelihood, x = likelihoods.OptimalNormal(nn.Identity()).double(), torch.tensor([[1.0, 100.0], [3.0, 100.0]])
        observed(likelihood(torch.zeros(5, 2, 2).double()), torch.tensor([True, False])).log_prob(x.double())
        assert likelihood.variance.item() == pytest.approx(5)


class TestLibrary:
    @pytest.mark.parametrize("name", ["Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"])
    def test_the_mean_is_a_share_of_the_library(self, name):
        family = getattr(likelihoods, name)
        features = {} if name == "Poisson" else {"features": 3}
        likelihood = family(Raw(family(nn.Identity(), **features).outputs), library=True, **features).double()
        library = torch.tensor([[100.0], [3.0]]).double()
        p = likelihood(torch.zeros(2), library)
        closed = torch.sigmoid(SECOND) if name.startswith("Zero") else 0
        torch.testing.assert_close(p.mean, (1 - closed) * library * FIRST.softmax(-1))
        nothing = likelihood(torch.zeros(2), torch.zeros(1, 1).double()).log_prob(torch.zeros(3).double())
        assert nothing.exp().item() == pytest.approx(1)

    def test_one_is_taken_only_where_it_is_asked_for(self):
        with pytest.raises(ValueError, match="needs the library size beside z"):
            likelihoods.Poisson(nn.Identity(), library=True)(torch.zeros(3))
        with pytest.raises(ValueError, match="only with library=True"):
            likelihoods.Poisson(nn.Identity())(torch.zeros(3), torch.ones(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: likelihoods.BetaBinomial(nn.Identity(), 0), "total_count should be at least 1, got 0"),
        (lambda: likelihoods.Categorical(nn.Identity(), 1), "levels should be at least 2, got 1"),
        (lambda: likelihoods.DiscretizedLogisticMixture(nn.Identity(), 8, 0), "components should be at least 1, got 0"),
        (lambda: likelihoods.HeteroscedasticNormal(nn.Identity(), 0.0), "floor should be positive and finite, got 0"),
        (lambda: likelihoods.StudentT(nn.Identity(), df=1.0), "df should be above 1, .*; got 1"),
        (lambda: likelihoods.Laplace(nn.Identity(), -1.0), "scale should be positive and finite, got -1"),
        (lambda: likelihoods.Beta(nn.Identity(), -0.1), "margin should be at least 0 and finite, got -0.1"),
        (lambda: likelihoods.OptimalNormal(nn.Identity(), momentum=0.0), "momentum should be above 0 .*, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "name", [name for name in likelihoods.__all__ if hasattr(getattr(likelihoods, name), "output_bias")]
)
def test_it_can_start_at_the_mean_of_the_data(name):
    x = LIKELIHOODS[name][1]()
    build = LIKELIHOODS[name][0]
    try:
        likelihood = build(nn.Identity())
    except TypeError:
        likelihood = build(nn.Identity(), features=2)
    middle = likelihood(likelihood.output_bias(x)).mean
    expected = x.median(0).values if name in {"Laplace", "StudentT"} else x.mean(0)
    torch.testing.assert_close(middle, expected, rtol=0, atol=5e-3)
