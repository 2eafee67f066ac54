"""Tables of unlike columns: each column against its own likelihood, and words that are wrong."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

import ppvae
from ppvae.distributions.columns import Columns
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import affine

WORDS = [
    "poisson",
    "categorical(4)",
    "normal",
    "positive",
    "unit",
    "bernoulli",
    "ordinal(5)",
    "binomial(3)",
    "normal",
    "categorical(3)",
    "categorical(4)",
]
X = torch.tensor([2, 3, -0.5, 0.3, 0.0, 1, 4, 2, 7.5, 1, 0], dtype=torch.float64)


def table(rows=(), words=WORDS):
    """A likelihood of these columns whose outputs are four free numbers each, and the numbers."""
    raw = torch.randn(*rows, 4 * len(words), dtype=torch.float64)
    likelihood = likelihoods.Heterogeneous(nn.Identity(), len(words), words)
    assert likelihood.outputs == 4
    return likelihood, raw, raw.unflatten(-1, (4, -1))  # (..., 4, columns)


def test_every_column_has_its_own_distribution():
    likelihood, raw, y = table()
    scale = softplus(y[1]) + 1e-3
    ordinal = likelihoods.DiscretizedLogistic(nn.Identity(), levels=5)
    expected = [
        dist.Poisson(y[0, 0].exp()),
        dist.Categorical(logits=y[:, 1]),
        dist.Normal(y[0, 2], scale[2]),
        dist.LogNormal(y[0, 3], scale[3]),
        dist.ContinuousBernoulli(logits=y[0, 4]),
        dist.Bernoulli(logits=y[0, 5]),
        ordinal(y[:2, 6]),
        dist.Binomial(3, logits=y[0, 7]),
        dist.Normal(y[0, 8], scale[8]),
        dist.Categorical(logits=y[:3, 9]),
        dist.Categorical(logits=y[:, 10]),
    ]
    columns = torch.stack([p.log_prob(x.expand(p.event_shape)) for p, x in zip(expected, X, strict=True)])
    p = likelihood(raw)
    torch.testing.assert_close(p.base_dist.log_prob(X), columns)
    torch.testing.assert_close(p.log_prob(X), columns.sum())
    for column in (0, 2, 3, 4, 5, 7, 8):
        torch.testing.assert_close(p.mean[column], expected[column].mean)
    torch.testing.assert_close(p.mean[9], y[:3, 9].softmax(0) @ torch.arange(3.0).double())


@pytest.mark.parametrize("rows", [(6,), (4, 6)])
def test_it_keeps_leading_dimensions(rows):
    likelihood, raw, _ = table(rows)
    p = likelihood(raw)
    assert p.log_prob(X).shape == rows
    assert p.sample((2,)).shape == (2, *rows, 11)
    assert p.support.check(p.sample()).all()
    torch.testing.assert_close(p.expand((3, *rows)).log_prob(X), p.log_prob(X).expand(3, *rows))


def test_the_narrow_columns_leave_the_rest_of_their_outputs_unused():
    likelihood, raw, _ = table()
    raw.requires_grad_()
    likelihood(raw).log_prob(X).backward()
    used = (raw.grad.view(4, -1) != 0).sum(0)
    assert used.tolist() == [1, 4, 2, 2, 1, 1, 2, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["normal", "catgorical(3)"], r"column 1 should be categorical\(n\) or .*, got 'catgorical\(3\)'"),
        (["gaussian", "normal"], "column 0 should be .*normal"),
        (["categorical", "normal"], r"column 0 should be categorical\(n\) with n at least 2, got 'categorical'"),
        (["categorical(1)", "normal"], "n at least 2"),
        (["binomial(x)", "normal"], "n at least 1"),
        (["normal(3)", "normal"], r"column 0 should be normal, got 'normal\(3\)'"),
        (["normal"], "one word a column, 2 here, got 1"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(ValueError, match=message) as error:
        likelihoods.Heterogeneous(nn.Identity(), 2, words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "row", "message"),
    [
        (["normal", "categorical(3)"], [0.0, 3.0], r"column 1, \{0, ..., 2\}; got 3 in row 2"),
        (["positive", "poisson"], [-1.0, 3.0], "column 0, .*; got -1 in row 2"),
        (["positive", "poisson"], [1.0, 0.5], r"column 1, \{0, 1, ...\}; got 0.5 in row 2"),
        (["normal", "bernoulli"], [-1.0, 0.5], r"column 1, \{0, 1\}; got 0.5 in row 2: binarise"),
    ],
)
def test_a_value_outside_its_columns_support_is_refused_by_name(words, row, message):
    likelihood = likelihoods.Heterogeneous(nn.Identity(), 2, words)
    likelihood.network = nn.Linear(2, 2 * likelihood.outputs)
    story = VAE(priors.StandardNormal(2), likelihood, encoders.DiagonalNormal(nn.Linear(2, 4)))
    x = torch.ones(4, 2)
    x[2] = torch.tensor(row)
    with pytest.raises(ValueError, match=message):
        ppvae.fit(story, x, epochs=1, progress=False)
    mask = torch.ones(4, 2).bool()
    mask[2] = False
    ppvae.fit(story, (x, mask), epochs=1, progress=False)  # there it does not matter


def test_columns_of_one_kind_are_that_likelihood():
    decoder = affine(torch.randn(6, 2).double(), torch.randn(6).double())
    mixed = likelihoods.Heterogeneous(decoder, 3, ["normal"] * 3)
    plain = likelihoods.HeteroscedasticNormal(decoder, floor=1e-3)
    z, x = torch.randn(5, 2).double(), torch.randn(5, 3).double()
    torch.testing.assert_close(mixed(z).log_prob(x), plain(z).log_prob(x))
    assert isinstance(mixed(z).base_dist, Columns)
