"""A graph is held against ordinary Python, once, before anything of it counts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ppvae.compilation.adam import Operators
from ppvae.compilation.differences import Gap, gap, norm, value_gap
from ppvae.compilation.tracing import Graph, Loss, lent, untouched

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]

ROUNDS = 2  # of other draws each: rounding flips one, where it decides, once in many thousand steps
DOUBLE, SINGLE, COARSE = 1e-9, 1e-3, 5e-2  # of its norm, what rounding may make of a gradient; coarse is below float32
VALUES = 0.1  # the share of that by which a loss or a log-weight may be off
TOGETHER = 1e-2  # what should be 0 is as exact as the rest: such a share of the norm of all is added to each's


class Differs(RuntimeError):
    """What a graph gives is not what ordinary Python gives."""


class Found(NamedTuple):
    """What a graph gives."""

    value: Tensor
    slopes: list[Tensor]  # of the parameters that have one; clipped, where the graph clips
    moved: list[Tensor]  # buffers, afterwards
    roundings: list[float]  # norms: what the slopes are off by as they were told
    update: list[Gap]  # of what the graph itself made of the slopes


class Expected(NamedTuple):
    """What ordinary Python gives."""

    value: Tensor
    slopes: list[Tensor]  # of the parameters that have one in the graph, 0 for none
    others: list[Tensor | None]  # of the others that learn
    buffers: list[Tensor]  # all, afterwards


class Step(NamedTuple):
    """A parameter and its moments, before and after a step of Adam."""

    parameter: Tensor
    moved: Tensor
    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]


def check(
    graph: Graph,
    run: Run,
    loss: Loss,
    networks: nn.Module,
    tensors: Sequence[Tensor],
    operators: Operators | None = None,
) -> None:
    """Whether a graph gives what the loss does: by the same draws the same value, gradients and buffers, to rounding.

    Where it ends with Adam it moves copies, and its gradients are told by the first moments. Second moments and moves
    are held against Adam's formula of what the graph gave before them: at a first step a move is the gradient's sign,
    which makes much of a rounding.

    Nothing is changed, and draws are taken back.

    Args:
        graph: what `run` is made of.
        run: of the graph's inputs, and of the operators'.
        loss, networks, tensors: see `Gradients`.
        operators: what `run` ends with.

    Raises:
        Differs: it does not, nor does it with other draws; what, and by how much.
    """
    tolerance, kept = tolerance_of(graph), []
    with taken_back():
        for _ in range(ROUNDS):
            before = _draws()
            with taken_back():
                found = _found(graph, run, tensors, operators, tolerance)
            expected = _expected(graph, loss, networks, tensors, None if operators is None else operators.clip)
            wide = [gap for gap in _gaps(graph, found, expected, tolerance) if gap.share() > 1]
            if not wide:
                return
            if all(torch.equal(one, two) for one, two in zip(before, _draws(), strict=True)):
                break  # nothing was drawn: a kernel that leaves numbers out may find Python's in its memory next time
            kept.append((found, expected))  # for the same reason
    raise Differs(wide[0].said(networks))


@contextmanager
def taken_back() -> Iterator[None]:
    """Draws are."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        yield


