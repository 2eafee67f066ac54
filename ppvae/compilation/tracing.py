"""The gradients of a loss as a graph: traced for any story and objective, by what its operators are, not its words."""

import copy
import logging
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ppvae.compilation.adam import Operators

Loss = Callable[..., Tensor]
"""Tensors to a scalar; to any tensor, where no gradient is asked for. What else it reads, beside the networks'
parameters and buffers, is a constant of its graph."""

LIBRARIES = tuple(str(Path(str(spec.origin)).parent) for spec in map(find_spec, ("torch", "pyro")) if spec)
DEPENDENT = {"DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode"}


class NotTraceable(RuntimeError):
    """A loss does what its own values decide, so that no graph says it all."""


@dataclass
class Graph:
    """A loss with its gradients, of given shapes."""

    module: fx.GraphModule  # (*parameters, *buffers, *tensors) to [loss, *gradients, *what buffers become]
    parameters: list[nn.Parameter]
    buffers: list[Tensor]
    reached: list[nn.Parameter]  # those that have a gradient, in the order of the results
    others: list[nn.Parameter]  # those that learn, and not from this loss
    moved: list[Tensor]  # the buffers that the loss moves: outside, since a graph may lose it (a 0-d float64, 2.13)
    seconds: float  # that a trace takes, once torch is warm
    compiled: Callable[..., Any] | None = None
    operators: Operators | None = None  # that what is compiled ends with
    agreeing: set[Any] = field(default_factory=set)  # of module and compiled, what was found to be ordinary Python

    def inputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [*self.parameters, *self.buffers, *tensors]

    def copy(self) -> fx.GraphModule:
        return fx.GraphModule(self.module, copy.deepcopy(self.module.graph))


def trace(loss: Loss, networks: nn.Module, tensors: Sequence[Tensor], backward: bool = True) -> Graph:
    """The graph of a loss, with its gradients or without.

    Nothing is computed or drawn: the tensors of a trace have shapes and no values.

    It is traced twice, and should be the same: a counter, or a draw from elsewhere than torch, is found by that.

    Raises:
        NotTraceable: naming the line that is in the way.
    """
    parameters, buffers = list(networks.parameters()), list(networks.buffers())
    recurrent = any(isinstance(module, nn.RNNBase) for module in networks.modules())
    plain = torch.backends.mkldnn.flags(enabled=False) if recurrent else nullcontext()  # its layers keep a workspace
    with untouched(networks), quiet(), _compiling(), plain:  # `quiet` first: to switch oneDNN off warns
        first, _, moved = _traced(loss, networks, tensors, [True] * len(buffers), backward)
        start = time.perf_counter()
        module, reached, _ = _traced(loss, networks, tensors, moved, backward)
        seconds = time.perf_counter() - start
    _check_same(first, module)
    learning = [parameter for parameter in parameters if parameter.requires_grad and backward]
    return Graph(
        module,
        parameters,
        buffers,
        [parameter for parameter, found in zip(learning, reached, strict=True) if found],
        [parameter for parameter, found in zip(learning, reached, strict=True) if not found],
        [buffer for buffer, found in zip(buffers, moved, strict=True) if found],
        seconds,
    )


def ended(graph: Graph, operators: Operators, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """A graph that moves its parameters at its end: `(*inputs, *the operators')` to `[loss, *what buffers become]`."""
    places = {id(parameter): place for place, parameter in enumerate(graph.parameters)}
    count = len(inputs) - len(operators.inputs)

    def step(*everything: Tensor) -> list[Tensor]:
        given, rest = everything[:count], everything[count:]
        loss, *results = graph.module(*given)
        reached = [given[places[id(parameter)]] for parameter in graph.reached]
        operators(reached, results[: len(reached)], rest)
        return [loss, *results[len(reached) :]]

    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)


