"""Matrix products by oneDNN are those of torch, and only the larger ones of a graph are replaced."""

import pytest
import torch
from torch import nn
from torch._inductor import lowering

from ppvae import products
from ppvae.compiled import Gradients
from ppvae.steps import eager
from ppvae.tracing import quiet

AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
LINEAR = torch.ops.mkldnn._linear_pointwise.default


def graph_of(net, *x):
    return Gradients(lambda *x: net(*x).square().mean(), net).graph(*x).copy()


def linears(module):
    return [node for node in module.graph.nodes if node.target is LINEAR]


@pytest.fixture
def quicker(monkeypatch):
    monkeypatch.setattr(products, "_quicker", lambda: True)


def test_the_larger_products_of_rows_are_replaced_and_the_value_stays(quicker):
    """Forwards and backwards to what came before; the gradients of the weights are of a transposed left side."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300, bias=False)), torch.randn(200, 300)
    module = graph_of(net, x)
    expected = module(*net.parameters(), x)
    assert products.by_onednn(module)
    assert len(linears(module)) == 3
    for one, two in zip(module(*net.parameters(), x), expected, strict=True):
        assert (one - two).norm() <= 1e-6 * two.norm()


def test_the_only_product_of_a_weight_is_made_from_its_side(quicker):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 300)), torch.randn(200, 300)
    module = graph_of(net, x)
    expected = module(*net.parameters(), x)
    assert products.by_onednn(module)
    shapes = [tuple(tuple(part.meta["val"].shape) for part in node.args[:2]) for node in linears(module)]
    assert shapes == [((400, 300), (200, 300)), ((200, 400), (300, 400)), ((200, 300), (400, 300))]
    for one, two in zip(module(*net.parameters(), x), expected, strict=True):
        assert (one - two).norm() <= 1e-6 * two.norm()


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (nn.Linear(20, 20), torch.randn(30, 20)),  # small
        (nn.Linear(300, 300).double(), torch.randn(200, 300).double()),
        (nn.Linear(300, 300), torch.randn(300, 200).T),
    ],
    ids=["small", "float64", "columns"],
)
def test_others_stay(quicker, net, x):
    module = graph_of(net, x)
    assert not products.by_onednn(module)
    assert not linears(module)


def test_other_processors_keep_their_library(monkeypatch):
    monkeypatch.setattr(products, "_quicker", lambda: False)
    assert not products.by_onednn(graph_of(nn.Linear(300, 300), torch.randn(200, 300)))


def test_inductors_own_rule_is_there_again_afterwards():
    with quiet(), products.called_as_it_is():
        pass
    before = lowering.lowerings.get(LINEAR)
    with quiet(), products.called_as_it_is():
        assert lowering.lowerings[LINEAR] is not before
    assert lowering.lowerings.get(LINEAR) is before


@pytest.mark.skipif(not AVX512, reason="by oneDNN on processors with AVX-512 alone")
def test_a_compiled_step_with_them_is_the_eager_step():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300)), torch.randn(200, 300)
    found = Gradients(lambda x: net(x).square().mean(), net)(x)
    slopes = [parameter.grad for parameter in net.parameters()]
    expected = eager(lambda x: net(x).square().mean(), net, (x,))
    assert abs(found - expected) <= 1e-6 * expected
    for one, two in zip(slopes, (parameter.grad for parameter in net.parameters()), strict=True):
        assert (one - two).norm() <= 1e-6 * two.norm()
