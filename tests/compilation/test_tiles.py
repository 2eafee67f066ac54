"""Compiled loops write where they should: a graph that damaged the heap is the loss itself to rounding."""

import pytest
import torch
from cases import data_of, story_of
from torch import nn
from torch._inductor.codegen import cpp
from torch.nn.functional import gelu, pad

from ppvae.compilation.compiled import Gradients
from ppvae.compilation.steps import eager
from ppvae.compilation.tiles import sound
from ppvae.inference import elbo
from ppvae.inference.program.checks import hot_loop

pytestmark = pytest.mark.usefixtures("two_threads")


def test_sums_into_places_that_an_index_says():
    """The gradient of chosen columns is such a sum."""
    story, x = story_of(likelihood="Heterogeneous").double(), data_of(likelihood="Heterogeneous").double()
    with hot_loop():
        torch.manual_seed(0)
        found = Gradients(lambda x: elbo(story, (x,)), story)(x)
        slopes = [parameter.grad for parameter in story.parameters()]
        torch.manual_seed(0)
        expected = eager(lambda x: elbo(story, (x,)), story, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, two in zip(slopes, (parameter.grad for parameter in story.parameters()), strict=True):
        assert (one is None) == (two is None)
        assert one is None or (one - two).norm() <= 1e-12 * (1 + two.norm())


def test_a_sum_with_a_loop_between_the_tiled_ones():
    def padded(x):
        left, right = pad(gelu(x), (0, 0, 0, 0, 0, 58), value=0.5), pad(gelu(x).permute(3, 2, 1, 0), (0, 0, 0, 58))
        return torch.matmul(left, right)

    x = torch.randn(1, 8, 66, 66).contiguous(memory_format=torch.channels_last)
    found = Gradients(padded, nn.Linear(1, 1), backward=False)(x)
    torch.testing.assert_close(found, padded(x), rtol=1e-5, atol=1e-5)


def test_inductors_own_choice_is_there_again_afterwards():
    before = cpp.TilingSelect.select_tiling
    with sound():
        assert cpp.TilingSelect.select_tiling is not before
    assert cpp.TilingSelect.select_tiling is before
