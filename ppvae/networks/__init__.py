"""Networks act on the trailing dimension and leave any leading dimensions alone.

A family of networks makes an encoder's and a decoder's from the sizes alone (`base.Architecture`). One of your own is
a dataclass like these; nothing needs to be registered.
"""

from ppvae.networks.convolutional import Convolutional, GatedConvolutional, PooledConvolutional, Residual
from ppvae.networks.dense import MLP, GatedMLP, mlp
from ppvae.networks.initialisation import initialise, set_output_bias
from ppvae.networks.recurrent import LSTM
from ppvae.networks.recursive import Recursive
from ppvae.networks.wrappers import Scale, Shaped, Shift

__all__ = [  # first of all the families
    "LSTM",
    "MLP",
    "Convolutional",
    "GatedConvolutional",
    "GatedMLP",
    "PooledConvolutional",
    "Recursive",
    "Residual",
    "Scale",
    "Shaped",
    "Shift",
    "initialise",
    "mlp",
    "set_output_bias",
]
