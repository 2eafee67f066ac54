"""The recursive autoencoder: a sequence as a tree of merged neighbours, the tree found greedily for every datum."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Encoder, Likelihood, Prior
from ppvae.distributions.merge_order import MergeOrder, log_orders
from ppvae.models.beside import side_by_side
from ppvae.models.checks import not_negative
from ppvae.models.encoders import PointMass
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes
from ppvae.networks.recursive import GreedyTree, Unfolding


class RecursiveAutoencoder(nn.Module):
    """tree ~ uniform, z ~ p(z), x ~ p(x | z, tree), with the guide tree = the greedy one, z ~ q(z | x).

    The tree is an order in which the steps of a sequence are merged, two neighbours at a time, until one is left
    (`MergeOrder`). The guide's is the one that merges, step after step, the pair whose merge loses least: a point mass
    on that tree, all of whose orders are equally likely and say the same of x. What its merges lose is a factor of the
    guide: an objective adds it to its loss, and no log-weight and no evidence ever holds it. Socher et al. 2011,
    https://dl.acm.org/doi/10.5555/2145432.2145450

    Args:
        prior: p(z).
        likelihood: p(x | z, tree), of `(..., latent + steps - 1)`: z with the order of the merges behind it.
        encoder: q(z | x), of `(..., steps * features)`.
        tree: finds the tree of x.
        weight: of what the merges lose, in nats per unit of squared length.

    Raises:
        ValueError: a negative weight.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.PointMass)
    >>> story = assemble(*parts, shape=(7, 3), latent=2, story=recursive)
    >>> pyro.poutine.trace(story.guide).get_trace(torch.randn(5, 21)).nodes["tree"]["value"].shape
    torch.Size([5, 6])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, encoder: Encoder, tree: GreedyTree, weight: float = 0.1):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder
        self.tree = tree
        self.weight = not_negative("weight", weight)

    def model(self, x: Tensor) -> Tensor:  # x: (batch, steps * features)
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            tree = pyro.sample("tree", MergeOrder(self.tree.shape[0], like=x))  # (batch, steps - 1)
            z = pyro.sample("z", self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(side_by_side(z, tree)), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        register(self)
        order, pairs, parents = self.tree(x)
        lost = self.tree.cell.loss(pairs, parents).sum(-1)  # (batch)
        order = order.to(x)
        tree = dist.Delta(order, log_density=-log_orders(order), event_dim=1)  # as good as any order that builds it
        structure: Any = {"code": False}  # what readers of codes skip: its numbers are names of places
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("tree", tree, infer=structure)
            pyro.factor("merges", self.weight * lost, has_rsample=True)
            return pyro.sample("z", self.encoder(x))


class Root(nn.Module):
    """The root of a row's tree, `(..., steps * features)` to `(..., hidden)`."""

    def __init__(self, tree: GreedyTree):
        super().__init__()
        self.tree = tree

    def forward(self, x: Tensor) -> Tensor:
        return self.tree(x).parents[..., -1, :]


@dataclass(frozen=True)
class Trees:
    """A family whose encoders climb the tree of their datum, and whose decoders undo one that stands behind z."""

    tree: GreedyTree
    initialisation: networks.initialisation.Initialisation = "default"

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        network = nn.Sequential(Root(self.tree), nn.Linear(self.tree.leaf.out_features, outputs))
        return networks.initialise(network, self.initialisation)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        latent = inputs - (self.tree.shape[0] - 1)
        network = networks.Shaped(Unfolding(self.tree.cell, latent, self.tree.shape, outputs), (inputs,))
        return networks.initialise(network, self.initialisation)


def recursive(
    prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, hidden: int = 64, weight: float = 0.1
) -> RecursiveAutoencoder:
    """tree ~ uniform, z ~ p(z), x ~ p(x | z, tree), with a point mass for a guide: the greedy tree, z = f(its root).

    A datum is a sequence, (steps, features), or a grey image, which is read row by row; each has a tree of its own.
    Socher et al. 2011, https://dl.acm.org/doi/10.5555/2145432.2145450. For the tree that is the same for all, take
    `autoencoder` with the family of networks `Recursive`.

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z, tree).
        encoder: not used: the guide is a point mass.
        sizes: of the data and the code. The family of the networks says more where it is `Recursive`: its size of a
            node, its activation and how its weights start.
        hidden: size of a node under any other family.
        weight: of what the merges of a datum's tree lose, in nats per unit of squared length, nodes being of length 1.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
    >>> assemble(*parts, shape=(7, 3), latent=2, story=recursive).encoder(torch.zeros(5, 21)).mean.shape
    torch.Size([5, 2])
    """
    shape = networks.checks.sequence_shape(sizes.shape, "the recursive story", least=2)
    family = sizes.network if isinstance(sizes.network, networks.Recursive) else networks.Recursive(hidden)
    activation = networks.dense.ACTIVATIONS[family.activation]()
    trees = Trees(GreedyTree(shape, family.hidden, activation, sizes.input_scale), family.initialisation)
    sizes = replace(sizes, network=trees, input_scale=1.0)
    guide = sizes.encoder(PointMass)
    part = sizes.likelihood(likelihood, inputs=sizes.latent + shape[0] - 1)
    return RecursiveAutoencoder(sizes.prior(prior, guide), part, guide, trees.tree, weight)
