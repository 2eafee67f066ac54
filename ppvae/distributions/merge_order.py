"""Orders in which neighbours in a sequence are merged, two at a time."""

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor


class MergeOrder(TorchDistribution):
    """The uniform distribution on the (n - 1)! orders in which n neighbours can be merged until one is left.

    order[t] from 0 to n - 2 - t says where the left one of the pair stands that is merged at step t, among the n - t
    nodes that are then left. An order is a binary tree over the n and says which merge came before which: several
    orders can be of one tree (Catalan's number counts those), whose probability is all of theirs: `log_orders`.

    Args:
        steps: n, at least 2.
        like: a tensor whose dtype and device the draws take; torch's defaults where it is not given.

    Raises:
        ValueError: fewer than 2 steps.

    >>> MergeOrder(4).log_prob(torch.tensor([2.0, 0.0, 0.0]))  # -log 3!
    tensor(-1.7918)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(self, steps: int, like: Tensor | None = None, validate_args: bool | None = None):
        if steps < 2:
            raise ValueError(f"steps should be at least 2, so that there are neighbours to merge, got {steps}")
        like = torch.empty(0) if like is None else like
        self.last = torch.arange(steps - 2, -1, -1, dtype=like.dtype, device=like.device)  # the largest order[t]
        super().__init__(event_shape=self.last.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MergeOrder":
        new: MergeOrder = self._get_checked_instance(MergeOrder, _instance)
        new.last = self.last
        super(MergeOrder, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.independent(constraints.integer_interval(0, self.last), 1)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.last.dtype, device=self.last.device)
        return (u * (self.last + 1)).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return self.last.new_full(shape, -math.lgamma(len(self.last) + 1))

    @property
    def mean(self) -> Tensor:
        """There is none, as for other names: a tree is no amount."""
        return self.last.new_full(self._extended_shape(), torch.nan)


def log_orders(order: Tensor) -> Tensor:
    """The logarithm of how many orders build the same tree as this one, `(..., n - 1)` to `(...)`.

    (n - 1)! over the product, over all inner nodes, of how many inner nodes stand under each and itself: the hook
    length formula for trees. Knuth 1973, The Art of Computer Programming, volume 3, section 5.1.4, exercise 20

    >>> log_orders(torch.tensor([[0, 0, 0], [0, 1, 0]])).exp()  # a chain; two pairs, either of them first
    tensor([1., 2.])
    """
    rows = order.long().reshape(-1, order.shape[-1])
    count = rows.shape[-1]
    real = order.dtype if order.is_floating_point() else torch.get_default_dtype()
    sizes = torch.zeros(len(rows), count + 1, dtype=real, device=order.device)  # inner nodes under every node left
    total = torch.full_like(sizes[:, 0], math.lgamma(count + 1))
    for at in rows.split(1, dim=-1):
        merged = 1 + sizes.gather(1, at) + sizes.gather(1, at + 1)
        place = torch.arange(sizes.shape[1] - 1, device=order.device)
        sizes = sizes.gather(1, place + (place > at)).scatter(1, at, merged)
        total = total - merged.log().squeeze(1)
    return total.reshape(order.shape[:-1])
