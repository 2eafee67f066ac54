"""Parts from their makers: every size that follows from the data and the code is linked by name, and typed nowhere."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Architecture, Encoder, Likelihood, Prior, optional
from ppvae.models.beside import ShiftedBy
from ppvae.models.checks import check_part

Maker = Callable[..., Any]
"""A part's class, or a function or `functools.partial` that makes one."""

LINKED = ("network", "latent", "features", "shape", "x", "encoder")
"""Arguments of parts that follow from the data, the code and the other parts: they are given by name."""


@dataclass(frozen=True)
class Sizes:
    """What a story's parts are made from.

    A prior is made with the latent size, a likelihood and an encoder with a network. Beyond this first argument a part
    gets what its own signature names: `latent`, `features`, `shape`, `x`, a prior the `encoder`, a likelihood of levels
    their largest, `total_count`, or their number, `levels`.

    Args:
        shape: how to look at a datum: `(features,)`, or `(channels, height, width)`, or `(steps, features)`.
        latent: size of a code.
        network: the family that every network comes from.
        input_scale: what an encoder's network multiplies x by (`Observation.input_scale`).
        x: data to start from, `(rows, features)`, for parts that can; nan where a value is missing.
        maximum: the largest level of data that have one.
        classes: number of labels of data that have them.
        output_bias: whether the decoder's output starts at what the mean of `x` asks for, as the likelihood's method
            `output_bias(x)` says (`(rows, features)` to `(outputs * features,)`). Burda et al. 2016,
            https://arxiv.org/abs/1509.00519

    Raises:
        ValueError: a part that cannot be made, or whose call is no distribution of the right event_shape.

    >>> from ppvae.models import encoders, likelihoods
    >>> sizes = Sizes(shape=(8, 8), latent=2, network=networks.MLP([16]))
    >>> sizes.encoder(encoders.DiagonalNormal)(torch.zeros(5, 64)).event_shape
    torch.Size([2])
    >>> sizes.likelihood(likelihoods.Bernoulli)(torch.zeros(5, 2)).event_shape
    torch.Size([64])
    """

    shape: Sequence[int]
    latent: int
    network: Architecture = networks.MLP()
    input_scale: float = 1.0
    x: Tensor | None = None
    maximum: int | None = None
    classes: int | None = None
    output_bias: bool = False

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def filled(self) -> Tensor | None:
        """x with zeros where it is missing, as an encoder sees it."""
        return None if self.x is None else self.x.nan_to_num(nan=0.0)

    @property
    def known_classes(self) -> int:
        """The number of labels, where a story cannot do without."""
        if self.classes is None:
            raise ValueError("this story needs labels: the number of classes should be given, and these data have none")
        return self.classes

    def with_labels(self) -> "Sizes":
        """What a prior made of the encoder is told of data: that labels, equally likely, stand beside them."""
        classes, x = self.known_classes, self.x
        rows = None if x is None else torch.cat([x, x.new_full((len(x), classes), 1 / classes)], dim=-1)
        return replace(self, shape=(self.features + classes,), x=rows)

    def of_latents(self, features: int, network: Architecture) -> "Sizes":
        """Sizes of parts whose data are a layer of latents."""
        return replace(self, shape=(features,), network=network, input_scale=1.0, x=None, maximum=None)

    def prior(self, make: Maker, encoder: Encoder | None = None, latent: int | None = None) -> Prior:
        """p(z) over `latent` dimensions; `encoder` is for a prior that is made of it."""
        latent = latent or self.latent
        part = _made("prior", self._linked(make, latent=latent, encoder=encoder), latent)
        return check_part("prior", part, (), latent)

    def likelihood(self, make: Maker, inputs: int | None = None) -> Likelihood:
        """p(x | z), its network from `inputs` dimensions: the code's, unless something stands beside it."""
        inputs = inputs or self.latent
        make = self._linked(make)
        bare = _made("likelihood", make, nn.Identity())
        outputs: int = optional(bare, "outputs")
        network = self.network.decoder(inputs, self.shape, outputs)
        if self.output_bias:
            network = networks.set_output_bias(network, self._bias(bare, outputs))
        part = _made("likelihood", make, network)
        return check_part("likelihood", part, (1, inputs), self.features)

    def encoder(self, make: Maker, latent: int | None = None, beside: int = 0) -> Encoder:
        """q(z | x) over `latent` dimensions; of x and as many numbers as `beside` says, side by side."""
        latent = latent or self.latent
        make = self._linked(make, latent=latent)
        outputs = optional(_made("encoder", make, nn.Identity()), "outputs")
        total = outputs(latent) if callable(outputs) else outputs * latent
        part = _made("encoder", make, self.encoder_network(total, beside))
        return check_part("encoder", part, (1, self.features + beside), latent)

    def encoder_network(self, outputs: int, beside: int = 0) -> nn.Module:
        """A network from data to `outputs` numbers; from x and `beside` more, side by side, where they are given.

        What stands beside x joins the inputs of a dense network; it shifts x where a family looks at x's shape.
        """
        scale = self.input_scale
        dense = len(self.shape) == 1 or isinstance(self.network, networks.MLP | networks.GatedMLP)
        if beside and dense:
            network = self.network.encoder((self.features + beside,), outputs)
        elif beside:
            door = ShiftedBy(self.features, beside)
            network = nn.Sequential(door, self.network.encoder(self.shape, outputs))
        else:
            network = self.network.encoder(self.shape, outputs)
        if scale == 1:
            return network
        factor = torch.tensor([scale] * self.features + [1.0] * beside) if beside else scale
        return nn.Sequential(networks.Scale(factor), network)

    def _bias(self, likelihood: Any, outputs: int) -> Tensor:
        """Without data zeros, for weights to be loaded into."""
        if optional(likelihood, "output_bias") is None:
            name = type(likelihood).__name__
            raise ValueError(f"output_bias needs a likelihood that has a method output_bias(x); {name} has none")
        return torch.zeros(outputs * self.features) if self.x is None else likelihood.output_bias(self.filled)

    def _linked(self, make: Maker, **known: Any) -> Maker:
        """A maker with every argument bound that its signature names and that can be known here."""
        known = {
            "latent": self.latent,
            "features": self.features,
            "shape": tuple(self.shape),
            "x": self.filled,
            **known,
        }
        if self.maximum is not None:
            known |= {"total_count": self.maximum, "levels": self.maximum + 1}
        given = {k: v for k, v in make.keywords.items() if v is not None} if isinstance(make, partial) else {}
        asked = list(inspect.signature(make).parameters)[1:]  # the first argument is the caller's
        return partial(make, **{name: known[name] for name in asked if name in known and name not in given})


def _made(option: str, make: Maker, argument: Any) -> Any:
    try:
        return make(argument)
    except Exception as error:  # a class of the user's may fail in any way
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"the {option} {_name(make)} could not be made: {' '.join(said.split())}") from error


def _name(make: Maker) -> str:
    while isinstance(make, partial):
        make = make.func
    return str(getattr(make, "__name__", type(make).__name__))
