"""Missing values: the evidence is that of what is observed, and of nothing else."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import LIKELIHOODS, data_of, story_of
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import ppvae
from ppvae import networks
from ppvae.inference import elbo, importance, log_weights
from ppvae.inference.evidence.importance import prior_sampling
from ppvae.inference.program.codes import reconstruct
from ppvae.models import VAE, assemble, encoders, likelihoods, priors
from ppvae.models.missing import masked, observed
from ppvae.selfcheck.analytic import LinearGaussian

MASK = torch.tensor(
    [
        [1, 1, 1, 1, 1],
        [1, 0, 1, 1, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 1],
        [1, 1, 0, 1, 1],
    ]
).bool()


class ExactGuide:
    """The linear-Gaussian story with its posterior given the observed elements, whose covariance is full."""

    def __init__(self):
        self.known = LinearGaussian()
        self.story = self.known.story()
        self.model, self.seen = self.story.model, self.story.seen

    def guide(self, x, mask):
        weight, c = self.known.weight, self.known.variance
        kept = mask.to(weight)
        precision = torch.eye(2).double() + torch.einsum("bi,ij,ik->bjk", kept, weight, weight) / c
        covariance = torch.linalg.inv(precision)
        residual = torch.where(mask, x - self.known.bias, 0)
        mean = torch.einsum("bjk,ik,bi->bj", covariance, weight, residual) / c
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(mean, covariance))

    def evidence(self, x, mask):
        """log p(x_observed) = log N(b_o, W_o W_o' + c I)."""
        marginal, values = self.known.marginal(), []
        for row, kept in zip(x, mask, strict=True):
            if not kept.any():
                values.append(torch.zeros(()).double())
                continue
            covariance = marginal.covariance_matrix[kept][:, kept]
            values.append(dist.MultivariateNormal(marginal.mean[kept], covariance).log_prob(row[kept]))
        return torch.stack(values)


def spoilt(x, mask, junk=torch.nan):
    return torch.where(mask, x, junk)


def test_under_the_exact_posterior_every_log_weight_is_the_evidence_of_what_is_observed():
    exact = ExactGuide()
    x = spoilt(exact.known.data(6), MASK)
    log_w = log_weights(exact, (x, MASK), particles=5)
    torch.testing.assert_close(log_w, exact.evidence(x, MASK).expand(5, 6), rtol=0, atol=1e-9)


def test_importance_sampling_finds_it_too():
    """By a guide that knows nothing of the mask but zeros, and by the prior."""
    exact = ExactGuide()
    x = exact.known.data(6)
    wide = exact.known.story(widen=2.0)
    expected = exact.evidence(x, MASK)
    for estimate in (
        importance(wide, (spoilt(x, MASK), MASK), particles=4000, progress=False),
        prior_sampling(wide, (spoilt(x, MASK), MASK), particles=20_000, progress=False),
    ):
        assert ((estimate.estimate - expected).abs() <= 4 * estimate.standard_error + 1e-9).all()
        assert estimate.standard_error.max() < 0.5


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_stands_where_a_value_is_missing_changes_no_figure(name):
    x = data_of(likelihood=name)
    mask = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [0, 1]]).bool()
    figures = []
    for junk in (torch.nan, torch.inf, -3.25, 0.5):
        story = story_of(likelihood=name)
        batch = (spoilt(x, mask, junk), mask)
        history = ppvae.fit(story, batch, epochs=3, valid=batch, progress=False)
        torch.manual_seed(0)
        loss = elbo(story, batch, particles=2)
        evidence = importance(story, batch, particles=30, progress=False)
        assert evidence.estimate.isfinite().all()
        figures.append([*history.loss, *history.valid, loss.item(), *evidence.estimate.tolist()])
        assert reconstruct(story, batch).shape == (6, 2)
    assert all(figure == figures[0] for figure in figures)


def test_a_mask_of_ones_changes_no_figure():
    x, story = data_of(), story_of()
    torch.manual_seed(0)
    first = log_weights(story, x, particles=3)
    torch.manual_seed(0)
    assert torch.equal(log_weights(story, (x, torch.ones_like(x)), particles=3), first)


def test_the_guide_sees_zeros():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = encoders.DiagonalNormal(nn.Linear(2, 4))

        def forward(self, x):
            seen.append(x)
            return self.inner(x)

    story = VAE(priors.StandardNormal(2), likelihoods.Normal(nn.Linear(2, 2)), Spy())
    story.guide(*masked(torch.tensor([[1.0, torch.nan], [torch.nan, 2.0]])))
    assert seen[0].tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_plain_svi_trains_with_validation_on():
    story, x = story_of(), data_of()
    before = [p.clone() for p in story.parameters() if p.requires_grad]
    svi = SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    mask = torch.rand(6, 2) > 0.3
    with pyro.validation_enabled(True):
        svi.step(spoilt(x, mask), mask)
    after = [p for p in story.parameters() if p.requires_grad]
    assert all(p.isfinite().all() and not torch.equal(p, old) for p, old in zip(after, before, strict=True))


