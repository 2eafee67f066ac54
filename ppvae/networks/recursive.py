"""Networks that go up and down a tree over a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppvae.networks.checks import at_least_one, known, sequence_shape
from ppvae.networks.dense import ACTIVATIONS, Activation
from ppvae.networks.initialisation import Initialisation, initialise
from ppvae.networks.wrappers import Scale, Shaped

SHORTEST = 1e-3  # a vector below this length has no direction: to divide by it would blow up its gradient


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


class Cell(nn.Module):
    """Two neighbours to their parent, h = f(W [left, right] + b), and a parent back to two, [left, right] = f(V h + c).

    Every node is divided by its length, so that what a merge loses cannot be made small by small nodes. Socher et al.
    2011, https://dl.acm.org/doi/10.5555/2145432.2145450

    Args:
        hidden: size of a node, at least 2.
        activation: f.

    Raises:
        ValueError: nodes of a single number, which have no direction.

    >>> cell = Cell(4, nn.Tanh())
    >>> cell.split(cell.merge(torch.ones(5, 2, 4))).shape
    torch.Size([5, 2, 4])
    """

    def __init__(self, hidden: int, activation: nn.Module):
        super().__init__()
        if hidden < 2:
            raise ValueError(f"hidden should be at least 2, so that a node of length one can tell, got {hidden}")
        self.merging = nn.Linear(2 * hidden, hidden)
        self.splitting = nn.Linear(hidden, 2 * hidden)
        self.activation = activation

    def node(self, h: Tensor) -> Tensor:
        h = self.activation(h)
        length = h.norm(dim=-1, keepdim=True)
        return h / torch.where(length < SHORTEST, 1, length)

    def merge(self, pair: Tensor) -> Tensor:
        """`(..., 2, hidden)` to `(..., hidden)`."""
        return self.node(self.merging(pair.flatten(-2)))

    def split(self, node: Tensor) -> Tensor:
        """`(..., hidden)` to `(..., 2, hidden)`."""
        return self.node(self.splitting(node).unflatten(-1, (2, -1)))

    def loss(self, pair: Tensor, parent: Tensor) -> Tensor:
        """||pair - split(parent)||^2, of `(..., 2, hidden)` and `(..., hidden)`: `(...)`."""
        return (pair - self.split(parent)).square().sum((-2, -1))


class Climbed(NamedTuple):
    """What was merged on the way up a tree, from the first merge to the last."""

    order: Tensor  # (..., steps - 1): where the left one of the pair stood
    pairs: Tensor  # (..., steps - 1, 2, hidden)
    parents: Tensor  # (..., steps - 1, hidden): the last is the root


class GreedyTree(nn.Module):
    """The tree that merges, step after step, the two neighbours whose merge loses least, and what lies on its way up.

    No gradient goes through the choice of a pair, where the leftmost wins a tie; it goes through all that is merged.
    Socher et al. 2011, https://dl.acm.org/doi/10.5555/2145432.2145450

    Args:
        shape: (steps, features), of at least 2 steps.
        hidden: size of a node.
        activation: of the nodes.
        scale: what x is multiplied by.

    >>> GreedyTree((7, 3), hidden=4, activation=nn.Tanh())(torch.zeros(5, 21)).order.shape
    torch.Size([5, 6])
    """

    def __init__(self, shape: tuple[int, int], hidden: int, activation: nn.Module, scale: float = 1.0):
        super().__init__()
        self.shape = shape
        self.scale = Scale(scale)
        self.leaf = nn.Linear(shape[1], hidden)
        self.cell = Cell(hidden, activation)

    def forward(self, x: Tensor) -> Climbed:  # x: (..., steps * features)
        nodes = self.cell.node(self.leaf(self.scale(x).reshape(-1, *self.shape)))  # (rows, nodes, hidden)
        order, pairs, parents = self.search(nodes), [], []
        for at in order.unbind(-1):
            pairs.append(_pair(nodes, at))
            parents.append(self.cell.merge(pairs[-1]))
            nodes = replaced(nodes, at, 2, parents[-1].unsqueeze(1))
        found = (order, torch.stack(pairs, dim=1), torch.stack(parents, dim=1))
        return Climbed(*(part.reshape(*x.shape[:-1], *part.shape[1:]) for part in found))

    @torch.no_grad()
    def search(self, nodes: Tensor) -> Tensor:
        """Which pair to merge at every step, `(rows, steps, hidden)` to `(rows, steps - 1)`."""
        losses, order = self._losses(torch.stack([nodes[:, :-1], nodes[:, 1:]], dim=2)), []  # (rows, pairs)
        while losses.shape[1] > 1:
            at = leftmost_least(losses)
            nodes = replaced(nodes, at, 2, self.cell.merge(_pair(nodes, at)).unsqueeze(1))
            losses = self._losses_after(losses, at, nodes)
            order.append(at)
        return torch.stack([*order, leftmost_least(losses)], dim=-1)

    def _losses(self, pairs: Tensor) -> Tensor:
        return self.cell.loss(pairs, self.cell.merge(pairs))

    def _losses_after(self, losses: Tensor, at: Tensor, nodes: Tensor) -> Tensor:
        """The losses of all pairs once the one at `at` is a node: of two pairs new, of the others as they were."""
        place = torch.arange(losses.shape[1] - 1, device=at.device)
        at = at.unsqueeze(-1)
        kept = losses.take_along_dim(place + (place >= at), dim=1)
        sides = torch.cat([at - 1, at], dim=-1).clamp(0, len(place) - 1)  # at an end there is one side only
        pairs = torch.stack([_taken(nodes, sides), _taken(nodes, sides + 1)], dim=2)
        before, after = self._losses(pairs).split(1, dim=1)
        return torch.where(place == at - 1, before, torch.where(place == at, after, kept))


class Unfolding(nn.Module):
    """From a code to leaves by a tree that is given, its merges undone from the last to the first.

    A row `(rows, latent + steps - 1)` is z with the order of the merges behind it; it goes to
    `(rows, outputs, steps, features)`.

    Args:
        cell: whose `split` undoes a merge.
        latent: size of z.
        shape: (steps, features).
        outputs: how many per element.
    """

    def __init__(self, cell: Cell, latent: int, shape: tuple[int, int], outputs: int):
        super().__init__()
        hidden = cell.merging.out_features
        self.root = nn.Linear(latent, hidden)
        self.cell = cell
        self.leaf = nn.Linear(hidden, outputs * shape[1])
        self.sizes = [latent, shape[0] - 1]
        self.outputs = outputs

    def forward(self, row: Tensor) -> Tensor:
        z, order = row.split(self.sizes, dim=-1)
        nodes = self.cell.node(self.root(z)).unsqueeze(1)  # (rows, nodes, hidden)
        for at in reversed(order.long().unbind(-1)):
            nodes = replaced(nodes, at, 1, self.cell.split(_taken(nodes, at.unsqueeze(-1)).squeeze(1)))
        return self.leaf(nodes).unflatten(-1, (self.outputs, -1)).movedim(2, 1)


def leftmost_least(losses: Tensor) -> Tensor:
    """Where the least of each row stands, `(rows, n)` to `(rows,)`; the leftmost of those alike up to rounding.

    >>> leftmost_least(torch.tensor([[2.0, 1.0 + 1e-7, 1.0]]))
    tensor([1])
    """
    # equal pairs at different places of a matrix product differ by rounding, which depends on the rest of the batch
    rounding = 100 * torch.finfo(losses.dtype).eps
    return (losses <= losses.amin(1, keepdim=True) + rounding).int().argmax(1)


def replaced(nodes: Tensor, at: Tensor, old: int, new: Tensor) -> Tensor:
    """In every row the `old` nodes from its place `at` on give way to new ones.

    Args:
        nodes: `(rows, nodes, hidden)`.
        at: `(rows,)`.
        old: how many go.
        new: `(rows, k, hidden)`, what comes.

    >>> nodes = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> replaced(nodes, torch.tensor([1]), 2, torch.tensor([[[9.0]]])).flatten().tolist()
    [1.0, 9.0]
    """
    count, k = nodes.shape[1], new.shape[1]
    place = torch.arange(count - old + k, device=at.device)
    since = place - at.unsqueeze(-1)
    source = torch.where(since < 0, place, torch.where(since < k, count + since, place + old - k))
    return _taken(torch.cat([nodes, new], dim=1), source)


def _taken(nodes: Tensor, places: Tensor) -> Tensor:
    """`(rows, nodes, hidden)` at each row's own places `(rows, k)`: `(rows, k, hidden)`."""
    return nodes[torch.arange(len(nodes), device=nodes.device).unsqueeze(-1), places]


def _pair(nodes: Tensor, at: Tensor) -> Tensor:
    """The node at each row's own place and its right neighbour, `(rows, 2, hidden)`."""
    return _taken(nodes, at.unsqueeze(-1) + torch.arange(2, device=at.device))
