"""Gradients by way of a graph, replayed operator by operator or compiled: a loss's own, to rounding."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._inductor
from torch import Tensor, fx, nn

from ppvae.tracing import Graph, Loss, NotTraceable, first_line, quiet, trace

PLAIN = (bool, int, float, str, type(None))
GRAPHS = 8  # of one loss: beyond it, numbers in the modules keep changing, and a graph would never be used again
ASSERTIONS = ("alignment_asserts", "scalar_asserts", "size_asserts")  # of a graph's inputs at every call


class NotCompilable(RuntimeError):
    """A graph can be replayed here and not compiled: for want of a C++ compiler, most often."""


class Gradients:
    """`loss(*tensors).backward()` by way of a graph: the loss is returned, `.grad` set, buffers moved.

    The same generator gives the same draws, so that the two agree to rounding. A graph holds for the shapes, dtypes and
    devices of the tensors, for what learns, and for the numbers and names that the modules hold, their mode among them:
    each combination has its own. `refresh` takes up what was changed in the modules.

    Args:
        loss: of the tensors.
        networks: what it is a function of beside them.
        backward: whether gradients are wanted; else the value alone, and `.grad` stays as it is.
    """

    def __init__(self, loss: Loss, networks: nn.Module, backward: bool = True):
        self.loss, self.networks, self.backward = loss, networks, backward
        self.graphs: dict[Any, Graph] = {}
        self.settings: dict[Any, int] = {}  # to a number, which is hashed in no time
        self.refresh()

    def refresh(self) -> None:
        self.setting = self.settings.setdefault(settings_of(self.networks), len(self.settings))

    def __call__(self, *tensors: Tensor, compiled: bool = True) -> Tensor:
        """The loss of some tensors, by its compiled graph or by the graph as it was traced, operator by operator.

        Raises:
            NotTraceable, NotCompilable: it cannot be; no gradient and no buffer has changed then.
        """
        graph = self.graph(*tensors)
        if compiled and graph.compiled is None:
            graph.compiled = self._compile(graph, tensors)
        run = graph.compiled if compiled and graph.compiled is not None else graph.module
        with torch.no_grad():
            try:
                loss, *results = run(*graph.inputs(tensors))
            except RuntimeError as error:  # an operator that holds more than its tensors say
                raise NotTraceable(f"its graph does not run, {first_line(error)}") from error
            for parameter, slope in zip(graph.reached, results, strict=False):
                parameter.grad = slope
            for buffer, moved in zip(graph.moved, results[len(graph.reached) :], strict=True):
                buffer.copy_(moved)
        for parameter in graph.others:
            parameter.grad = None
        return loss

    def graph(self, *tensors: Tensor) -> Graph:
        """The graph for tensors like these, traced where there is none yet."""
        key = (self.setting, *((part.shape, part.dtype, part.device) for part in tensors))
        if key not in self.graphs:
            if len(self.graphs) == GRAPHS:
                raise NotTraceable("a number that a module holds changes again and again: a buffer may")
            self.graphs[key] = trace(self.loss, self.networks, tensors, self.backward)
        return self.graphs[key]

    def _compile(self, graph: Graph, tensors: Sequence[Tensor]) -> Callable[..., Any]:
        """The graph as a function that draws what the loss itself draws, without a guard: `graph` has checked."""
        known = torch._inductor.list_options()
        options = {name: False for name in ASSERTIONS if name in known} | {"fallback_random": True}
        options["cpp_wrapper"] = all(tensor.device.type == "cpu" for tensor in graph.inputs(tensors))
        module = fx.GraphModule(graph.module, copy.deepcopy(graph.module.graph))  # which compiling changes
        inputs: list[Any] = [tensor.detach() for tensor in graph.inputs(tensors)]
        with _undone(), quiet(), torch.no_grad():
            try:
                run: Callable[..., Any] = torch._inductor.compile(module, inputs, options=options)
                run(*inputs)  # for nothing: what is made when it is first called
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


@contextmanager
def _undone() -> Iterator[None]:
    """Draws are taken back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        yield