def test_generation_draws_every_element():
    story, x = story_of(), data_of()
    drawn = pyro.poutine.uncondition(story.model)(x, torch.zeros(6, 2).bool())
    assert drawn.std() > 0


def test_an_observed_nan_is_still_refused():
    x = data_of()
    x[3, 1] = torch.nan
    mask = torch.ones(6, 2).bool()
    mask[3, 0] = False
    for batch in (x, (x, mask)):
        with pytest.raises(ValueError, match=r"data should be finite, got nan at index \[3, 1\]"):
            ppvae.fit(story_of(), batch, epochs=1, progress=False)


def test_an_observed_value_outside_the_support_is_still_refused():
    x = data_of(likelihood="Bernoulli")
    x[3, 1] = 0.5
    for batch in (x, (x, torch.ones_like(x))):
        with pytest.raises(ValueError, match=r"support of Bernoulli, \{0, 1\}; got 0.5 in row 3: binarise"):
            ppvae.fit(story_of(likelihood="Bernoulli"), batch, epochs=1, progress=False)
    mask = torch.ones_like(x)
    mask[3, 1] = 0
    ppvae.fit(story_of(likelihood="Bernoulli"), (x, mask), epochs=1, progress=False)


def test_a_mixtures_support_says_its_levels():
    story, x = story_of(likelihood="DiscretizedLogisticMixture"), torch.full((6, 2), 8.0)
    with pytest.raises(ValueError, match=r"\{0, ..., 7\}; got 8 in row 0"):
        ppvae.fit(story, x, epochs=1, progress=False)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask should have the shape of x, \(6, 2\), got \(6,\): a batch is"):
        log_weights(story_of(), (data_of(), torch.ones(6)))


def test_elements_that_depend_on_each_other_are_refused():
    with pytest.raises(ValueError, match=r"independent elements given z.*MultivariateNormal"):
        observed(dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), torch.ones(2).bool())


class TestLibrary:
    def story(self, library=True):
        torch.manual_seed(0)
        counts = likelihoods.NegativeBinomial(networks.mlp(2, [8], 3), features=3, library=library)
        return VAE(priors.StandardNormal(2), counts, encoders.DiagonalNormal(networks.mlp(3, [8], 4)))

    def batch(self):
        x = torch.poisson(torch.full((6, 3), 4.0))
        return x, torch.ones_like(x), x.sum(-1)

    def test_it_stands_beside_x_in_the_batch(self):
        story, (x, mask, library) = self.story(), self.batch()
        history = ppvae.fit(story, (x, mask, library), epochs=30, lr=1e-2, progress=False)
        assert history.loss[-1] < history.loss[0]
        evidence = importance(story, (x, mask, library), particles=50, progress=False)
        column = importance(story, (x, mask.bool(), library.unsqueeze(-1)), particles=50, progress=False)
        assert torch.equal(evidence.estimate, column.estimate)
        torch.testing.assert_close(reconstruct(story, (x, mask, library)).sum(-1), library)

    def test_log_weights_are_those_of_the_likelihood_given_it(self):
        story, (x, mask, library) = self.story(), self.batch()
        trace = pyro.poutine.trace(story.model).get_trace(x, mask, library)
        z = trace.nodes["z"]["value"]
        expected = story.likelihood(z, library.unsqueeze(-1)).log_prob(x)
        torch.testing.assert_close(trace.nodes["x"]["fn"].log_prob(x), expected)

    def test_one_too_few_or_too_many_is_refused(self):
        x, mask, library = self.batch()
        with pytest.raises(ValueError, match=r"takes the library size of every row: a batch should be \(x, mask, lib"):
            log_weights(self.story(), x)
        with pytest.raises(ValueError, match=r"takes no library size .*: a batch should be \(x, mask\)"):
            log_weights(self.story(library=False), (x, mask, library))

    def test_it_can_be_assembled(self):
        make = partial(likelihoods.ZeroInflatedNegativeBinomial, library=True)
        story = assemble(priors.StandardNormal, make, encoders.DiagonalNormal, shape=(3,), latent=2)
        assert log_weights(story, self.batch()).isfinite().all()


def test_in_training_a_variance_is_that_of_what_is_observed():
    """A likelihood that is fitted to what it scores is told the mask: what is missing has no part in its variance."""
    likelihood, mask = likelihoods.OptimalNormal(nn.Identity()), torch.tensor([[True, False], [True, False]])
    x = torch.tensor([[2.0, 100.0], [-2.0, 100.0]])
    expected = dist.Normal(0.0, 2.0).log_prob(x[:, 0])
    torch.testing.assert_close(observed(likelihood(torch.zeros(2, 2)), mask).log_prob(x), expected)
    assert likelihood.variance == 4
