"""From a network's outputs to a distribution's parameters."""

from torch import Tensor
from torch.nn.functional import softplus


def by_element(output: Tensor, outputs: int) -> Tensor:
    """Outputs that lie side by side, `(..., outputs * features)`, to `(..., features, outputs)`.

    >>> by_element(torch.arange(6.0), outputs=2)
    tensor([[0., 3.],
            [1., 4.],
            [2., 5.]])
    """
    return output.unflatten(-1, (outputs, -1)).transpose(-1, -2)


def positive(output: Tensor, floor: float = 1e-3) -> Tensor:
    """floor + log(1 + e^output): a positive number, near 0.69 at 0, that grows no faster than the output.

    >>> positive(torch.tensor([-50.0, 0.0, 50.0]))
    tensor([1.0000e-03, 6.9415e-01, 5.0001e+01])
    """
    return softplus(output) + floor
