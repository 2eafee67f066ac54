"""The objective of a single code: the joint density at the guide's mean."""

from typing import Any

from pyro import poutine
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.program.traces import (
    as_batch,
    check_one_plate,
    is_auxiliary,
    latent_sites,
    run,
    sample_sites,
    support_of,
)
from ppvae.inference.program.weights import joint_trace, sum_sites

HOLLOW = (type(constraints.sphere), type(constraints.corr_cholesky))
"""Supports that do not hold the mean of their own points."""


def maximum_a_posteriori(story: Story, data: Batch) -> Tensor:
    """-log p(x, z) at z = E_q[z | x], nats per datum: MAP by an amortised code, whatever the guide's family.

    Of a guide that is a point mass this is the ELBO. The guide's spread has no part in it and does not learn. No bound
    on log p(x): densities can be made as large as one likes by a code of small scale under a free prior.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.

    Raises:
        ValueError: a latent without a mean that it can take, such as a discrete one.
    """
    batch = as_batch(data)
    with _AtMeans() as means:
        guide = run(story.guide, batch, particles=1)
    if means.without:
        raise ValueError(
            f"every latent should have a mean that it can take, which {', '.join(means.without)} has not: elbo and "
            "enumerated_elbo need none"
        )
    latents = {site["name"]: site["value"] for site in latent_sites(guide) if not is_auxiliary(site)}
    model = joint_trace(story, batch, latents, particles=1)
    check_one_plate(guide, model)
    loss = -_total(model, len(batch[0]))
    return loss + _total(guide, len(batch[0])) if _observed(guide) else loss


def _total(trace: poutine.Trace, batch: int) -> Tensor:
    """The observed sites, which in a model at given latents are all."""
    return sum_sites(_observed(trace), 1, batch, scaled=True).mean()


def _observed(trace: poutine.Trace) -> list[Any]:
    return [site for site in sample_sites(trace) if site["is_observed"]]


class _AtMeans(Messenger):
    """Every latent site takes its mean instead of a draw, and passes its gradient; nothing is read off the device."""

    def __init__(self) -> None:
        super().__init__()
        self.without: list[str] = []  # the sites that have none: Pyro would add its trace to an error raised here

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg) or msg["infer"].get("_deterministic"):
            return
        support = support_of(msg["fn"])
        try:
            if support is not None and (support.is_discrete or isinstance(support, HOLLOW)):
                raise NotImplementedError
            msg["value"], msg["done"] = msg["fn"].mean, True
        except NotImplementedError:
            self.without.append(f"site '{msg['name']}' ({type(msg['fn']).__name__})")
