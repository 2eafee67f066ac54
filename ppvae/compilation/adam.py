"""Adam by torch's one fused operator, without what its own `step` looks up anew at every call; and as a graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BESIDE = ("weight_decay", "amsgrad", "maximize")  # what a group of torch's may ask for beside Adam


class Adam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)`, the same to the last bit, in less time: a step of a small network is short."""

    def __init__(
        self,
        parameters: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        groups = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        kinds = {(p.dtype, p.device) for parameters in groups for p in parameters}
        begun = all(self.state[p] for parameters in groups for p in parameters)
        if closure is not None or len(kinds) > 1 or not begun:
            return super().step(closure)
        for group, parameters in zip(self.param_groups, groups, strict=True):
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            first, second, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            torch._foreach_add_(steps, torch.ones(()) if steps[0].is_cpu else 1)  # 1 would be made a tensor for each
            torch._fused_adam_(
                parameters,
                [p.grad for p in parameters],
                first,
                second,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None


class Operators:
    """A step of an `Adam` as operators that a graph can end with: to rounding, what it does by `.grad`.

    Each parameter moves as soon as its gradient is known, while that is still in the processor's cache. Between two
    steps torch is not called: what it calls is out of the cache after a step, and slow.

    Args:
        optimizer: one for which `has_operators` holds.
        parameters: those that have a gradient.
        clip: largest norm that the gradients may have together; any, where it is not given.
    """

    def __init__(self, optimizer: Adam, parameters: Sequence[Tensor], clip: float | None = None):
        self.group, self.clip = optimizer.param_groups[0], clip
        states = [optimizer.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            if not state:
                zeros = [torch.zeros_like(p, memory_format=torch.preserve_format) for _ in range(2)]
                state.update(step=torch.zeros(()), exp_avg=zeros[0], exp_avg_sq=zeros[1])
        steps, numbers = torch.stack([state["step"] for state in states]), torch.zeros(2, dtype=parameters[0].dtype)
        for state, step in zip(states, steps, strict=True):
            state["step"] = step
        self.steps, self.numbers = steps.numpy().data, numbers.numpy().data  # the same memory
        self.inputs = [steps, numbers, *(state[name] for name in ("exp_avg", "exp_avg_sq") for state in states)]

    def next(self) -> list[Tensor]:
        """What the next step needs beside the parameters and their gradients."""
        (beta1, beta2), step = self.group["betas"], self.steps[0] + 1
        self.numbers[0] = float(self.group["lr"]) / (1 - beta1**step)
        self.numbers[1] = (1 - beta2**step) ** -0.5
        return self.inputs

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        """In place, of tensors that stand for the true ones. Kingma & Ba 2015, https://arxiv.org/abs/1412.6980"""
        (beta1, beta2), eps = self.group["betas"], self.group["eps"]
        steps, (rate, correction), *kept = inputs
        if self.clip is not None:
            norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
            share = (self.clip / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ has it
            gradients = [gradient * share for gradient in gradients]
        for place, (p, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            first, second = kept[place :: len(parameters)]
            first.copy_(first + (gradient - first) * (1 - beta1))
            second.copy_(second * beta2 + (1 - beta2) * gradient * gradient)
            p.copy_(p - rate * (first / (second.sqrt() * correction + eps)))
        steps.copy_(steps + 1)


def has_operators(optimizer: Adam, parameters: Sequence[Tensor]) -> bool:
    """Whether `Operators` are this optimiser: of one group, which has them all, and one count of steps; on a processor.

    On a GPU the fused operator is one kernel already, and a step's numbers would have to be copied there.
    """
    steps = [state["step"] if (state := optimizer.state.get(p)) else 0.0 for p in parameters]
    return (
        len(optimizer.param_groups) == 1
        and {id(p) for p in parameters} <= {id(p) for p in optimizer.param_groups[0]["params"]}
        and not any(optimizer.param_groups[0][name] for name in BESIDE)
        and len({float(step) for step in steps}) == 1
        and {p.device.type for p in parameters} == {"cpu"}
        and {p.dtype for p in parameters} in ({torch.float32}, {torch.float64})
    )
