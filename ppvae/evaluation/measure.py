"""What is measured of a fitted story beside its evidence, on the test split."""

import math
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ppvae.base import optional
from ppvae.data import Dataset
from ppvae.evaluation import metrics
from ppvae.inference.program.codes import (
    decode,
    encode,
    is_deterministic,
    prior_variance,
    reconstruct,
    reconstruction_log_likelihood,
    sample,
)
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import batch_for, evaluating, is_point_mass, latent_sites
from ppvae.inference.program.weights import latent_densities

PAIRED = 500  # data of which every draw is weighed under every other's posterior


class Untold(Exception):
    """The story has no code for a datum whose label it is not told."""


def representation(story: Any, data: Dataset) -> dict[str, float]:
    """Reconstruction, and what the codes hold; nan for what a story or the data do not have.

    A code that was told its label says nothing of what x tells: a story that takes labels is told none here, and one
    that cannot do without has no accuracies.
    """
    told = {split: batch_for(story, **data.tensors(split)) for split in ("train", "test")}
    test = told["test"]
    found = {
        "reconstruction": metrics.reconstruction_error(data.test, reconstruct(story, test), data.observation.contrast),
        "neg_log_likelihood": -reconstruction_log_likelihood(story, test).mean().item(),
        "active_units": _active(story, test),
        **_divergences(story, test),
        "neighbour": math.nan,
        "probe": math.nan,
    }
    if data.train_labels is not None and data.test_labels is not None:
        with suppress(Untold):
            seen = {split: encode(story, untold(story, data.tensors(split))) for split in told}
            labelled = (seen["train"], data.train_labels, seen["test"], data.test_labels)
            found["neighbour"] = metrics.neighbour_accuracy(*labelled)
            found["probe"] = metrics.probe_accuracy(*labelled)
    return found


def regularity(story: Any, data: Dataset) -> dict[str, float]:
    """How regular the latent space is: continuity along paths between codes, completeness of x ~ p(x | z), z ~ p(z).

    Along the paths, what else a story is given, labels or a tree, is that of the first test datum.
    """
    batch = batch_for(story, **data.tensors("test"))
    found = {"continuity": math.nan, "precision": math.nan, "recall": math.nan}
    if len(data.test) < 2:
        return found

    def decoded(z: Tensor) -> Tensor:
        return decode(story, tuple(part[:1].expand(len(z), *part.shape[1:]) for part in batch), z=z)

    found["continuity"] = metrics.continuity(decoded, *metrics.interpolation_pairs(encode(story, batch)))
    if len(data.test) > metrics.NEIGHBOURS and not data.observation.missing:
        with suppress(NotImplementedError):  # a prior that cannot be drawn from
            samples = sample(story, batch)
            if samples.isfinite().all():
                found["precision"], found["recall"] = metrics.completeness(data.test.to(samples), samples)
    return found


def completeness_of_training_data(data: Dataset) -> metrics.Completeness | None:
    """Precision and recall of as many training data as there are test data; None where there are too few."""
    train, test = data.drawn().train[: len(data.test)], data.test
    if len(train) <= metrics.NEIGHBOURS or len(test) <= metrics.NEIGHBOURS or data.observation.missing:
        return None
    return metrics.completeness(test, train)


def kl_per_dimension(story: Any, batch: tuple[Tensor, ...]) -> Tensor | None:
    """E_x KL(q(z_i | x) || p(z_i)), `(latent,)` nats, largest first; None where it does not fall apart into these.

    It does where a story has one latent site, and its prior and its guide have independent dimensions.
    """
    with evaluating(story), own_generators(), torch.no_grad():
        guide = poutine.trace(story.guide).get_trace(*batch)
        model = poutine.trace(poutine.replay(story.model, trace=guide)).get_trace(*batch)
    names = [site["name"] for site in latent_sites(guide)]
    if len(names) != 1 or is_point_mass(guide.nodes[names[0]]["fn"]):
        return None
    try:
        found = metrics.kl_per_dimension(*(trace.nodes[names[0]]["fn"] for trace in (guide, model)))
    except (ValueError, NotImplementedError):
        return None
    return found.sort(descending=True).values


def _active(story: Any, batch: tuple[Tensor, ...]) -> float:
    """Active units on the scale of the prior; of the codes' mean variance where a flat prior has none."""
    z = encode(story, batch)
    spread = prior_variance(story, batch)
    return metrics.active_units(z, z.var(dim=0, correction=0).mean() if spread is None else spread)


def _divergences(story: Any, batch: tuple[Tensor, ...]) -> dict[str, float]:
    """KL(q(z|x) || p(z)) and its two parts; nan for a point mass, which has no density, and under a flat prior."""
    names = ("kl", "mutual_information", "aggregate_gap")
    if is_deterministic(story, batch) or prior_variance(story, batch) is None:
        return dict.fromkeys(names, math.nan)
    with evaluating(story), own_generators():
        torch.manual_seed(0)
        log_q, log_p = latent_densities(story, tuple(part[:PAIRED] for part in batch))
    information = metrics.mutual_information(log_q).value
    gap = metrics.aggregate_gap(log_q, log_p).value
    return dict(zip(names, (information + gap, information, gap), strict=True))


def untold(story: Any, tensors: dict[str, Any]) -> tuple[Any, ...]:
    """The batch with every label hidden.

    Raises:
        Untold: the story cannot do without.
    """
    batch = batch_for(story, **tensors)
    if not any(part is tensors["labels"] for part in batch[1:]):
        return batch
    if not optional(story, "labels_may_miss"):
        raise Untold
    return batch_for(story, **tensors | {"labels": torch.full_like(tensors["labels"], -1)})
