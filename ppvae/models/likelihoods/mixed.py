"""The likelihood of tables whose columns are of unlike kinds."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions.columns import Columns
from ppvae.distributions.continuous_bernoulli import ContinuousBernoulli
from ppvae.distributions.discretized_logistic import DiscretizedLogistic
from ppvae.distributions.levels import Levels
from ppvae.models.likelihoods.links import by_element, positive


class Kind(NamedTuple):
    """A kind of column: from `outputs` numbers each, `(..., columns, outputs)`, and n to a distribution."""

    outputs: Callable[[int], int]
    make: Callable[[Tensor, int], Any]
    least: int | None = None  # the smallest n, of a kind that has one


KINDS = {
    "normal": Kind(lambda n: 2, lambda y, n: dist.Normal(y[..., 0], positive(y[..., 1]))),
    "positive": Kind(lambda n: 2, lambda y, n: dist.LogNormal(y[..., 0], positive(y[..., 1]))),
    "unit": Kind(lambda n: 1, lambda y, n: ContinuousBernoulli(y[..., 0])),
    "bernoulli": Kind(lambda n: 1, lambda y, n: dist.Bernoulli(logits=y[..., 0])),
    "categorical(n)": Kind(lambda n: n, lambda y, n: Levels(logits=y), least=2),
    "ordinal(n)": Kind(lambda n: 2, lambda y, n: DiscretizedLogistic(y[..., 0], positive(y[..., 1]), n), least=2),
    "binomial(n)": Kind(lambda n: 1, lambda y, n: dist.Binomial(n, logits=y[..., 0]), least=1),
    "poisson": Kind(lambda n: 1, lambda y, n: dist.Poisson(y[..., 0].exp())),
}


class Heterogeneous(nn.Module):
    """p(x | z) = prod_j p_j(x_j | z), each column j of a kind of its own: a mass, a density, or a product of both.

    Columns are named by words: `normal`, `positive` (log-normal), `unit` (continuous Bernoulli, 0 to 1), `bernoulli`,
    `categorical(n)` and `ordinal(n)` (codes 0 to n - 1; discretised logistic), `binomial(n)` (counts to n), `poisson`.
    Scales are at least 0.001: standardise real columns, so that one unit is one of theirs. Nazabal et al. 2020,
    https://arxiv.org/abs/1807.03653

    Args:
        network: `(..., latent)` to `(..., outputs * features)`, `outputs` being what the widest column needs; the
            others leave the rest unused.
        features: number of columns.
        columns: the word of every column.

    >>> likelihood = Heterogeneous(torch.nn.Linear(2, 9), features=3, columns=["normal", "categorical(3)", "poisson"])
    >>> likelihood.outputs, likelihood(torch.zeros(5, 2)).log_prob(torch.tensor([0.5, 2, 7])).shape
    (3, torch.Size([5]))
    """

    def __init__(self, network: nn.Module, features: int, columns: list[str]):
        super().__init__()
        if len(columns) != features:
            raise ValueError(f"columns should be one word a column, {features} here, got {len(columns)}")
        self.network = network
        self.columns = columns
        self.kinds = {word: _kind(word, column) for column, word in reversed(list(enumerate(columns)))}
        self.outputs = max(kind.outputs(n) for kind, n in self.kinds.values())

    def forward(self, z: Tensor) -> Distribution:
        output = by_element(self.network(z), self.outputs)  # (..., columns, outputs)
        groups = []
        for word, (kind, n) in self.kinds.items():
            at = [column for column, other in enumerate(self.columns) if other == word]
            groups.append((at, kind.make(output[..., at, : kind.outputs(n)], n)))
        return Columns(groups).to_event(1)


def _kind(word: str, column: int) -> tuple[Kind, int]:
    """A kind and its n, 0 where it has none."""
    name, _, number = word.strip().removesuffix(")").partition("(")
    known = {re.sub(r"\(n\)", "", known): known for known in KINDS}
    if name not in known:
        nearest = " or ".join(known[match] for match in get_close_matches(name, known, n=len(known), cutoff=0.0))
        raise ValueError(f"column {column} should be {nearest}, got '{word}'")
    kind = KINDS[known[name]]
    if kind.least is None and not number and "(" not in word:
        return kind, 0
    if kind.least is None or not number.isdecimal() or int(number) < kind.least:
        least = "" if kind.least is None else f" with n at least {kind.least}"
        raise ValueError(f"column {column} should be {known[name]}{least}, got '{word}'")
    return kind, int(number)
