"""Figures of log-weights that come block by block, against the reductions of all of them at once."""

import math

import pytest
import torch

from ppvae.inference.evidence.tail import fit_tail, pareto_k
from ppvae.inference.evidence.tally import Tally, reduce
from ppvae.inference.program.weights import effective_sample_size, log_mean_exp, standard_error

WEIGHTS = {
    "light": lambda: torch.randn(5000, 3).double(),
    "heavy": lambda: 5 * torch.randn(5000, 3).double() - 800,
    "float32": lambda: 3 * torch.randn(5000, 3),
    "of two values": lambda: torch.bernoulli(torch.full((5000, 3), 0.1)).double(),
    "equal": lambda: torch.full((5000, 3), -7.0).double(),
    "without any for half": lambda: torch.where(torch.rand(5000, 3) < 0.5, -torch.inf, torch.randn(5000, 3)).double(),
    "rising": lambda: torch.randn(5000, 3).double().sort(0).values,
}


@pytest.mark.parametrize("sizes", [[5000], [2500, 2500], [4096, 904], [100] * 50, [1, 4999]], ids=str)
@pytest.mark.parametrize("name", WEIGHTS)
def test_blocks_add_up(name, sizes):
    log_w = WEIGHTS[name]()
    tally = Tally(len(log_w))
    for block in log_w.split(sizes):
        tally.add(block)
    whole = log_w.double()
    expected = [log_mean_exp(whole), standard_error(whole), effective_sample_size(whole), pareto_k(whole)]
    expected += [whole.mean(0), whole.std(0) / math.sqrt(5000), torch.full((3,), 5000.0).double()]
    torch.testing.assert_close(tally.figures(), torch.stack(expected), rtol=1e-9, atol=1e-9, equal_nan=True)


def test_memory_grows_with_the_root_of_the_particles():
    kept = {}
    for particles in (10_000, 1_000_000):
        tally = Tally(particles)
        for _ in range(particles // 10_000):
            tally.add(torch.randn(10_000, 1))
        kept[particles] = sum(value.numel() for value in vars(tally).values() if isinstance(value, torch.Tensor))
    assert kept[1_000_000] < 11 * kept[10_000] < 11 * 400


def test_few_particles_have_the_figures_that_they_can_have():
    one, ten = reduce(torch.tensor([[2.0]])), reduce(torch.randn(10, 1))
    assert one[0].item() == one[4].item() == 2
    assert one[1].isinf()
    assert one[5].isinf()
    assert ten[3].isnan()
    assert torch.isnan(fit_tail(torch.randn(10, 1)).k)


def test_figures_wait_for_the_last_block():
    with pytest.raises(ValueError, match="a tally of 20 particles has been given 10"):
        Tally(20).add(torch.randn(10, 1)).figures()
