"""Several layers of latents, each drawn given the one above it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn import functional

from ppvae import networks
from ppvae.base import Distribution, Likelihood, Prior
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes


class Hierarchical(nn.Module):
    """z_L ~ p(z_L), z_l ~ p(z_l | z_l+1), x ~ p(x | z_1), with the guide z_1 ~ q(z_1 | x), z_l+1 ~ q(z_l+1 | z_l).

    The sites are z1, the closest to x, up to zL. Burda et al. 2016, https://arxiv.org/abs/1509.00519. Their network of
    two stochastic layers is this story with 100 and 50 latents, networks of two hidden layers of 200 units between x
    and z1 and of 100 units between z1 and z2, all tanh: `stories.hierarchical` with `latent=100`, `above=[50]`,
    `between=[100, 100]` and `networks.MLP([200, 200])` with tanh.

    Args:
        prior: p(z_L).
        conditionals: p(z_l | z_l+1) as modules from z_l+1 to a distribution, p(z_1 | z_2) first.
        likelihood: p(x | z_1).
        encoders: q(z_1 | x), then q(z_l+1 | z_l), one for every layer.

    Raises:
        ValueError: no layer, or conditionals that do not lie between as many layers as there are encoders.

    >>> from ppvae import networks
    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = Hierarchical(
    ...     prior=priors.StandardNormal(2),
    ...     conditionals=[encoders.DiagonalNormal(networks.mlp(2, [8], 8))],
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(4, [8], 3)),
    ...     encoders=[encoders.DiagonalNormal(networks.mlp(n, [8], 2 * m)) for n, m in ((3, 4), (4, 2))],
    ... )
    >>> [pyro.poutine.trace(story.guide).get_trace(torch.ones(5, 3)).nodes[z]["value"].shape[1] for z in ("z1", "z2")]
    [4, 2]
    """

    @property
    def prior_site(self) -> str:
        """The latent that the prior is of: the top one."""
        return f"z{len(self.conditionals) + 1}"

    def __init__(
        self, prior: Prior, conditionals: Sequence[nn.Module], likelihood: Likelihood, encoders: Sequence[nn.Module]
    ):
        super().__init__()
        check_layers(len(encoders), len(conditionals))
        self.prior = prior
        self.conditionals = nn.ModuleList(conditionals)
        self.likelihood = likelihood
        self.encoders = nn.ModuleList(encoders)

    def model(self, x: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            z = descend(self.prior, self.conditionals)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            below = x
            for layer, encoder in enumerate(self.encoders, start=1):
                below = pyro.sample(f"z{layer}", encoder(below))  # (batch, latent of this layer)


class LayerNormal(nn.Module):
    """p(z_l | z_l+1) = N(m, diag s^2), where network(z_l+1) is (m, r) side by side and s = log(1 + exp r) + 1e-4.

    A scale that grows as the network's outputs do: an exponential in every layer would overflow down a hierarchy.

    Args:
        network: `(..., latent above)` to `(..., 2 * latent)`.

    >>> LayerNormal(torch.nn.Linear(3, 4))(torch.zeros(5, 3)).event_shape
    torch.Size([2])
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Distribution:
        loc, raw = self.network(z).chunk(2, dim=-1)
        return dist.Normal(loc, functional.softplus(raw) + 1e-4).to_event(1)


def descend(prior: Prior, conditionals: nn.ModuleList) -> Tensor:
    """Draw every layer from the top down; z1."""
    z = pyro.sample(f"z{len(conditionals) + 1}", prior())
    for layer in range(len(conditionals), 0, -1):
        z = pyro.sample(f"z{layer}", conditionals[layer - 1](z))
    return z


def check_layers(encoders: int, conditionals: int) -> None:
    """Refuse counts that make no hierarchy."""
    if encoders < 1 or conditionals != encoders - 1:
        raise ValueError(
            "a hierarchy should have at least 1 layer and a conditional between every two; "
            f"got {encoders} and {conditionals}"
        )


def hierarchical(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    above: Sequence[int] = (4,),
    between: Sequence[int] = (100,),
) -> Hierarchical:
    """z_L ~ p(z_L), z_l ~ p(z_l | z_l+1), x ~ p(x | z_1), with the guide z_1 ~ q(z_1 | x), z_l+1 ~ q(z_l+1 | z_l).

    Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Args:
        prior: makes p(z_L).
        likelihood: makes p(x | z_1).
        encoder: makes q(z_1 | x), and q(z_l+1 | z_l).
        sizes: of the data and the code, and the family of the networks.
        above: size of every layer above the first, whose size is `latent`.
        between: hidden layers of the networks from a layer to the one above it; those down are in reverse.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> len(assemble(*parts, shape=(3,), latent=2, story=hierarchical).encoders)
    2
    """
    dense = dense_between(sizes, between)
    encoders: list[Any] = [sizes.encoder(encoder)]
    for below, latent in pairwise([sizes.latent, *above]):
        encoders.append(sizes.of_latents(below, dense).encoder(encoder, latent))
    top = sizes if not above else sizes.of_latents([sizes.latent, *above][-2], dense)
    return Hierarchical(
        top.prior(prior, encoders[-1], latent=[sizes.latent, *above][-1]),
        conditionals_of(sizes, above, dense),
        sizes.likelihood(likelihood),
        encoders,
    )


def dense_between(sizes: Sizes, hidden: Sequence[int]) -> networks.MLP:
    """Networks between layers of latents: with the activation of the others, where these are dense too."""
    family = sizes.network if isinstance(sizes.network, networks.MLP) else networks.MLP()
    return replace(family, hidden=hidden)


def conditionals_of(sizes: Sizes, above: Sequence[int], network: networks.MLP) -> list[nn.Module]:
    """p(z_l | z_l+1) for every two layers, p(z_1 | z_2) first."""
    layers = pairwise([sizes.latent, *above])
    return [LayerNormal(network.decoder(latent, (below,), 2)) for below, latent in layers]
