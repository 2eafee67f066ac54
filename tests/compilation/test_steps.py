"""The way of a fit's steps: chosen by what is estimated to end first, and given up with one clear warning."""

import pytest
import torch
from torch import nn

from ppvae.compilation import steps as module
from ppvae.compilation.compiled import NotCompilable
from ppvae.compilation.steps import NotCompiled, Steps


def made(compile="auto", left=1000, loss=None, **options):
    net = nn.Linear(2, 1)
    return net, Steps(loss or (lambda x: net(x).square().mean()), net, compile, left, **options)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a step of each way takes, and no compiler."""
    monkeypatch.setattr(module, "SHORT", 3.0)
    takes = {"eager": 1.0, "replayed": 1.0}
    now = [0.0]

    def run(self, way, tensors, whole):
        now[0] += takes.get(way, 0.0)
        return torch.zeros(())

    monkeypatch.setattr(Steps, "_run", run)
    monkeypatch.setattr(module, "_now", lambda tensors: now[0])
    return takes


TRIALS = module.WARM + module.TIMED


def taken(steps, count=2 * TRIALS):
    for _ in range(count):
        steps(torch.randn(4, 2))
    return steps.way


def test_a_short_fit_is_eager_without_a_trace_or_a_word(clock):
    said = []
    clock["eager"] = 1e-3
    _, steps = made(left=100, say=said.append)
    assert taken(steps, TRIALS) == "eager"
    assert not steps.gradients.graphs
    assert not said


@pytest.mark.parametrize(
    ("eager", "replayed", "left", "way"),
    [
        (0.01, 0.001, 1000, "replayed"),  # 10 s, 1 s, at least 8 s
        (0.01, 0.02, 1000, "eager"),
        (0.01, 0.009, 100_000, "compiled"),  # 1000 s, 900 s, 630 s and a little
    ],
)
def test_what_is_estimated_to_end_first_is_chosen_and_said_in_one_line(clock, eager, replayed, left, way):
    said = []
    clock.update(eager=eager, replayed=replayed)
    _, steps = made(left=left + 2 * TRIALS, say=said.append)
    assert taken(steps) == way
    assert len(said) == 1
    assert said[0].startswith(f"this fit is {way}: its {left:,} steps left take {left * eager:.0f} s eager")
    assert "as measured" in said[0]
    assert "as estimated" in said[0]


def test_what_was_chosen_before_a_stop_stays(clock):
    _, steps = made(way="replayed")
    assert taken(steps, 1) == "replayed"


def test_every_way_gives_the_same_gradients():
    x, found = torch.randn(4, 2), []
    net, steps = made("always")
    for way in ("eager", "replayed", "compiled"):
        steps.way = way
        loss = steps(x, whole=way != "compiled")  # of another size than most: replayed
        found.append((loss, net.weight.grad.clone(), net.bias.grad.clone()))
    for parts in zip(*found, strict=True):
        assert torch.equal(parts[0], parts[1])
        assert torch.equal(parts[0], parts[2])


@pytest.mark.parametrize("compile", ["auto", "always"])
def test_what_cannot_be_traced_goes_on_eagerly_after_one_warning_that_names_the_line(compile, monkeypatch):
    monkeypatch.setattr(module, "SHORT", 0.0)
    x = torch.randn(4, 2)

    def loss(x):
        value = net(x).square().mean()
        return value if value > 0 else -value

    net, steps = made(compile, loss=lambda x: loss(x))
    with pytest.warns(NotCompiled, match=r"this fit is eager.*test_steps\.py:\d+.*compile='never'") as caught:
        values = [steps(x) for _ in range(TRIALS + 1)]
    assert len(caught) == 1
    assert steps.way == "eager"
    assert all(torch.equal(value, loss(x).detach()) for value in values)
    assert net.weight.grad is not None


def test_what_cannot_be_compiled_is_replayed_after_one_warning(monkeypatch):
    def refuse(*_):
        raise NotCompilable("no C++ compiler")

    _, steps = made("always")
    monkeypatch.setattr(steps.gradients, "_compile", refuse)
    with pytest.warns(NotCompiled, match="this fit is replayed, not compiled: no C") as caught:
        first, second = (steps(x) for x in torch.ones(2, 4, 2))
    assert torch.equal(first, second)
    assert len(caught) == 1


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="compile should be auto, always, never, got maybe"):
        made("maybe")
