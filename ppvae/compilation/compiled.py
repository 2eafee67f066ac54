"""Gradients by way of a graph, replayed operator by operator or compiled: a loss's own, to rounding."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ppvae.compilation.adam import Operators
from ppvae.compilation.cache import own_kernels
from ppvae.compilation.checking import check, taken_back
from ppvae.compilation.products import by_onednn, called_as_it_is
from ppvae.compilation.tiles import sound
from ppvae.compilation.tracing import Graph, Loss, NotTraceable, ended, first_line, quiet, trace
from ppvae.compilation.update import Update

PLAIN = (bool, int, float, str, type(None))
GRAPHS = 8  # of one loss: beyond it, numbers in the modules keep changing, and a graph would never be used again
ASSERTIONS = ("alignment_asserts", "scalar_asserts", "size_asserts")  # of a graph's inputs at every call


class NotCompilable(RuntimeError):
    """A graph can be replayed here and not compiled: for want of a C++ compiler, most often."""


class Gradients:
    """`loss(*tensors).backward()` by way of a graph, and an update after it: the loss is returned, buffers moved.

    The same generator gives the same draws, so that the two agree to rounding, which is checked before a graph is used
    the first time. A graph holds for the shapes, dtypes and
    devices of the tensors, for what learns, and for the numbers and names that the modules hold, their mode among them:
    each combination has its own. `refresh` takes up what was changed in the modules.

    Args:
        loss: of the tensors.
        networks: what it is a function of beside them.
        backward: whether gradients are wanted; else the value alone, and `.grad` stays as it is.
        update: what follows the gradients, if anything: a compiled graph ends with it where it has operators, and sets
            no `.grad` then.
    """

    def __init__(self, loss: Loss, networks: nn.Module, backward: bool = True, update: Update | None = None):
        self.loss, self.networks, self.backward, self.update = loss, networks, backward, update
        self.graphs: dict[Any, Graph] = {}
        self.settings: dict[Any, int] = {}  # to a number, which is hashed in no time
        self.refresh()

    def refresh(self) -> None:
        settings = settings_of(self.networks), () if self.update is None else self.update.settings()
        self.setting = self.settings.setdefault(settings, len(self.settings))
        self.ready: set[int] = set()  # the graphs whose compiled function is as optimiser and graph are now

    def __call__(self, *tensors: Tensor, compiled: bool = True) -> Tensor:
        """The loss of some tensors, by its compiled graph or by the graph as it was traced, operator by operator.

        Raises:
            NotTraceable, NotCompilable: it cannot be; no parameter, gradient or buffer has changed then.
            Differs: it can, and gives something else; nothing has changed then either.
        """
        graph = self.graph(*tensors)
        if compiled and id(graph) not in self.ready:
            self._prepare(graph, tensors)
        if not compiled:
            self._check(graph, graph.module, tensors)
        operators = graph.operators if compiled else None
        inputs = graph.inputs(tensors) if operators is None else [*graph.inputs(tensors), *operators.next()]
        run = graph.compiled if compiled and graph.compiled is not None else graph.module
        with torch.no_grad():
            loss, *results = _given(run, inputs)
            slopes = [] if operators is not None else results[: len(graph.reached)]
            for buffer, moved in zip(graph.moved, results[len(slopes) :], strict=True):
                buffer.copy_(moved)
        if operators is None:
            for parameter, slope in zip(graph.reached, slopes, strict=True):
                parameter.grad = slope
            for parameter in graph.others:
                parameter.grad = None
            if self.update is not None:
                self.update()
        return loss

    def graph(self, *tensors: Tensor) -> Graph:
        """The graph for tensors like these, traced where there is none yet."""
        key = (self.setting, *((part.shape, part.dtype, part.device) for part in tensors))
        if key not in self.graphs:
            if len(self.graphs) == GRAPHS:
                raise NotTraceable("a number that a module holds changes again and again: a buffer may")
            self.graphs[key] = trace(self.loss, self.networks, tensors, self.backward)
        return self.graphs[key]

    def _prepare(self, graph: Graph, tensors: Sequence[Tensor]) -> None:
        """Compile a graph, unless it is, and find what it ends with: another optimiser state may have been loaded."""
        operators = None if self.update is None else self.update.operators(graph.reached)
        if graph.compiled is None or (operators is None) != (graph.operators is None):
            graph.compiled = self._compile(graph, tensors, operators)
        self._check(graph, graph.compiled, tensors, operators)
        graph.operators = operators
        if operators is not None:
            for parameter in graph.parameters:
                parameter.grad = None
        self.ready.add(id(graph))

    def _check(
        self, graph: Graph, run: Callable[..., Any], tensors: Sequence[Tensor], operators: Operators | None = None
    ) -> None:
        """Hold a graph against the loss itself, before it is used by a way for the first time."""
        if run not in graph.agreeing:
            check(graph, partial(_given, run), self.loss, self.networks, tensors, operators)
            graph.agreeing.add(run)

    def _compile(self, graph: Graph, tensors: Sequence[Tensor], operators: Operators | None) -> Callable[..., Any]:
        """The graph as a function that draws what the loss itself draws, without a guard: `graph` has checked."""
        inputs: list[Any] = [tensor.detach() for tensor in graph.inputs(tensors)]
        if operators is not None:  # copies: the first call is for nothing
            count = len(graph.parameters)
            inputs[:count] = [tensor.clone() for tensor in inputs[:count]]
            inputs += [tensor.clone() for tensor in operators.next()]
        from torch import _inductor  # which takes a second to import

        known = _inductor.list_options()
        options = {name: False for name in ASSERTIONS if name in known} | {"fallback_random": True}
        options["cpp_wrapper"] = all(tensor.device.type == "cpu" for tensor in inputs)
        with taken_back(), quiet(), torch.no_grad(), sound():
            try:
                module = graph.copy() if operators is None else ended(graph, operators, inputs)
                with own_kernels(), called_as_it_is() if by_onednn(module) else nullcontext():
                    run: Callable[..., Any] = _inductor.compile(module, inputs, options=options)
                    run(*inputs)  # what is made when it is first called
            except Exception as error:
                raise NotCompilable(first_line(error)) from error
        return run


def settings_of(networks: nn.Module) -> tuple[Any, ...]:
    """The modules, the numbers and names that they hold, and which parameters learn."""
    plain = (
        (name, value)
        for module in networks.modules()
        for name, value in (("", id(module)), *vars(module).items())
        if isinstance(value, PLAIN)
    )
    return (*plain, *((id(parameter), parameter.requires_grad) for parameter in networks.parameters()))


def _given(run: Callable[..., Any], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """What a graph gives.

    Raises:
        NotTraceable: it does not run.
    """
    try:
        with torch.no_grad():
            return run(*inputs)
    except RuntimeError as error:  # an operator that holds more than its tensors say
        raise NotTraceable(f"its graph does not run, {first_line(error)}") from error
