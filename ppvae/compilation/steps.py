"""Steps of a fit or blocks of an estimate, by the way that ends first: ordinary Python, a replayed graph, compiled."""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from ppvae.compilation.checking import Differs
from ppvae.compilation.compiled import Gradients, NotCompilable
from ppvae.compilation.tracing import Loss, NotTraceable
from ppvae.compilation.update import Update

Compile = Literal["auto", "always", "never"]
Way = Literal["eager", "replayed", "compiled"]

SHORT = 3.0  # seconds: what is shorter is not worth a trace
WARM, TIMED = 2, 5  # steps of a way before its times count, and those that are timed
COMPILING = {True: (8.0, 60.0), False: (2.5, 15.0)}  # seconds, and times a trace's: with gradients, without
COMPILED = {True: 0.7, False: 0.55}  # of a replayed step's time, until it is known


class NotCompiled(UserWarning):
    """A fit or an estimate that goes on another way, since its loss is no graph, or its graph gives something else."""


class Steps:
    """Loss after loss with its gradients, `loss(*tensors).backward()`, and an update, by one way or another.

    Eager is ordinary Python. Replayed, the operators of one step are repeated without what led to them; compiled, they
    are fused too. The three agree to rounding, and draw the same numbers.

    Args:
        loss: of the tensors.
        networks: what it is a function of beside them.
        compile: always, never, or auto: the way that is estimated to end first, after a few steps have been timed.
        left: how many steps there will be.
        way: for auto what was chosen before a stop, if it was.
        say: is told in one line what was chosen, and why.
        backward: whether there are gradients. A value alone is the same by any way: nothing is said of a fall back, but
            where a graph gave another.
        update: what follows the gradients; without one, every parameter's `.grad` is set.
    """

    def __init__(
        self,
        loss: Loss,
        networks: nn.Module,
        compile: Compile = "auto",
        left: int = 0,
        way: Way | None = None,
        say: Callable[[str], None] | None = None,
        backward: bool = True,
        update: Update | None = None,
    ):
        self.networks, self.left, self.say, self.backward, self.update = networks, left, say, backward, update
        self.eager = partial(eager, loss, networks) if backward else loss
        self.gradients = Gradients(loss, networks, backward, update)
        chosen: dict[Compile, Way | None] = {"auto": way, "always": "compiled", "never": "eager"}
        if compile not in chosen:
            raise ValueError(f"compile should be {', '.join(chosen)}, got {compile}")
        self.way = chosen[compile]  # None until it is settled
        self.trial: Way = "eager"
        self.times: dict[Way, list[float]] = {"eager": [], "replayed": []}

    def __call__(self, *tensors: Tensor, whole: bool = True) -> Tensor:
        """The loss of some tensors, before the update.

        Args:
            tensors: the loss's.
            whole: whether they have the size that most have: the others are not worth a compilation of their own.
        """
        self.left -= 1
        if self.way is not None or not whole:
            return self._run(self.way or "eager", tensors, whole)
        start = _now(tensors)
        value = self._run(self.trial, tensors, whole)
        self.times[self.trial].append(_now(tensors) - start)
        if self.way is None and len(self.times[self.trial]) == WARM + TIMED:
            self._choose(tensors)
        return value

    def _run(self, way: Way, tensors: Sequence[Tensor], whole: bool) -> Tensor:
        """By a way, or by the next one that can and that agrees with Python; which it was is said once."""
        reason: Exception | None = None
        while way != "eager":
            compiled = whole and way == "compiled"
            try:
                value = self.gradients(*tensors, compiled=compiled)
                break
            except (NotCompilable, Differs, NotTraceable) as error:
                reason = reason or error
                way = "replayed" if compiled and not isinstance(error, NotTraceable) else "eager"
        else:
            value = self.eager(*tensors)
            if self.update is not None:
                self.update()
        if reason is not None:
            self._give_up(way, reason)
        return value

    def _give_up(self, way: Way, reason: Exception) -> None:
        self.way = way
        if self.backward:
            told = f"this fit is {way}, not compiled: {reason}; compile='never' is silent"
        elif isinstance(reason, Differs):
            told = f"this estimate is {way}, not compiled: {reason}"
        else:
            return
        warnings.warn(told, NotCompiled, stacklevel=5)

    def _choose(self, tensors: Sequence[Tensor]) -> None:
        """Go on to time the graph, or settle the way."""
        step = {way: median(times[WARM:]) for way, times in self.times.items() if times}
        if "replayed" not in step and self.left * step["eager"] < SHORT:
            self.way = "eager"
            return
        try:
            graph = self.gradients.graph(*tensors)
        except NotTraceable as reason:
            self._give_up("eager", reason)
            return
        self.trial = "replayed"
        if "replayed" in step:
            fixed, per_trace = COMPILING[self.backward]
            compiling = fixed + per_trace * graph.seconds
            seconds: dict[Way, float] = {way: self.left * each for way, each in step.items()}
            seconds["compiled"] = compiling + COMPILED[self.backward] * seconds["replayed"]
            self.way = min((each, way) for way, each in seconds.items())[1]
            if self.say is not None:
                self.say(
                    f"this fit is {self.way}: its {self.left:,} steps left take {seconds['eager']:.0f} s eager and "
                    f"{seconds['replayed']:.0f} s replayed, as measured, or {seconds['compiled']:.0f} s compiled, "
                    f"{compiling:.0f} s of them to compile, as estimated"
                )


def eager(loss: Loss, networks: nn.Module, *tensors: Tensor) -> Tensor:
    """A loss with its gradients by ordinary Python."""
    for parameter in networks.parameters():
        parameter.grad = None
    value = loss(*tensors)
    value.backward()
    return value.detach()


def _now(tensors: Sequence[Tensor]) -> float:
    """Seconds, once a device has done what it was told."""
    if tensors[0].device.type != "cpu":
        torch.accelerator.synchronize(tensors[0].device)
    return time.perf_counter()
