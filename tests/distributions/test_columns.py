"""Columns of unlike families, against scipy column by column."""

import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from ppvae.distributions.columns import Columns

LOC, RATE, LOGIT = (torch.randn(5, 2, generator=torch.Generator().manual_seed(seed)).double() for seed in range(3))


def table(**options):
    """Columns 3 and 0 are Normal, 1 is Poisson, 2 is a coin."""
    groups = [
        ([3, 0], dist.Normal(LOC, 0.5)),
        ([1], dist.Poisson(RATE[:, :1].exp())),
        ([2], dist.Bernoulli(logits=LOGIT[:, :1])),
    ]
    return Columns(groups, **options)


def oracles():
    return [
        scipy.stats.norm(LOC[:, 1], 0.5),
        scipy.stats.poisson(RATE[:, 0].exp()),
        scipy.stats.bernoulli(LOGIT[:, 0].sigmoid()),
        scipy.stats.norm(LOC[:, 0], 0.5),
    ]


X = torch.tensor([[0.3, 2.0, 1.0, -1.0], [-2.0, 0.0, 0.0, 0.5]]).double()[:, None, :].expand(2, 5, 4)


def test_every_column_has_the_density_and_the_mean_of_its_own_family():
    p = table()
    assert p.batch_shape == (5, 4)
    found = p.log_prob(X)
    for column, oracle in enumerate(oracles()):
        density = oracle.logpmf if hasattr(oracle.dist, "pmf") else oracle.logpdf
        torch.testing.assert_close(found[..., column], torch.tensor(density(X[..., column].numpy())))
        torch.testing.assert_close(p.mean[:, column], torch.tensor(oracle.mean()))


def test_every_column_is_drawn_from_its_own_family():
    draws = table().sample((5000,))
    for column, oracle in enumerate(oracles()):
        values = draws[..., column]
        error = torch.tensor(oracle.var() / 5000).sqrt()
        assert ((values.mean(0) - torch.tensor(oracle.mean())).abs() < 5 * error).all()
        whole = (values == values.round()).all()
        assert whole == (column in (1, 2))


def test_a_value_is_in_the_support_where_it_is_in_its_columns():
    support = table().support
    assert not support.is_discrete
    inside = support.check(torch.tensor([0.5, 0.5, 2.0, -7.0]).double().expand(5, 4))
    assert inside.tolist() == [[True, False, False, True]] * 5
    assert [column.is_discrete for column in support.columns] == [False, True, True, False]
    counts = Columns([([1], dist.Poisson(torch.ones(1))), ([0], dist.Bernoulli(torch.ones(1)))])
    assert counts.support.is_discrete
    with pytest.raises(ValueError, match="within the support"):
        table(validate_args=True).log_prob(X + 0.5)


def test_shapes_expand():
    p = table().expand((3, 5, 4))
    assert p.batch_shape == p.mean.shape == p.sample().shape == (3, 5, 4)
    torch.testing.assert_close(p.log_prob(X[0]), table().log_prob(X[0]).expand(3, 5, 4))