def _draws() -> list[Tensor]:
    """Where the generators are."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]


def tolerance_of(graph: Graph) -> float:
    """By the coarsest numbers that it computes with."""
    parts = tree_leaves([node.meta.get("val") for node in graph.module.graph.nodes if node.op == "call_function"])
    kinds = {part.dtype for part in parts if isinstance(part, Tensor)}
    units = [torch.finfo(kind).eps for kind in kinds if kind.is_floating_point or kind.is_complex]
    coarsest = max(units, default=torch.finfo(torch.float32).eps)
    return DOUBLE if coarsest < 1e-12 else SINGLE if coarsest < 1e-6 else COARSE


def _expected(graph: Graph, loss: Loss, networks: nn.Module, tensors: Sequence[Tensor], clip: float | None) -> Expected:
    """By ordinary Python, on copies of the buffers, and without a `.grad`."""
    own = {part: part for part in networks.parameters()} | {part: part.clone() for part in networks.buffers()}
    learning = [*graph.reached, *graph.others]
    with untouched(networks), lent(networks, own):
        value = loss(*tensors)
        buffers = list(networks.buffers())
        every = torch.autograd.grad(value, learning, allow_unused=True) if learning else ()
    count = len(graph.reached)
    pairs = zip(graph.reached, every[:count], strict=True)
    slopes = [torch.zeros_like(part) if slope is None else slope for part, slope in pairs]
    if clip is not None:
        share = clip / (torch.stack([torch.linalg.vector_norm(slope) for slope in slopes]).norm() + 1e-6)
        slopes = [slope * share.clamp(max=1.0) for slope in slopes]
    return Expected(value.detach(), slopes, list(every[count:]), buffers)


def _found(graph: Graph, run: Run, tensors: Sequence[Tensor], operators: Operators | None, tolerance: float) -> Found:
    if operators is None:
        value, *results = run(graph.inputs(tensors))
        count = len(graph.reached)
        return Found(value, results[:count], results[count:], [0.0] * count, [])
    given, before = graph.inputs(tensors), operators.next()
    copies, after = [part.detach().clone() for part in graph.parameters], [part.clone() for part in before]
    value, *moved = run([*copies, *given[len(copies) :], *after])
    (steps, numbers, *old), (counted, _, *new) = before, after
    moments = list(zip(old, new, strict=True))
    becomes = dict(zip(graph.parameters, copies, strict=True))
    firsts, seconds = moments[: len(graph.reached)], moments[len(graph.reached) :]
    pairs = zip(graph.reached, firsts, seconds, strict=True)
    taken = [Step(part.detach(), becomes[part], first, second) for part, first, second in pairs]
    told = [_slope(step, operators) for step in taken]
    update = [gap("Adam's count of steps", None, counted, steps + 1, 0.0)]
    for part, step, (slope, rounding) in zip(graph.reached, taken, told, strict=True):
        update.append(_second_gap(part, step, slope, rounding, operators, tolerance))
        update.append(_move_gap(part, step, operators, numbers, tolerance))
    return Found(value, [slope for slope, _ in told], moved, [rounding for _, rounding in told], update)


def _slope(step: Step, operators: Operators) -> tuple[Tensor, float]:
    """The gradient that moved a first moment, and by how much it may be off for the moment's rounding."""
    share, (before, after) = 1 - operators.group["betas"][0], step.first
    return before.lerp(after, 1 / share), 2 * _unit(step) * (norm(before) + norm(after)) / share


def _second_gap(
    part: Tensor, step: Step, slope: Tensor, rounding: float, operators: Operators, tolerance: float
) -> Gap:
    share, (before, after) = 1 - operators.group["betas"][1], step.second
    squares = slope.square()
    told = (2 * norm(squares) ** 0.5 + rounding) * rounding  # Hölder's inequality, for what rounding adds to a square
    allowed = share * (tolerance * norm(squares) + told) + 4 * _unit(step) * norm(before)
    return gap("Adam's second moment of", part, after, before.lerp(squares, share), allowed)


def _move_gap(part: Tensor, step: Step, operators: Operators, numbers: Tensor, tolerance: float) -> Gap:
    rate, correction = numbers.tolist()
    expected = rate * step.first[1] / (step.second[1].sqrt() * correction + operators.group["eps"])
    allowed = tolerance * norm(expected) + 2 * _unit(step) * norm(step.parameter)
    return gap("the move of", part, step.parameter - step.moved, expected, allowed)


def _unit(step: Step) -> float:
    return torch.finfo(step.parameter.dtype).eps


def _gaps(graph: Graph, found: Found, expected: Expected, tolerance: float) -> list[Gap]:
    """Of all that a graph gives, what follows from something after it."""
    least = TOGETHER * sum(norm(slope) ** 2 for slope in expected.slopes) ** 0.5
    gaps = value_gap(found.value, expected.value, VALUES * tolerance)
    for part, one, two, off in zip(graph.reached, found.slopes, expected.slopes, found.roundings, strict=True):
        gaps.append(gap("the gradient of", part, one, two, tolerance * (norm(two) + least) + off))
    for part, slope in zip(graph.others, expected.others, strict=True):
        if slope is not None:
            gaps.append(gap("the gradient of", part, torch.zeros_like(slope), slope, tolerance * least))
    moved = dict(zip(graph.moved, found.moved, strict=True))
    after = list(zip(graph.buffers, expected.buffers, strict=True))
    least = TOGETHER * sum(norm(two) ** 2 for part, two in after if part in moved and _rounds(two)) ** 0.5
    for buffer, two in after:
        allowed = tolerance * (norm(two) + least) if buffer in moved and _rounds(two) else 0.0
        gaps.append(gap("the buffer", buffer, moved.get(buffer, buffer), two, allowed))
    return gaps + found.update


def _rounds(part: Tensor) -> bool:
    return part.is_floating_point() or part.is_complex()
