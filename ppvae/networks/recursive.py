"""Networks that go up and down a tree over a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from ppvae.networks.checks import at_least_one, known, sequence_shape
from ppvae.networks.dense import ACTIVATIONS, Activation
from ppvae.networks.initialisation import Initialisation, initialise
from ppvae.networks.wrappers import Shaped


class Merging(nn.Module):
    """From leaves to the root: `(rows, steps, features)` to `(rows, hidden)`, two neighbours at a time."""

    def __init__(self, features: int, hidden: int, activation: nn.Module):
        super().__init__()
        self.leaf = nn.Linear(features, hidden)
        self.merge = nn.Linear(2 * hidden, hidden)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.activation(self.leaf(x))  # (rows, nodes, hidden)
        while nodes.shape[1] > 1:
            paired = nodes.shape[1] // 2 * 2
            merged = self.activation(self.merge(nodes[:, :paired].unflatten(1, (-1, 2)).flatten(2)))
            nodes = torch.cat([merged, nodes[:, paired:]], dim=1)
        return nodes[:, 0]


class Splitting(nn.Module):
    """From the root to leaves, by the tree that `Merging` climbs: `(rows, inputs)` to `(rows, outputs, *shape)`."""

    def __init__(self, inputs: int, hidden: int, activation: nn.Module, shape: tuple[int, int], outputs: int):
        super().__init__()
        self.root = nn.Linear(inputs, hidden)
        self.split = nn.Linear(hidden, 2 * hidden)
        self.leaf = nn.Linear(hidden, outputs * shape[1])
        self.activation = activation
        self.levels = levels(shape[0])
        self.outputs = outputs

    def forward(self, z: Tensor) -> Tensor:
        nodes = self.activation(self.root(z)).unsqueeze(1)  # (rows, nodes, hidden)
        for size in self.levels[-2::-1]:
            parents = size // 2
            split = self.activation(self.split(nodes[:, :parents])).unflatten(-1, (2, -1)).flatten(1, 2)
            nodes = torch.cat([split, nodes[:, parents:]], dim=1)
        return self.leaf(nodes).unflatten(-1, (self.outputs, -1)).movedim(2, 1)


def levels(leaves: int) -> list[int]:
    """How many nodes each level of the tree has, from the leaves to the root.

    >>> levels(5)
    [5, 3, 2, 1]
    """
    return [leaves] if leaves == 1 else [leaves, *levels(ceil(leaves / 2))]


@dataclass(frozen=True)
class Recursive:
    """Recursive networks: one cell at every inner node of a balanced binary tree, for data of shape (steps, features).

    The encoder merges neighbours, h = f(W [left, right] + b), with the same W and b everywhere, until one vector is
    left; on a level of odd size the last node goes up as it is. The decoder splits the code by the mirrored tree,
    [left, right] = f(V h + c). Socher et al. 2011, https://dl.acm.org/doi/10.5555/2145432.2145450 (there the tree is
    searched for; here it is balanced).

    Args:
        hidden: size of a node.
        activation: f.
        initialisation: where the weights start.

    Raises:
        ValueError: for a size below 1 or an unknown name; for a shape that is no sequence of at least 2 steps.

    >>> Recursive(32).encoder(shape=(10, 3), outputs=4)(torch.zeros(5, 30)).shape
    torch.Size([5, 4])
    """

    hidden: int = 128
    activation: Activation = "tanh"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        at_least_one(self, hidden=self.hidden)
        known(self, "activation", self.activation, ACTIVATIONS)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        at_least_one(self, outputs=outputs)
        steps, features = sequence_shape(shape, "Recursive", least=2)
        tree = Merging(features, self.hidden, ACTIVATIONS[self.activation]())
        network = nn.Sequential(Shaped(tree, (steps, features)), nn.Linear(self.hidden, outputs))
        return initialise(network, self.initialisation, self)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        at_least_one(self, inputs=inputs, outputs=outputs)
        shape = sequence_shape(shape, "Recursive", least=2)
        tree = Splitting(inputs, self.hidden, ACTIVATIONS[self.activation](), shape, outputs)
        return initialise(Shaped(tree, (inputs,)), self.initialisation, self)
