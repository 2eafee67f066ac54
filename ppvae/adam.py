"""Adam by torch's one fused operator, without what its own `step` looks up anew at every call."""

from typing import Any

import torch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)`, the same to the last bit, in less time: a step of a small network is short."""

    def __init__(self, parameters: Any, lr: float):
        super().__init__(parameters, lr=lr, fused=True)

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
            torch._foreach_add_(steps, 1)
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
