"""The distribution of a sequence whose steps are drawn one after another."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

Conditional: TypeAlias = Callable[[Tensor, Tensor | None, Any], tuple[Any, Any]]
"""`(code, past, state)` to the distributions of the next steps and the next state.

Without a state it is the start: there is one distribution for the first step, and one for the step after each of
`past`, `(..., t, features)`, which may be None; with one, `past` is what came since. The distributions have
batch_shape `(..., number of them)` and event_shape `(features,)`.
"""


class Autoregressive(TorchDistribution):
    """p(x | code) = prod_t p(x_t | x_1, ..., x_t-1, code) over rows of `steps * features` numbers.

    The density is that of teacher forcing, all steps at once; a draw goes step by step.

    Args:
        conditional: p(x_t | ...), see `Conditional`.
        code: `(..., size)`, what every step is given.
        steps: in a row.
        features: of a step.
        lengths: `(...)`, how many steps of each row there are, at least 1; those behind count nothing, whatever is
            written there, and are zero in a draw. The densities of one length sum to one.
        point: which value stands for a step in `mean`.

    >>> def conditional(code, past, state):
    ...     before = code[..., None, :] if past is None else past
    ...     if past is not None and state is None:
    ...         before = torch.cat([code[..., None, :], past], dim=-2)
    ...     return pyro.distributions.Normal(before, 1.0).to_event(1), True
    >>> walk = Autoregressive(conditional, torch.zeros(5, 1), steps=3, features=1)
    >>> walk.sample().shape, walk.log_prob(torch.zeros(5, 3)).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"code": constraints.real_vector}
    has_rsample = False

    def __init__(
        self,
        conditional: Conditional,
        code: Tensor,
        steps: int,
        features: int,
        lengths: Tensor | None = None,
        point: Literal["mean", "mode"] = "mean",
        validate_args: bool | None = None,
    ):
        self.conditional, self.steps, self.features, self.point = conditional, steps, features, point
        leading = code.shape[:-1] if lengths is None else torch.broadcast_shapes(code.shape[:-1], lengths.shape)
        self.code = code.expand(*leading, -1)
        self.lengths = None if lengths is None else lengths.expand(leading)
        super().__init__(leading, Size([steps * features]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Autoregressive":
        new: Autoregressive = self._get_checked_instance(Autoregressive, _instance)
        lengths = None if self.lengths is None else self.lengths.expand(batch_shape)
        code = self.code.expand(*batch_shape, -1)
        Autoregressive.__init__(
            new, self.conditional, code, self.steps, self.features, lengths, self.point, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        first, _ = self.conditional(self.code, None, None)
        return constraints.independent(Steps(first.support, self.features, self.valid), 1)

    @property
    def valid(self) -> Tensor:
        """Which steps there are, `(..., steps)`."""
        return valid_steps(self.lengths, self.steps, self.code.device)

    @property
    def mean(self) -> Tensor:
        """Not the mean of p(x), which has no closed form: a row whose every step is the mean given those before it.

        With `point="mode"`, its mode given those before it: what is called greedy decoding.
        """
        return self._rolled_out(lambda step: getattr(step, self.point), ())

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._rolled_out(lambda step: step.sample(), sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        valid = self.valid
        x = without_padding(value.unflatten(-1, (self.steps, self.features)), valid)
        steps, _ = self.conditional(self.code, x[..., :-1, :], None)
        log_prob = _fitted_to(valid, steps).log_prob(x)  # (..., steps)
        return torch.where(valid, log_prob, torch.zeros_like(log_prob)).sum(-1)

    def _rolled_out(self, choose: Callable[[Any], Tensor], sample_shape: Any) -> Tensor:
        """A row of which each step is chosen given those before it."""
        code = self.code.expand(*sample_shape, *self.code.shape)
        past, state, row = None, None, []
        for _ in range(self.steps):
            step, state = self.conditional(code, past, state)
            past = choose(step).to(code.dtype)  # (..., 1, features)
            row.append(past)
        x = torch.cat(row, dim=-2)
        return torch.where(self.valid.unsqueeze(-1), x, torch.zeros_like(x)).flatten(-2)


class Steps(constraints.Constraint):
    """Of a row of steps, the constraint of each of them; what stands behind the last one is free."""

    event_dim = 0

    def __init__(self, step: Any, features: int, valid: Tensor):
        while isinstance(step, constraints.independent):
            step = step.base_constraint
        self.step, self.features, self.valid = step, features, valid
        self.is_discrete = step.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        x = value.unflatten(-1, (-1, self.features))
        inside = self.step.check(x)
        inside = inside if self.step.event_dim == 0 else inside.unsqueeze(-1).expand_as(x)
        return (inside | ~self.valid.unsqueeze(-1)).flatten(-2)

    def __repr__(self) -> str:
        return str(self.step)


def valid_steps(lengths: Tensor | None, steps: int, device: torch.device) -> Tensor:
    """Which steps there are, `(..., steps)`: all of them where there are no lengths."""
    place = torch.arange(steps, device=device)
    return place < (steps if lengths is None else lengths.unsqueeze(-1))


def _fitted_to(valid: Tensor, steps: Any) -> Any:
    """The steps' distributions: where they are fitted to what they score, to the steps there are alone."""
    elements: Any = getattr(steps, "base_dist", None)
    if not hasattr(elements, "observed"):
        return steps
    return elements.observed(valid.unsqueeze(-1)).to_event(1)


def without_padding(x: Tensor, valid: Tensor) -> Tensor:
    """Every step behind the last one replaced by the first, `(..., steps, features)`.

    So what is written there has no part in any value or gradient, were it not a number.
    """
    return torch.where(valid.unsqueeze(-1), x, x[..., :1, :])
