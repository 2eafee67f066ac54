"""A hierarchy whose guide goes down it, as the model does: a ladder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Distribution, Likelihood, Prior
from ppvae.models.hierarchical import check_layers, conditionals_of, dense_between, descend
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes


class Ladder(nn.Module):
    """The same model; the guide goes down it, and joins what x says of each layer with what the layer above says.

    Upwards, d_l = network(d_l-1) from d_0 = x, and a message N(m_l, s_l^2) is read off each d_l. Downwards, z_L is
    drawn from its message, and z_l from the product of its message with the model's own p(z_l | z_l+1), two Normals
    whose precisions add up. Sønderby et al. 2016, https://arxiv.org/abs/1602.02282; their batch normalisation is a
    network's own affair, and their warm-up an objective's.

    Args:
        prior: p(z_L).
        conditionals: p(z_l | z_l+1), diagonal Normals, as modules from z_l+1; p(z_1 | z_2) first.
        likelihood: p(x | z_1).
        networks: d_1 from x, then d_l+1 from d_l, one for every layer.
        messages: N(m_l, s_l^2), diagonal Normals, as modules from d_l, one for every layer.

    Raises:
        ValueError: no layer, or another number of conditionals, networks or messages than the layers ask for.

    >>> from ppvae import networks
    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = Ladder(
    ...     prior=priors.StandardNormal(2),
    ...     conditionals=[encoders.DiagonalNormal(networks.mlp(2, [8], 8))],
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(4, [8], 3)),
    ...     networks=[networks.mlp(3, [8], 6), networks.mlp(6, [8], 6)],
    ...     messages=[encoders.DiagonalNormal(networks.mlp(6, [], 8)), encoders.DiagonalNormal(networks.mlp(6, [], 4))],
    ... )
    >>> pyro.poutine.trace(story.guide).get_trace(torch.ones(5, 3)).nodes["z1"]["value"].shape
    torch.Size([5, 4])
    """

    @property
    def prior_site(self) -> str:
        """The latent that the prior is of: the top one."""
        return f"z{len(self.conditionals) + 1}"

    def __init__(
        self,
        prior: Prior,
        conditionals: Sequence[nn.Module],
        likelihood: Likelihood,
        networks: Sequence[nn.Module],
        messages: Sequence[nn.Module],
    ):
        super().__init__()
        check_layers(len(messages), len(conditionals))
        if len(networks) != len(messages):
            raise ValueError(f"a ladder should have one network a message, got {len(networks)} and {len(messages)}")
        self.prior = prior
        self.conditionals = nn.ModuleList(conditionals)
        self.likelihood = likelihood
        self.networks = nn.ModuleList(networks)
        self.messages = nn.ModuleList(messages)

    def model(self, x: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            z = descend(self.prior, self.conditionals)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            *messages, top = self.upwards(x)
            z = pyro.sample(f"z{len(self.messages)}", top)
            for layer in range(len(messages), 0, -1):
                z = pyro.sample(f"z{layer}", product(messages[layer - 1], self.conditionals[layer - 1](z)))

    def upwards(self, x: Tensor) -> list[Distribution]:
        """What x says of each layer: z1 first."""
        found = []
        for network, message in zip(self.networks, self.messages, strict=True):
            x = network(x)
            found.append(message(x))
        return found


def product(first: Distribution, second: Distribution) -> Distribution:
    """The Normal proportional to the product of two: N(m_1, v_1) N(m_2, v_2), element by element.

    Its precision is 1 / v_1 + 1 / v_2, and its mean theirs weighted by their precisions.

    >>> half = product(dist.Normal(torch.zeros(1), 1.0).to_event(1), dist.Normal(torch.ones(1), 1.0).to_event(1))
    >>> half.mean, half.variance
    (tensor([0.5000]), tensor([0.5000]))
    """
    one, other = _normal(first), _normal(second)
    both = torch.hypot(one.scale, other.scale)
    share, rest = (other.scale / both).square(), (one.scale / both).square()  # of the two precisions in their sum
    return dist.Normal(share * one.loc + rest * other.loc, one.scale * other.scale / both).to_event(1)


def _normal(fn: Any) -> Any:
    inner = getattr(fn, "base_dist", fn)
    if not isinstance(inner, dist.Normal):
        raise ValueError(f"a ladder joins diagonal Normals, such as DiagonalNormal gives; got {type(inner).__name__}")
    return inner


def ladder(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    above: Sequence[int] = (4,),
    between: Sequence[int] = (100,),
) -> Ladder:
    """The `hierarchical` model, with the guide z_L ~ q(z_L | x), z_l ~ q(z_l | x) p(z_l | z_l+1) / norm, down it.

    Sønderby et al. 2016, https://arxiv.org/abs/1602.02282

    Args:
        prior: makes p(z_L).
        likelihood: makes p(x | z_1).
        encoder: makes q(z_l | x), a diagonal Normal, for every layer.
        sizes: of the data and the code, and the family of the networks.
        above: size of every layer above the first, whose size is `latent`.
        between: layers of the networks upwards from one layer to the next, the last of which a layer's message is
            read off; hidden layers of those down, in reverse.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> len(assemble(*parts, shape=(3,), latent=2, story=ladder).messages)
    2
    """
    if not between:
        raise ValueError("between should hold at least 1 layer, of which a ladder's messages are read off; got none")
    latents, width, dense = [sizes.latent, *above], between[-1], dense_between(sizes, between)
    upwards = [sizes.encoder_network(width), *(dense.encoder((width,), width) for _ in above)]
    upwards = [nn.Sequential(network, networks.dense.ACTIVATIONS[dense.activation]()) for network in upwards]
    flat = sizes.of_latents(width, replace(dense, hidden=()))
    messages: list[Any] = [flat.encoder(encoder, latent) for latent in latents]
    return Ladder(
        sizes.prior(prior, nn.Sequential(*upwards, messages[-1]), latent=latents[-1]),
        conditionals_of(sizes, above, dense),
        sizes.likelihood(likelihood),
        upwards,
        messages,
    )
