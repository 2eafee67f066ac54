"""Matrix products by oneDNN are those of torch, and only the larger ones of a graph are replaced."""

import pytest
import torch
from torch import nn
from torch._inductor import lowering

from ppvae.compilation import products
from ppvae.compilation.compiled import Gradients
from ppvae.compilation.steps import eager
from ppvae.compilation.tracing import quiet

pytestmark = pytest.mark.usefixtures("two_threads")

AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
LINEAR = torch.ops.mkldnn._linear_pointwise.default


def graph_of(net, *x):
    return Gradients(lambda *x: net(*x).square().mean(), net).graph(*x).copy()


def shapes(module, target=LINEAR):
    """Of the sides of the products by oneDNN."""
    products = [node for node in module.graph.nodes if node.target is target]
    return [tuple(tuple(part.meta["val"].shape) for part in node.args[:2]) for node in products]


def check_same(module, replaced, *inputs):
    for one, two in zip(replaced(*inputs), module(*inputs), strict=True):
        assert (one - two).norm() <= 1e-6 * two.norm()


@pytest.fixture
def quicker(monkeypatch):
    monkeypatch.setattr(products, "_quicker", lambda: True)


def test_products_of_more_rows_than_a_weight_has(quicker):
    """Forwards and backwards to what came before; the gradients of the weights are of a transposed left side."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300, bias=False)), torch.randn(310, 300)
    before, module = graph_of(net, x), graph_of(net, x)
    assert products.by_onednn(module)
    assert shapes(module) == [((310, 300), (300, 300))] * 3
    check_same(before, module, *net.parameters(), x)


def test_the_products_of_a_weight_with_more_rows_are_made_from_its_side(quicker):
    """Outputs, gradients of both weights, and of the inputs of the second as a sum over the rows of each core."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 500)), torch.randn(200, 300)
    before, module = graph_of(net, x), graph_of(net, x)
    assert products.by_onednn(module)
    outputs = [((400, 300), (200, 300)), ((500, 400), (200, 400))]
    weights = [((500, 200), (400, 200)), ((400, 200), (300, 200))]
    assert shapes(module) == outputs + weights
    assert shapes(module, torch.ops.aten.bmm.default) == [((2, 200, 250), (2, 250, 400))]
    check_same(before, module, *net.parameters(), x)


@pytest.mark.parametrize("cores", [1, 3, 4], ids=["one core", "uneven", "few rows each"])
def test_rows_that_cores_cannot_share_out(quicker, monkeypatch, cores):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 500)), torch.randn(200, 300)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    before, module = graph_of(net, x), graph_of(net, x)
    assert products.by_onednn(module)
    assert shapes(module) == [((200, 300), (400, 300)), ((200, 400), (500, 400)), ((200, 500), (400, 500))]
    check_same(before, module, *net.parameters(), x)


class Tied(nn.Module):
    """One weight on both sides, a product of a product, and one of transposed data."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(400, 400) / 20)

    def forward(self, x, y):
        return x @ self.weight @ self.weight.T + (y.T @ x) @ self.weight


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(400, 400), nn.Linear(400, 400)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


def test_products_of_products_and_of_one_weight_twice(quicker):
    torch.manual_seed(0)
    net, x, y = Tied(), torch.randn(300, 400), torch.randn(300, 300)
    before, module = graph_of(net, x, y), graph_of(net, x, y)
    assert products.by_onednn(module)
    assert shapes(module, torch.ops.aten.bmm.default)
    check_same(before, module, *net.parameters(), x, y)


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
    assert not shapes(module)


def test_other_processors_keep_their_library(monkeypatch):
    monkeypatch.setattr(products, "_quicker", lambda: False)
    assert not products.by_onednn(graph_of(nn.Linear(300, 300), torch.randn(200, 300)))


def test_inductors_own_rules_are_there_again_afterwards():
    operators = LINEAR, torch.ops.mkldnn._linear_pointwise.binary
    with quiet(), products.called_as_it_is():
        pass
    before = [lowering.lowerings.get(operator) for operator in operators]
    with quiet(), products.called_as_it_is():
        assert not [old for old, operator in zip(before, operators, strict=True) if lowering.lowerings[operator] is old]
    assert [lowering.lowerings.get(operator) for operator in operators] == before


@pytest.mark.skipif(not AVX512, reason="by oneDNN on processors with AVX-512 alone")
@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("deep", 200),
        ("residual", 500),
        *(
            pytest.param(kind, rows, marks=pytest.mark.soak)
            for kind, rows in (("deep", 500), ("residual", 200), ("tied", 200), ("tied", 500))
        ),
    ],
)
def test_a_compiled_step_with_them_is_the_eager_step_in_float64(kind, rows):
    """Also where Inductor fuses what follows a product into it: an activation, or a sum with something else."""
    torch.manual_seed(0)
    nets = {
        "deep": nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 300)),
        "residual": nn.Sequential(nn.Linear(400, 400), Residual(), Residual()),
        "tied": Tied(),
    }
    net, given = nets[kind], (torch.randn(rows, 400), torch.randn(rows, rows))[: 2 if kind == "tied" else 1]
    found = Gradients(lambda *x: net(*x).square().mean(-1).mean(), net)(*given)
    slopes = [parameter.grad for parameter in net.parameters()]
    exact = eager(lambda *x: net(*x).square().mean(-1).mean(), net.double(), *[part.double() for part in given])
    assert abs(found - exact) <= 1e-6 * exact
    for one, two in zip(slopes, (parameter.grad for parameter in net.parameters()), strict=True):
        assert (one - two).norm() <= 1e-6 * two.norm()


@pytest.mark.skipif(not AVX512, reason="by oneDNN on processors with AVX-512 alone")
def test_draws_around_the_outputs_of_a_product_are_those_of_the_eager_step():
    """A draw goes through memory in its order, and takes what it is given to lie as it did when it was traced."""
    torch.manual_seed(0)
    net, x = nn.Linear(400, 500), torch.randn(200, 400)

    def loss(x):
        mean = net(x).view(2, 100, 500)
        return torch.normal(mean.detach(), torch.ones_like(mean)).mul(mean).square().mean(-1).mean()

    torch.manual_seed(1)
    found = Gradients(loss, net)(x)
    torch.manual_seed(1)
    expected = eager(loss, net, x)
    assert abs(found - expected) <= 1e-6 * expected
