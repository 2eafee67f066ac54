"""A graph that gives something else than ordinary Python is found out before anything of it counts.

That none that is right is taken for one stands in `test_compiled`: it holds every part and objective against Python by
`Gradients`, which checks them too and would raise.
"""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from ppvae.compilation import checking, compiled
from ppvae.compilation.adam import Adam
from ppvae.compilation.checking import Differs
from ppvae.compilation.compiled import Gradients
from ppvae.compilation.steps import NotCompiled, Steps
from ppvae.compilation.update import Update

COUNT = 4  # steps


class Net(nn.Module):
    """With draws, a parameter and a buffer that no loss reaches, and buffers of both kinds that move."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.dropout, self.idle = nn.Dropout(0.5), nn.Parameter(torch.ones(2))
        self.register_buffer("still", torch.zeros(2))

    def forward(self, x):
        return self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))


class Run:
    """Some steps of a small fit, with the loss's story and its optimiser."""

    def __init__(self, compile="always", clip=None, dtype=torch.float32, optimizer=Adam, **options):
        self.net = Net().to(dtype)
        self.optimizer = optimizer(self.net.parameters(), lr=0.01)
        self.update = Update(self.optimizer, list(self.net.parameters()), clip)
        self.x = torch.randn(COUNT, 8, 3, dtype=dtype)
        self.steps = Steps(self.loss, self.net, compile, update=self.update, **options)

    def loss(self, x):
        return (self.net(x) - x[:, :2]).square().sum()

    def taken(self):
        torch.manual_seed(1)
        self.values = torch.stack([self.steps(x) for x in self.x])
        return self

    def state(self):
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return [self.values, *self.net.state_dict().values(), *kept, torch.get_rng_state()]


def graph_of(fit, tensors=None):
    return fit.steps.gradients.graph(*(tensors or fit.x[:1]))


@pytest.fixture
def inductor(monkeypatch):
    """No compiler: what it would make is the graph itself, or one that was tampered with."""
    monkeypatch.setattr(compiled, "own_kernels", nullcontext)

    def set_to(change=lambda before, results, after: None):
        def compile(module, inputs, options):
            def run(*given):
                before = [part.clone() for part in given]
                results = list(module(*given))
                change(before, results, given)
                return results

            return run

        monkeypatch.setattr(torch._inductor, "compile", compile)

    set_to()
    return set_to


def scaled(place, share=1.01):
    """One of the results is."""

    def change(before, results, after):
        results[place].mul_(share)

    return change


def further(place, share=1.01):
    """One of the inputs moves further than it should."""

    def change(before, results, after):
        after[place].copy_(before[place] + share * (after[place] - before[place]))

    return change


ADAM = {  # of a graph that ends with it: parameters, buffers, x, steps and numbers, first moments, second moments
    "the loss": scaled(0),
    "the buffer norm.running_mean": scaled(1),
    "the buffer norm.num_batches_tracked": lambda before, results, after: results[3].add_(1),
    "the move of first.weight": further(1),
    "Adam's count of steps": further(12, 2),
    "the gradient of first.weight": further(14),
    "the gradient of last.bias": further(19),
    "Adam's second moment of norm.bias": further(23),
}
PLAIN = {"the loss": scaled(0), "the gradient of first.weight": scaled(1), "the buffer norm.running_var": scaled(8)}