def _traced(
    loss: Loss, networks: nn.Module, tensors: Sequence[Tensor], moving: Sequence[bool], backward: bool
) -> tuple[fx.GraphModule, list[bool], list[bool]]:
    """The graph, which of the parameters that learn have a gradient, and which buffers move."""
    parameters, buffers = list(networks.parameters()), list(networks.buffers())
    reached: list[bool] = []
    replaced: list[bool] = []

    def step(*everything: Tensor) -> list[Tensor]:
        given, rest = everything[: len(parameters)], everything[len(parameters) :]
        before, tensors = rest[: len(buffers)], rest[len(buffers) :]
        leaves = [
            tensor.detach().requires_grad_(parameter.requires_grad and backward)
            for tensor, parameter in zip(given, parameters, strict=True)
        ]
        copies = [tensor.clone() if moves else tensor for tensor, moves in zip(before, moving, strict=True)]
        with lent(networks, dict(zip((*parameters, *buffers), (*leaves, *copies), strict=True))):
            value = loss(*tensors)
            after = list(networks.buffers())
        learning = [leaf for leaf in leaves if leaf.requires_grad]
        slopes = torch.autograd.grad(value, learning, allow_unused=True) if learning else ()
        reached[:] = [slope is not None for slope in slopes]
        replaced[:] = [new is not copy for new, copy in zip(after, copies, strict=True)]
        moved = [new.detach() for new, moves in zip(after, moving, strict=True) if moves]
        return [value.detach(), *(slope for slope in slopes if slope is not None), *moved]

    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        make = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)
        module = make(*parameters, *buffers, *tensors)
    except Exception as error:
        dependent = type(error).__name__ in DEPENDENT
        reason = "it asks for a value that is known only once it is computed" if dependent else first_line(error)
        raise NotTraceable(f"{reason}, at {_line(error)}") from error
    places = [node for node in module.graph.nodes if node.op == "placeholder"][len(parameters) :]
    written = [_is_written(node) for node in places[: len(buffers)]]
    return module, reached, [a or b for a, b in zip(replaced, written, strict=True)]


def _is_written(node: fx.Node) -> bool:
    """Whether something is written into a tensor, a copy or a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if "batch_norm" in str(user.target):  # into its running statistics, which its schema does not say
            return True
        aliases = [] if schema is None else [argument.alias_info for argument in schema.arguments]
        if any(alias is not None and alias.is_write for alias in aliases):
            return True
        handed_on = schema is None or user.target is torch.ops.aten.clone.default or any(aliases)
        if user.op == "call_function" and handed_on and _is_written(user):
            return True
    return False


def _check_same(one: fx.GraphModule, other: fx.GraphModule) -> None:
    """Two traces should have the same operations on the same constants, however buffers are copied."""
    (operations, constants), (again, others) = _content(one), _content(other)
    if not all(isinstance(constant, Tensor) for constant in constants):
        raise NotTraceable("it draws from a generator of its own, not from torch's")
    same = operations == again and all(
        a is b or (a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, 0, 0, equal_nan=True))
        for a, b in zip(constants, others, strict=True)
    )
    if not same:
        raise NotTraceable("it is not the same twice: a number outside the buffers changes from step to step")


def _content(module: fx.GraphModule) -> tuple[list[str], list[Any]]:
    operations, constants = [], []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            constants.append(getattr(module, str(node.target)))
        elif node.op == "call_function" and node.target is not torch.ops.aten.clone.default:
            if node.target is torch.ops.aten.detach.default:
                continue
            given = fx.node.map_arg((node.args, node.kwargs), lambda _: None)
            operations.append(f"{node.target}{given}")
    return operations, constants


@contextmanager
def lent(networks: nn.Module, others: dict[Tensor, Tensor]) -> Iterator[None]:
    """Other tensors stand where the networks hold their own.

    `torch.func.functional_call` does this too, but loses a parameter where one module has two names.
    """
    slots: list[tuple[dict[str, Any], str, Tensor]] = [
        (holder, name, own)
        for module in networks.modules()
        for holder in (module._parameters, module._buffers)
        for name, own in holder.items()
        if own is not None
    ]
    for holder, name, own in slots:
        holder[name] = others[own]
    try:
        yield
    finally:
        for holder, name, own in slots:
            holder[name] = own


@contextmanager
def untouched(networks: nn.Module) -> Iterator[None]:
    """Whatever the modules come to hold meanwhile is taken out again: the tensors of a trace have no values."""
    before = [(module, dict(vars(module))) for module in networks.modules()]
    try:
        yield
    finally:
        for module, held in before:
            vars(module).clear()
            vars(module).update(held)


@contextmanager
def quiet() -> Iterator[None]:
    """What torch says to its own developers while it traces and compiles is nothing to a user."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _compiling() -> Iterator[None]:
    """`torch.compiler.is_compiling()` is true, as in any compilation: a check that reads values stands behind it."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def first_line(error: Exception) -> str:
    error = getattr(error, "inner_exception", error)  # what a backend raised
    name = type(error).__name__
    return f"{name}: {(str(error).strip() or name).splitlines()[0]}"


def _line(error: Exception) -> str:
    """file:line of the innermost call outside torch and Pyro."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(LIBRARIES)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "a line of torch"
