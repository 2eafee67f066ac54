"""Networks of affine layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ppvae.networks.checks import at_least_one, known
from ppvae.networks.initialisation import Initialisation, initialise

Activation: TypeAlias = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid", "identity"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A multilayer perceptron, `(..., inputs)` to `(..., outputs)`; with `hidden=[]` an affine map.

    Args:
        inputs: size of the input's last dimension.
        hidden: size of each hidden layer, first to last.
        outputs: size of the output's last dimension; the last layer has no activation.
        activation: called once per hidden layer.

    >>> mlp(8, [200], 64)(torch.zeros(5, 3, 8)).shape
    torch.Size([5, 3, 64])
    """
    sizes = [inputs, *hidden, outputs]
    if min(sizes) < 1:
        raise ValueError(f"every layer of a network should have at least 1 unit, got {sizes}")
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), activation()]
    return nn.Sequential(*layers[:-1])


class Gated(nn.Module):
    """activation(value(x)) * sigmoid(gate(x)).

    >>> Gated(torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), torch.nn.Tanh())(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, value: nn.Module, gate: nn.Module, activation: nn.Module):
        super().__init__()
        self.value = value
        self.gate = gate
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.value(x)) * torch.sigmoid(self.gate(x))


def gated(layer: Callable[[], nn.Module], activation: Activation) -> Gated:
    """A gated layer from the maker of an affine one, called twice."""
    return Gated(layer(), layer(), ACTIVATIONS[activation]())


@dataclass(frozen=True)
class MLP:
    """Multilayer perceptrons: the encoder's hidden layers, and the decoder's in reverse.

    Rumelhart et al. 1986, https://doi.org/10.1038/323533a0

    Args:
        hidden: size of each hidden layer of the encoder.
        activation: after each of them.
        initialisation: where the weights start.

    Raises:
        ValueError: for a layer of no units, or an unknown name.

    >>> MLP([200, 100]).decoder(2, shape=(1, 8, 8), outputs=1)(torch.zeros(5, 2)).shape
    torch.Size([5, 64])
    """

    hidden: Sequence[int] = (200,)
    activation: Activation = "relu"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        at_least_one(self, hidden=self.hidden)
        known(self, "activation", self.activation, ACTIVATIONS)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return self._network(prod(shape), self.hidden, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return self._network(inputs, self.hidden[::-1], outputs * prod(shape))

    def _network(self, inputs: int, hidden: Sequence[int], outputs: int) -> nn.Module:
        return initialise(mlp(inputs, hidden, outputs, ACTIVATIONS[self.activation]), self.initialisation, self)


@dataclass(frozen=True)
class GatedMLP:
    """Multilayer perceptrons whose hidden layers are gated: h = activation(V x + b) * sigmoid(W x + c).

    With `identity` these are Dauphin et al. 2017's gated linear units, https://arxiv.org/abs/1612.08083, the dense
    layers of Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120; with `tanh` the gates of van den Oord et al.
    2016, https://arxiv.org/abs/1606.05328.

    Args:
        hidden: size of each hidden layer of the encoder; the decoder's are in reverse.
        activation: of the values that the gates let through.
        initialisation: where the weights start.

    Raises:
        ValueError: for a layer of no units, or an unknown name.

    >>> GatedMLP([300, 300]).encoder(shape=(1, 28, 28), outputs=80)(torch.zeros(5, 784)).shape
    torch.Size([5, 80])
    """

    hidden: Sequence[int] = (200,)
    activation: Activation = "identity"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        at_least_one(self, hidden=self.hidden)
        known(self, "activation", self.activation, ACTIVATIONS)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return self._network(prod(shape), self.hidden, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return self._network(inputs, self.hidden[::-1], outputs * prod(shape))

    def _network(self, inputs: int, hidden: Sequence[int], outputs: int) -> nn.Module:
        at_least_one(self, inputs=inputs, outputs=outputs)
        sizes = [inputs, *hidden]
        layers = [gated(partial(nn.Linear, a, b), self.activation) for a, b in pairwise(sizes)]
        return initialise(nn.Sequential(*layers, nn.Linear(sizes[-1], outputs)), self.initialisation, self)
