"""A categorical of numbers, against scipy and its own masses."""

import pytest
import scipy.stats
import torch

from ppvae.distributions.levels import Levels

LOGITS = torch.tensor([[0.3, -1.0, 2.0, 0.0], [5.0, 0.0, -torch.inf, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("row", [0, 1])
def test_mass_and_mean_are_scipys(row):
    probs = LOGITS[row].softmax(0).numpy()
    oracle, p = scipy.stats.rv_discrete(values=(range(4), probs)), Levels(logits=LOGITS[row])
    torch.testing.assert_close(p.log_prob(torch.arange(4.0)).exp(), torch.tensor(oracle.pmf(range(4))))
    assert p.mean.item() == pytest.approx(oracle.mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_numbers_of_the_dtype_of_the_logits_and_come_as_often_as_they_should(dtype):
    p = Levels(logits=LOGITS.to(dtype))
    draws = p.sample((20_000,))
    assert draws.dtype == p.mean.dtype == dtype
    for row, probs in enumerate(LOGITS.softmax(-1)):
        shares = draws[:, row].long().bincount(minlength=4) / 20_000
        assert ((shares - probs).abs() <= 5 * (probs * (1 - probs) / 20_000).sqrt()).all()


def test_shapes_expand_and_stay_levels():
    p = Levels(logits=LOGITS).expand((3, 2))
    assert isinstance(p, Levels)
    assert p.batch_shape == p.mean.shape == p.sample().shape == (3, 2)
    assert p.sample((5,)).is_floating_point()


def test_the_mean_passes_its_gradient():
    logits = LOGITS[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(Levels(logits=logits).mean, logits)
    probs, levels = LOGITS[0].softmax(0), torch.arange(4.0).double()
    torch.testing.assert_close(slope, probs * (levels - probs @ levels))
