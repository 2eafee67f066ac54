"""The variational autoencoder of sequences: text, sound, anything in steps, of one length or of many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Architecture, Encoder, Likelihood, Prior
from ppvae.distributions.autoregressive import Autoregressive, valid_steps, without_padding
from ppvae.models.checks import at_least_one
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes


class SequenceVAE(nn.Module):
    """z ~ p(z), x_t ~ p(x_t | x_1, ..., x_t-1, z) for every step, with the guide z ~ q(z | x).

    Bowman et al. 2016, https://arxiv.org/abs/1511.06349

    Both programs take a batch `(x, lengths)` too: the rows x are then padded, a row's first `lengths` steps are the
    datum, and what stands behind them, nan too, counts nothing. A length is given, and says nothing about the steps:
    where it should be modelled too, let every sequence end with a token for its end.

    Args:
        prior: p(z), event_shape `(latent,)`.
        likelihood: p(x | z) and, called with lengths as well, that of padded rows: `Recurrent`.
        encoder: q(z | x), event_shape `(latent,)`, of rows `(..., steps * features)`, and of rows with their length
            behind them: its network begins with a `Reader`.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors, stories
    >>> parts = (priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal)
    >>> story = assemble(*parts, shape=(7, 3), latent=2, story=stories.sequence)
    >>> pyro.poutine.uncondition(story.model)(torch.empty(5, 21)).shape
    torch.Size([5, 21])
    """

    def __init__(self, prior: Prior, likelihood: "Recurrent", encoder: Encoder):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder

    def model(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # x: (batch, steps * features)
        register(self)
        x, *given = self.seen(x, lengths)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(z, *given), obs=x)

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        register(self)
        x, *given = self.seen(x, lengths)
        row = torch.cat([x, *(lengths.unsqueeze(-1).to(x) for lengths in given)], dim=-1)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.encoder(row))

    def seen(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        """The batch as the programs see it: zeros behind the last step.

        Two batches that differ only in what stands there are the same one here.

        Raises:
            ValueError: lengths that are none; padded rows that are not of `steps * features` numbers.
        """
        if lengths is None:
            return (x,)
        steps, features = self.likelihood.steps, self.likelihood.features
        check_lengths(lengths, steps)
        valid = valid_steps(lengths, steps, x.device).repeat_interleave(features, dim=-1)
        if x.shape != valid.shape:
            raise ValueError(f"padded rows should have shape {tuple(valid.shape)}, got {tuple(x.shape)}")
        return torch.where(valid, x, 0), lengths


def check_lengths(lengths: Tensor | None, steps: int) -> None:
    if lengths is None:
        return
    if lengths.dim() != 1 or lengths.is_floating_point():
        kind = f"{tuple(lengths.shape)} of {lengths.dtype}".replace("torch.", "")
        raise ValueError(f"lengths should be whole numbers, one a datum, got shape {kind}")
    outside = (lengths < 1) | (lengths > steps)
    if not torch.compiler.is_compiling() and outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(f"lengths should be from 1 to {steps}, got {lengths[row].item()} in row {row}")


class Recurrent(nn.Module):
    """p(x | z) = prod_t p(x_t | h_t), where h_t is the state of an LSTM that has read x_1, ..., x_t-1, and z at each.

    Args:
        emission: p(x_t | h_t): a likelihood, event_shape `(features,)`, whose code is the state.
        inputs: what the LSTM reads of a step, `(..., features)` to `(..., size)`.
        latent: size of z.
        shape: (steps, features).
        hidden: size of the state.
        word_dropout: probability that, in training, a step's density is not shown the step before it. Zeros stand in
            its place, so that more is left to z.
        tokens: whether values are names, not amounts: they then have a most likely value, not a mean.
    """

    def __init__(
        self,
        emission: Likelihood,
        inputs: "Amounts | Tokens",
        latent: int,
        shape: Sequence[int],
        hidden: int,
        word_dropout: float = 0.0,
        tokens: bool = False,
    ):
        super().__init__()
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"word_dropout should be from 0 to 1, got {word_dropout}")
        self.steps, self.features = shape
        self.emission = emission
        self.inputs = inputs
        self.start = nn.Parameter(0.1 * torch.randn(inputs.size))  # read before the first step
        self.state = nn.Linear(latent, 2 * hidden)
        self.lstm = nn.LSTM(inputs.size + latent, hidden, batch_first=True)
        self.word_dropout = word_dropout
        self.tokens = tokens

    def forward(self, z: Tensor, lengths: Tensor | None = None) -> Autoregressive:
        point: Literal["mean", "mode"] = "mode" if self.tokens else "mean"
        return Autoregressive(self.conditional, z, self.steps, self.features, lengths, point)

    def conditional(self, z: Tensor, past: Tensor | None, state: Any) -> tuple[Any, Any]:
        """p(x_t | h_t) for the next steps, see `ppvae.distributions.autoregressive.Conditional`."""
        leading = z.shape[:-1] if past is None else torch.broadcast_shapes(z.shape[:-1], past.shape[:-2])
        z = z.expand(*leading, -1)
        read = []  # each (..., steps, size)
        if state is None:
            h, c = self.state(z.reshape(1, -1, z.shape[-1])).chunk(2, dim=-1)
            read, new = [self.start.expand(*leading, 1, -1)], (h.contiguous(), c.contiguous())
        else:
            new = state
        if past is not None:
            shown = self.inputs(past) if state is not None else self._dropped(self.inputs(past))
            read.append(shown.expand(*leading, -1, -1))
        x = torch.cat(read, dim=-2)
        x = torch.cat([x, z.unsqueeze(-2).expand(*x.shape[:-1], -1)], dim=-1)
        h, new = self.lstm(x.reshape(-1, *x.shape[-2:]), new)
        return self.emission(h.reshape(*x.shape[:-1], -1)), new

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or self.word_dropout == 0:
            return x
        return x * (torch.rand(x.shape[:-1], device=x.device) >= self.word_dropout).unsqueeze(-1)


class Reader(nn.Module):
    """The state of an LSTM after a row's last step: `(..., steps * features)` to `(..., hidden)`.

    A row one number longer has its length behind it, and is read up to there.

    Args:
        inputs: what the LSTM reads of a step, `(..., features)` to `(..., size)`.
        shape: (steps, features).
        hidden: size of the state.

    >>> reader = Reader(Amounts(2), shape=(3, 2), hidden=4)
    >>> padded = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1])
    >>> other = torch.tensor([1.0, 2.0, 8.0, 8.0, 8.0, 8.0, 1])
    >>> torch.equal(reader(padded), reader(other))
    True
    """

    def __init__(self, inputs: "Amounts | Tokens", shape: Sequence[int], hidden: int):
        super().__init__()
        self.shape = shape
        self.inputs = inputs
        self.lstm = nn.LSTM(inputs.size, hidden, batch_first=True)

    def forward(self, row: Tensor) -> Tensor:
        steps, features = self.shape
        x, behind = row[..., : steps * features], row[..., steps * features :]  # behind: (..., 1) or (..., 0)
        lengths = behind.squeeze(-1).long() if behind.shape[-1] else torch.full_like(x[..., 0], steps, dtype=torch.long)
        x = without_padding(x.unflatten(-1, (steps, features)), valid_steps(lengths, steps, x.device))
        h, _ = self.lstm(self.inputs(x).reshape(-1, steps, self.inputs.size))  # (rows, steps, hidden)
        last = h[torch.arange(len(h), device=h.device), lengths.reshape(-1) - 1]
        return last.reshape(*row.shape[:-1], -1)


class Amounts(nn.Module):
    """A step's values as amounts, times a fixed factor: `(..., features)` to the same."""

    def __init__(self, features: int, factor: float = 1.0):
        super().__init__()
        self.size = features
        self.scale = networks.Scale(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x)


