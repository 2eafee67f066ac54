"""Networks that go step by step through a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ppvae.networks.checks import at_least_one, sequence_shape
from ppvae.networks.initialisation import Initialisation, initialise
from ppvae.networks.wrappers import Shaped


class LastState(nn.Module):
    """The hidden state of an LSTM's top layer after the last step: `(rows, steps, features)` to `(rows, hidden)`."""

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


class Unrolled(nn.Module):
    """An LSTM that starts in a state affine in the code, reads the code at every step, and gives `size` values a step.

    `(rows, inputs)` to `(rows, outputs, steps, features)`, where outputs * features = size.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, shape: tuple[int, int], outputs: int):
        super().__init__()
        self.state = nn.Linear(inputs, 2 * layers * hidden)
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.step = nn.Linear(hidden, outputs * shape[1])
        self.steps = shape[0]
        self.outputs = outputs

    def forward(self, z: Tensor) -> Tensor:
        state = self.state(z).unflatten(-1, (2, self.lstm.num_layers, -1)).movedim(0, 2)  # (2, layers, rows, hidden)
        h, _ = self.lstm(z.unsqueeze(1).expand(-1, self.steps, -1), (state[0].contiguous(), state[1].contiguous()))
        return self.step(h).unflatten(-1, (self.outputs, -1)).movedim(2, 1)


@dataclass(frozen=True)
class LSTM:
    """Long short-term memory, for data of shape (steps, features).

    The encoder reads the steps, and its last hidden state goes through an affine map. The decoder starts in a state
    that is affine in the code, reads the code again at every step, and gives a step by an affine map of its hidden
    state. Hochreiter & Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735

    Args:
        hidden: units of each layer.
        layers: LSTMs one on top of another.
        initialisation: where the weights start.

    Raises:
        ValueError: for a size below 1 or an unknown name; for a shape that is no sequence.

    >>> LSTM(32).decoder(2, shape=(10, 3), outputs=2)(torch.zeros(5, 2)).shape
    torch.Size([5, 60])
    """

    hidden: int = 128
    layers: int = 1
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        at_least_one(self, hidden=self.hidden, layers=self.layers)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        at_least_one(self, outputs=outputs)
        steps, features = sequence_shape(shape, "LSTM")
        lstm = nn.LSTM(features, self.hidden, self.layers, batch_first=True)
        network = nn.Sequential(Shaped(LastState(lstm), (steps, features)), nn.Linear(self.hidden, outputs))
        return initialise(network, self.initialisation, self)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        at_least_one(self, inputs=inputs, outputs=outputs)
        steps = Unrolled(inputs, self.hidden, self.layers, sequence_shape(shape, "LSTM"), outputs)
        return initialise(Shaped(steps, (inputs,)), self.initialisation, self)
