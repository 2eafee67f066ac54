"""Where a network's weights and its output start."""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from ppvae.networks.checks import known
from ppvae.networks.wrappers import Shift

Initialisation: TypeAlias = Literal["default", "xavier", "kaiming", "orthogonal", "normal"]
AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
WEIGHTS: dict[str, Callable[[Tensor], object]] = {
    "xavier": nn.init.xavier_uniform_,
    "kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
    "normal": partial(nn.init.normal_, std=0.02),
}
Network = TypeVar("Network", bound=nn.Module)


def initialise(network: Network, name: Initialisation, family: object = None) -> Network:
    """Start a network's weights by name and its biases at zero; `default` leaves them as PyTorch made them.

    Of an LSTM, each gate's matrices are started as one. Everything else (embeddings, normalisations) is left alone.
    xavier: Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html (uniform). kaiming: He et al. 2015,
    https://arxiv.org/abs/1502.01852 (normal, for ReLU). orthogonal: Saxe et al. 2014, https://arxiv.org/abs/1312.6120.
    normal: N(0, 0.02^2), Radford et al. 2016, https://arxiv.org/abs/1511.06434.

    Args:
        network: changed in place.
        name: one of the above.
        family: the one the network is of, for an error to say so.

    Raises:
        ValueError: for an unknown name.

    >>> initialise(torch.nn.Linear(3, 2), "xavier").bias.tolist()
    [0.0, 0.0]
    """
    known(family, "initialisation", name, ["default", *WEIGHTS])
    if name != "default":
        for layer in network.modules():
            if isinstance(layer, (*AFFINE, nn.LSTM)):
                _start(layer, WEIGHTS[name])
    return network


@torch.no_grad()
def _start(layer: nn.Module, fill: Callable[[Tensor], object]) -> None:
    for name, parameter in layer.named_parameters(recurse=False):
        if name.startswith("bias"):
            parameter.zero_()
        elif isinstance(layer, nn.LSTM):
            for gate in parameter.chunk(4):
                fill(gate)
        elif isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):  # kept as (inputs, outputs, ...)
            weight = parameter.transpose(0, 1).contiguous()
            fill(weight)
            parameter.copy_(weight.transpose(0, 1))
        else:
            fill(parameter)


@torch.no_grad()
def set_output_bias(network: nn.Module, bias: Tensor) -> nn.Module:
    """The network with its output's bias at given values: its last layer's own, or else a learned shift behind it.

    Args:
        network: `(..., inputs)` to `(..., outputs)`; its last layer is changed in place where it is a `Linear` map.
        bias: `(outputs,)`.

    >>> set_output_bias(torch.nn.Linear(3, 2), torch.tensor([1.0, 2.0]))(torch.zeros(3)).tolist()
    [1.0, 2.0]
    """
    last = network
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    if isinstance(last, nn.Linear) and last.bias is not None and last.bias.shape == bias.shape:
        last.bias.copy_(bias)
        return network
    like = next(network.parameters(), torch.empty(0))
    return nn.Sequential(network, Shift(bias.to(like)))