@pytest.mark.parametrize(
    ("what", "change", "options"),
    [
        *((what, change, {}) for what, change in ADAM.items()),
        *((what, change, {"clip": 0.5}) for what, change in ADAM.items()),
        *((what, change, {"optimizer": torch.optim.SGD}) for what, change in PLAIN.items()),
    ],
)
def test_a_graph_that_is_1_percent_off_gives_way_with_one_line(what, change, options, inductor):
    inductor(change)
    expected = Run("never", **options).taken()
    fit = Run(**options)
    with pytest.warns(NotCompiled, match=f"this fit is replayed, not compiled: {what} is off by .*, where") as caught:
        fit.taken()
    assert len(caught) == 1
    assert fit.steps.way == "replayed"
    for one, two in zip(fit.state(), expected.state(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_replayed_graphs_are_checked_too(inductor):
    """Where both are wrong, the fit is Python's to the last bit, and one line says so."""
    inductor(scaled(0))
    expected, fit = Run("never").taken(), Run()
    forward = graph_of(fit).module.forward
    graph_of(fit).module.forward = lambda *given: [1.01 * part for part in forward(*given)]
    with pytest.warns(NotCompiled, match="this fit is eager, not compiled: the loss is off by") as caught:
        fit.taken()
    assert len(caught) == 1
    assert fit.steps.way == "eager"
    for one, two in zip(fit.state()[:-1], expected.state()[:-1], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_an_estimate_gives_way_with_one_line_too(inductor):
    net = nn.Linear(3, 1)

    def weigh(x):
        return net(x).squeeze(-1) + torch.randn(5)

    inductor(lambda before, results, after: results[0][3].add_(0.1))
    steps, x = Steps(weigh, net, "always", backward=False), torch.randn(5, 3)
    state = torch.get_rng_state()
    with torch.no_grad(), pytest.warns(NotCompiled, match="this estimate is replayed, not compiled: a log-weight"):
        found = steps(x)
    torch.set_rng_state(state)
    torch.testing.assert_close(found, weigh(x).detach())


@pytest.mark.parametrize("way", ["compiled", "replayed"])
@pytest.mark.parametrize("options", [{}, {"clip": 0.5}, {"dtype": torch.float64}, {"optimizer": torch.optim.SGD}])
def test_what_is_right_is_the_same_to_the_last_bit_as_without_a_check(way, options, inductor, monkeypatch):
    """Draws, moments and buffers too: the check takes everything back."""
    fits = [Run(**options), Run(**options)]
    for fit in fits:
        fit.steps.way = way
    checked = fits[0].taken().state()
    monkeypatch.setattr(compiled, "check", lambda *_: None)
    for one, two in zip(checked, fits[1].taken().state(), strict=True):
        assert torch.equal(one, two)
    assert fits[0].steps.way == way


@pytest.mark.parametrize("compiled", [True, False])
def test_where_it_differs_nothing_has_changed(compiled, inductor):
    inductor(further(14))
    fit = Run()
    forward = graph_of(fit).module.forward
    graph_of(fit).module.forward = lambda *given: [1.01 * part for part in forward(*given)]
    for part in fit.net.parameters():
        part.grad = torch.ones_like(part)
    before, draws = copy.deepcopy(fit.net.state_dict()), torch.get_rng_state()
    with pytest.raises(Differs, match="is off by"):
        fit.steps.gradients(fit.x[0], compiled=compiled)
    assert all(torch.equal(before[name], part) for name, part in fit.net.state_dict().items())
    assert all(torch.equal(part.grad, torch.ones_like(part)) for part in fit.net.parameters())
    assert torch.equal(torch.get_rng_state(), draws)


def test_one_check_is_enough_and_a_draw_that_is_flipped_once_is_none(inductor, monkeypatch):
    calls, checks = [], []

    def once(before, results, after):
        calls.append(len(calls))
        if len(calls) == 2:  # the first is for nothing, the second is checked
            results[0].add_(1000)

    inductor(once)
    monkeypatch.setattr(compiled, "check", lambda *given: checks.append(checking.check(*given)))
    fit = Run().taken()
    assert fit.steps.way == "compiled"
    assert len(calls) == 1 + checking.ROUNDS + COUNT
    fit.steps.gradients.refresh()  # as every epoch does
    fit.taken()
    assert len(checks) == 1
    fit.steps.way = "replayed"
    fit.taken()
    assert len(checks) == 2


def test_what_a_kernel_leaves_out_is_not_what_lay_there(inductor, monkeypatch):
    """Of every 16 numbers it writes eight; the others may be those of Python the time before, which are right."""
    right = []  # none of them is freed, so that no memory that is given out holds one; nor do their sizes, by the sign

    def loss(x):
        right.append(-2 * x.exp())
        return right[-1]

    def compile(module, inputs, options):
        def run(*given):
            found = torch.empty(64)
            right.append(module(*given)[0])
            found.view(4, 2, 8)[:, 0] = right[-1].view(4, 2, 8)[:, 0]
            return [found]

        return run

    monkeypatch.setattr(torch._inductor, "compile", compile)
    x = torch.linspace(-1, 1, 64)
    for _ in range(10):
        with pytest.raises(Differs, match="a log-weight"):
            Gradients(loss, nn.Linear(1, 1), backward=False)(x)


def test_the_fewer_digits_the_coarser():
    found = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        net = nn.Linear(3, 1).to(dtype)
        gradients = Gradients(lambda x: net(x.to(dtype)).square().mean(), net)  # noqa: B023
        found[dtype] = checking.tolerance_of(gradients.graph(torch.randn(4, 3, dtype=torch.float64)))
    assert list(found.values()) == [checking.DOUBLE, checking.SINGLE, checking.COARSE]


def test_float64_is_held_to_its_digits(inductor):
    inductor(further(14, 1 + 1e-6))
    assert Run().taken().steps.way == "compiled"
    with pytest.warns(NotCompiled, match=r"the gradient of first\.weight"):
        Run(dtype=torch.float64).taken()


def hooked(net, x):
    net.last.bias.register_hook(lambda slope: 2 * slope)
    return net(x).sum()


def reaching(net, x):
    return net(x).sum() + (net.idle - net.idle.detach()).sum()


def moving(net, x):
    net.still.add_(1)
    return net(x).sum()


@pytest.mark.parametrize(
    ("loss", "what"),
    [(hooked, "gradient of last.bias"), (reaching, "gradient of idle"), (moving, "buffer still")],
)
def test_what_python_does_and_the_graph_does_not_is_found_out(loss, what):
    """The graph is of the same value; the loss has changed since, or has what no graph holds."""
    net, x = Net(), torch.randn(8, 3)
    gradients = Gradients(lambda x: net(x).sum(), net)
    gradients.graph(x)
    gradients.loss = lambda x: loss(net, x)
    with pytest.raises(Differs, match=f"the {what} is off by"):
        gradients(x, compiled=False)
    assert not net.still.any()


def test_nan_of_both_is_no_difference():
    net = nn.Linear(3, 1)
    x = torch.full((4, 3), torch.nan)
    assert Gradients(lambda x: net(x).square().mean(), net)(x, compiled=False).isnan()