class Tokens(nn.Module):
    """A step's values as names, each with a learned vector: `(..., features)` to `(..., features * embedding)`.

    >>> Tokens(2, names=10, embedding=4)(torch.tensor([[7.0, 3.0]])).shape
    torch.Size([1, 8])
    """

    def __init__(self, features: int, names: int, embedding: int):
        super().__init__()
        self.size = features * embedding
        self.vectors = nn.Embedding(names, embedding)

    def forward(self, x: Tensor) -> Tensor:
        names = self.vectors.num_embeddings
        return self.vectors(x.long().clamp(0, names - 1)).flatten(-2)  # the likelihood refuses what is no name


@dataclass(frozen=True)
class Reading:
    """A family whose encoders begin with a `Reader`, and are of another family from its state on."""

    network: Architecture
    inputs: Any
    hidden: int

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        reader = Reader(self.inputs(), shape, at_least_one("hidden", self.hidden))
        return nn.Sequential(reader, self.network.encoder((self.hidden,), outputs))

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return self.network.decoder(inputs, shape, outputs)


def sequence(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    hidden: int = 128,
    embedding: int = 0,
    word_dropout: float = 0.0,
) -> SequenceVAE:
    """z ~ p(z), x_t ~ p(x_t | x_1, ..., x_t-1, z) for every step, with the guide z ~ q(z | x).

    The networks of the family go from the states of two LSTMs, one that reads and one that writes, to the parts.
    Bowman et al. 2016, https://arxiv.org/abs/1511.06349

    Args:
        prior: makes p(z).
        likelihood: makes p(x_t | x_1, ..., x_t-1, z).
        encoder: makes q(z | x).
        sizes: of the data and the code, and the family of the networks.
        hidden: size of an LSTM's state.
        embedding: size of a learned vector for every level, where levels are names (of words, of letters); 0 where
            they are amounts.
        word_dropout: probability that, in training, a step's density is not shown the step before it.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> story = assemble(*parts, shape=(7, 3), latent=2, story=sequence)
    >>> story.encoder(torch.zeros(5, 21)).mean.shape
    torch.Size([5, 2])
    """
    steps, features = networks.checks.sequence_shape(sizes.shape, "the sequence story")
    if isinstance(sizes.network, networks.LSTM | networks.Recursive):
        raise ValueError("the sequence story reads and writes with LSTMs of its own; its network should be dense: MLP")
    x = None if sizes.x is None else sizes.x.reshape(-1, features)
    emission: Any = replace(sizes, shape=(features,), x=x).likelihood(likelihood, inputs=hidden)
    names: int = getattr(emission, "levels", 0 if sizes.maximum is None else sizes.maximum + 1)
    if embedding and not names:
        raise ValueError("embedding is of names, 0 to a largest one, and these data have none; leave it 0")
    inputs = partial(Tokens, features, names, embedding) if embedding else partial(Amounts, features, sizes.input_scale)
    reading = replace(sizes, network=Reading(sizes.network, inputs, hidden), input_scale=1.0)
    guide = reading.encoder(encoder)
    writer = Recurrent(emission, inputs(), sizes.latent, (steps, features), hidden, word_dropout, bool(embedding))
    return SequenceVAE(reading.prior(prior, guide), writer, guide)
