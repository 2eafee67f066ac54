"""A compiled graph that ends with Adam against ordinary Python that calls it."""

import copy

import pytest
import torch
from torch import nn

from ppvae.compilation.adam import Adam
from ppvae.compilation.compiled import Gradients
from ppvae.compilation.steps import eager
from ppvae.compilation.update import Update

pytestmark = pytest.mark.usefixtures("two_threads")

STEPS = 6
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


class Net(nn.Module):
    """With a parameter that no loss reaches, one that does not learn, and one with two names."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.idle = nn.Linear(3, 4), nn.Linear(4, 4), nn.Parameter(torch.ones(2))
        self.again = self.last
        self.first.bias.requires_grad_(False)

    def forward(self, x):
        return self.again(self.last(torch.tanh(self.first(x)))).square().mean()


def made(dtype, clip=None):
    torch.manual_seed(0)
    net = Net().to(dtype)
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = Adam(learning, lr=0.01)
    return net, optimizer, Update(optimizer, learning, clip)


def batches(dtype):
    torch.manual_seed(1)
    return torch.randn(STEPS, 5, 3, dtype=dtype)


def assert_same(found, expected, dtype):
    (net, optimizer, _), (other, theirs, _) = found, expected
    for (name, one), two in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] / 10, msg=name)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        mine, torchs = optimizer.state[one], theirs.state[two]
        assert mine.keys() == torchs.keys()
        for kept, value in torchs.items():
            torch.testing.assert_close(mine[kept], value, rtol=10 * TOLERANCE[dtype], atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "clip"),
    [
        (torch.float64, 0.05),
        (torch.float32, None),
        pytest.param(torch.float32, 0.05, marks=pytest.mark.soak),
        pytest.param(torch.float64, None, marks=pytest.mark.soak),
    ],
)
def test_the_end_of_a_graph_is_the_optimisers_step(dtype, clip):
    """Begun eagerly, as `auto` begins; with a rate that changes at every step, and a state that is loaded midway."""
    found, expected = made(dtype, clip), made(dtype, clip)
    for net, optimizer, update in (found, expected):
        gradients = Gradients(net, net, update=update)
        for step, x in enumerate(batches(dtype)):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            if step == 4:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
                gradients.refresh()
            if net is found[0] and step > 1:
                gradients(x)
                assert all(parameter.grad is None for parameter in net.parameters())
            else:
                eager(net, net, x)
                update()
    assert_same(found, expected, dtype)
    assert {float(state["step"]) for state in found[1].state.values() if state} == {STEPS}


def test_steps_called_and_steps_of_a_graph_may_take_turns():
    found, expected = made(torch.float64), made(torch.float64)
    gradients = Gradients(found[0], found[0], update=found[2])
    for step, x in enumerate(batches(torch.float64)):
        gradients(x, compiled=step % 2 == 0)
        eager(expected[0], expected[0], x)
        expected[2]()
    assert_same(found, expected, torch.float64)


def unequal(net, optimizer):
    """One parameter has taken a step more."""
    optimizer.zero_grad()
    net.first.weight.grad = torch.ones_like(net.first.weight)
    optimizer.step()


def decaying(net, optimizer):
    optimizer.param_groups[0]["weight_decay"] = 0.1


def of_two_groups(net, optimizer):
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1, dtype=torch.float64))]})


def of_fewer(net, optimizer):
    group = optimizer.param_groups[0]
    group["params"] = [parameter for parameter in group["params"] if parameter is not net.last.bias]


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize("change", [unequal, decaying, of_two_groups, of_fewer])
def test_what_the_operators_are_not_is_called(change, compiled):
    found, expected = made(torch.float64), made(torch.float64)
    for net, optimizer, update in (found, expected):
        gradients = Gradients(net, net, update=update)
        for step, x in enumerate(batches(torch.float64)):
            if step == 2:
                change(net, optimizer)
                gradients.refresh()
            if net is found[0]:
                gradients(x, compiled=compiled)
            else:
                eager(net, net, x)
                update()
    assert found[0].first.weight.grad is not None
    assert_same(found, expected, torch.float64)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_another_optimiser_is_called(compiled):
    net = Net()
    update = Update(torch.optim.SGD(net.parameters(), lr=0.1), list(net.parameters()))
    before, x = copy.deepcopy(net), batches(torch.float32)[0]
    Gradients(net, net, update=update)(x, compiled=compiled)
    eager(before, before, x)
    torch.testing.assert_close(net.last.weight, before.last.weight - 0.1 * before.last.weight.grad)


@pytest.mark.parametrize("setting", [{"betas": [0.5, 0.7]}, {"eps": 0.1}, {"weight_decay": 0.1}, {"maximize": True}])
def test_a_constant_of_the_graph_that_changes_asks_for_another(setting):
    _, optimizer, update = made(torch.float32)
    before = update.settings()
    optimizer.param_groups[0]["lr"] = 0.5  # no constant
    assert update.settings() == before
    optimizer.param_groups[0].update(setting)
    assert update.settings() != before
    hash(update.settings())


def test_operators_are_of_what_is_reached_and_clip_as_asked():
    net, _, update = made(torch.float32, clip=0.3)
    reached = [net.last.weight, net.last.bias]
    operators = update.operators(reached)
    assert operators.clip == 0.3
    assert [part.shape for part in operators.inputs[2:]] == [p.shape for p in reached] * 2  # first and second moments
