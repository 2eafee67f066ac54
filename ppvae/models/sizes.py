"""Parts from their makers: every size that follows from the data and the code is linked by name, and typed nowhere."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Architecture, Encoder, Likelihood, Prior

Maker = Callable[..., Any]
"""A part's class, or a function or `functools.partial` that makes one."""


@dataclass(frozen=True)
class Sizes:
    """What a story's parts are made from.

    A prior is made with the latent size, a likelihood and an encoder with a network. Beyond this first argument a part
    gets what its own signature names: `latent`, `features`, `shape`, `x`, and for a prior `encoder`.

    Args:
        shape: how to look at a datum: `(features,)`, or `(channels, height, width)`, or `(steps, features)`.
        latent: size of a code.
        network: the family that every network comes from.
        input_scale: what an encoder's network multiplies x by (`Observation.input_scale`).
        x: data to start from, `(rows, features)`, for parts that can.

    >>> from ppvae.models import guides, likelihoods
    >>> sizes = Sizes(shape=(8, 8), latent=2, network=networks.MLP([16]))
    >>> sizes.encoder(guides.DiagonalNormal)(torch.zeros(5, 64)).event_shape
    torch.Size([2])
    >>> sizes.likelihood(likelihoods.Bernoulli)(torch.zeros(5, 2)).event_shape
    torch.Size([64])
    """

    shape: Sequence[int]
    latent: int
    network: Architecture = networks.MLP()
    input_scale: float = 1.0
    x: Tensor | None = None

    @property
    def features(self) -> int:
        return prod(self.shape)

    def prior(self, make: Maker, encoder: Encoder | None = None, latent: int | None = None) -> Prior:
        """p(z) over `latent` dimensions; `encoder` is for a prior that is made of it."""
        latent = latent or self.latent
        return self._linked(make, latent=latent, encoder=encoder)(latent)

    def likelihood(self, make: Maker, inputs: int | None = None) -> Likelihood:
        """p(x | z), its network from `inputs` dimensions: the code's, unless something stands beside it."""
        make = self._linked(make)
        outputs: int = getattr(make(nn.Identity()), "outputs", 1)
        return make(self.network.decoder(inputs or self.latent, self.shape, outputs))

    def encoder(self, make: Maker, latent: int | None = None) -> Encoder:
        """q(z | x) over `latent` dimensions."""
        latent = latent or self.latent
        make = self._linked(make, latent=latent)
        network = self.network.encoder(self.shape, encoder_outputs(make, latent))
        if self.input_scale != 1:
            network = nn.Sequential(networks.Scale(self.input_scale), network)
        return make(network)

    def _linked(self, make: Maker, **known: Any) -> Maker:
        """A maker with every argument bound that its signature names and that can be known here."""
        own = {"latent": self.latent, "features": self.features, "shape": self.shape, "x": self.x}
        given = make.keywords if isinstance(make, partial) else {}
        asked = list(inspect.signature(make).parameters)[1:]  # the first argument is the caller's
        links = {name: value for name, value in {**own, **known}.items() if name in asked and name not in given}
        return partial(make, **links)


def encoder_outputs(make: Maker, latent: int) -> int:
    """How many network outputs an encoder takes in all: a part knows once it has its arguments."""
    outputs = getattr(make(nn.Identity()), "outputs", 1)
    return outputs(latent) if callable(outputs) else outputs * latent
