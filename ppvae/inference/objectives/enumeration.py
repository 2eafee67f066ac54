"""The ELBO with a sum over the values of discrete latents, by Pyro's enumeration."""

import math
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from opt_einsum import shared_intermediates  # type: ignore[import-untyped]
from pyro.infer import TraceEnum_ELBO, config_enumerate, traceenum_elbo
from pyro.infer.util import Dice
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import MarginalRing, SampleRing
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.objectives.terms import at_least
from ppvae.inference.program.traces import as_batch


def enumerated_elbo(story: Story, data: Batch, *, particles: int = 1, nesting: int = 1) -> Tensor:
    """The ELBO with a sum over every value of the discrete latents, nats per datum.

    Pyro's `TraceEnum_ELBO` divided by the batch. Every site of the guide whose values can be listed is summed over,
    weighted by the guide's probabilities (`infer={"enumerate": None}` leaves it drawn); one of the model alone asks
    with `infer={"enumerate": "parallel"}`, and is summed out of the likelihood. Other sites are drawn, as for `elbo`,
    which this is where there is nothing to sum. Kingma et al. 2014, section 3.1,
    https://arxiv.org/abs/1406.5298

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum of the sites that are drawn.
        nesting: how deep the story's plates go: 1 for the data plate alone, 3 with another one at dim -3.

    Raises:
        ValueError: particles or nesting below 1.
    """
    batch = as_batch(data)
    at_least(1, particles=particles, nesting=nesting)
    pyro_elbo = _TraceEnum(
        num_particles=particles,
        max_plate_nesting=nesting,
        vectorize_particles=True,
        strict_enumeration_warning=False,
    )
    guide = config_enumerate(story.guide, default="parallel")
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        return pyro_elbo.differentiable_loss(story.model, guide, *batch) / len(batch[0])


class _TraceEnum(TraceEnum_ELBO):
    """Pyro's, without its questions to the device: are all probabilities positive, is the loss a number."""

    def differentiable_loss(self, model: Any, guide: Any, *args: Tensor, **kwargs: Any) -> Tensor:
        elbo = args[0].new_zeros((), dtype=torch.result_type(args[0], 1.0))
        for traces in self._get_traces(model, guide, args, kwargs):
            elbo = elbo + _expected(*traces)
        return -elbo / self.num_particles


def _expected(model: Any, guide: Any) -> Any:
    """`traceenum_elbo._compute_dice_elbo`, which cannot be given another `Dice`."""
    costs, log_factors, ordering, sum_dims, scale = traceenum_elbo._compute_model_factors(model, guide)
    if log_factors:
        terms = [term for ordinal in log_factors.values() for term in ordinal]
        sizes = {dim: size for term in terms for dim, size in zip(term._pyro_dims, term.shape, strict=True)}
        with shared_intermediates() as cache:
            summed = contract_tensor_tree(log_factors, sum_dims, ring=SampleRing(cache=cache, dim_to_size=sizes))
        for ordinal, summed_terms in summed.items():
            kept = costs.setdefault(ordinal, [])
            kept.extend(packed.scale_and_mask(term, scale=scale) for term in summed_terms)
    for name, site in guide.nodes.items():
        if site["type"] == "sample":
            costs.setdefault(ordering[name], []).append(packed.neg(site["packed"]["log_prob"]))
    return _Dice(guide, ordering).compute_expectation(costs)


class _Dice(Dice):
    """Pyro's, with the terms of probability 0 masked instead of selected away, whose number only the device knows."""

    def compute_expectation(self, costs: dict[Any, list[Any]]) -> Any:
        with shared_intermediates() as cache:
            ring = MarginalRing(cache=cache)
            return sum(self._at(ring, ordinal, terms) for ordinal, terms in costs.items())

    def _at(self, ring: Any, ordinal: Any, costs: Sequence[Any]) -> Any:
        """The expected cost of one set of plates."""
        found = self._get_log_factors(ordinal)
        scale = math.exp(sum(factor for factor in found if not isinstance(factor, Tensor)))
        log_factors: list[Any] = [factor for factor in found if isinstance(factor, Tensor)]
        queries = _queries(log_factors, costs)
        for query in queries.values():
            require_backward(query)
        sum_dims = set().union(*(factor._pyro_dims for factor in log_factors)) - ordinal
        ring.sumproduct(log_factors, sum_dims)._pyro_backward()
        return scale * sum(_product(queries[frozenset(cost._pyro_dims)], cost) for cost in costs)


def _queries(log_factors: list[Any], costs: Sequence[Any]) -> dict[frozenset[str], Any]:
    """For every set of dims of a cost the factor whose marginal is its probability; one is added where none is."""
    queries: dict[frozenset[str], Any] = {}
    for cost in costs:
        key = frozenset(cost._pyro_dims)
        if key not in queries:
            queries[key] = next((factor for factor in log_factors if frozenset(factor._pyro_dims) == key), None)
        if queries[key] is None:
            log_factors.append(torch.zeros_like(cost))
            log_factors[-1]._pyro_dims = cost._pyro_dims
            queries[key] = log_factors[-1]
    return queries


def _product(query: Any, cost: Any) -> Tensor:
    prob = query._pyro_backward_result.exp()
    prob._pyro_dims = query._pyro_dims
    cost, prob = packed.broadcast_all(cost, prob)
    return (torch.where(prob > 0, cost, 0.0) * prob).sum()  # a value that cannot be drawn may cost infinitely much
