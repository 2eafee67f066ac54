"""Likelihoods of counts."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.models.checks import known
from ppvae.models.likelihoods.links import positive


class Binomial(nn.Module):
    """p(x | z) = prod_i C(n, x_i) p_i^x_i (1 - p_i)^(n - x_i) with logit p = network(z): a mass on {0, ..., n}.

    The exact likelihood of a pixel that counts the black dots among n.
    https://en.wikipedia.org/wiki/Binomial_distribution

    Args:
        network: `(..., latent)` to `(..., features)`, the logits.
        total_count: n, the largest count; it follows from data with a largest level.

    >>> Binomial(torch.nn.Linear(2, 3), total_count=16)(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 1

    def __init__(self, network: nn.Module, total_count: int | None = None):
        super().__init__()
        self.network = network
        self.total_count = known("total_count", total_count)

    def forward(self, z: Tensor) -> Distribution:
        return dist.Binomial(self.total_count, logits=self.network(z)).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The logits of the mean of x / n, kept 0.001 away from 0 and 1."""
        return (x.mean(0) / self.total_count).clamp(1e-3, 1 - 1e-3).logit()


class BetaBinomial(nn.Module):
    """p(x | z) = prod_i E[Binomial(x_i; n, p)], p ~ Beta(a_i, b_i): a mass on {0, ..., n}, wider than a Binomial.

    With a, b = network(z), each 0.001 + softplus of it. Towards a, b = 0 all mass is at 0 and n; with both 1 it is
    uniform; towards infinity it is a Binomial's. https://en.wikipedia.org/wiki/Beta-binomial_distribution

    Args:
        network: `(..., latent)` to `(..., 2 * features)`: a for every feature, then b.
        total_count: n, the largest count; it follows from data with a largest level.

    >>> BetaBinomial(torch.nn.Linear(2, 6), total_count=16)(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 2

    def __init__(self, network: nn.Module, total_count: int | None = None):
        super().__init__()
        self.network = network
        self.total_count = known("total_count", total_count)

    def forward(self, z: Tensor) -> Distribution:
        a, b = positive(self.network(z)).chunk(2, dim=-1)
        return dist.BetaBinomial(a, b, self.total_count).to_event(1)


class Poisson(nn.Module):
    """p(x | z) = prod_i e^-m_i m_i^x_i / x_i! with log m = network(z): a mass on {0, 1, ...}.

    With `library` the call takes l too, a size of every row, and m = l softmax(network(z)), as `NegativeBinomial`.
    Lopez et al. 2018, https://doi.org/10.1038/s41592-018-0229-2 (there the negative binomial, whose limit this is).

    Args:
        network: `(..., latent)` to `(..., features)`, log m.
        library: whether m is a share of the row's own size.

    >>> Poisson(torch.nn.Linear(2, 3))(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 1

    def __init__(self, network: nn.Module, library: bool = False):
        super().__init__()
        self.network = network
        self.library = library

    def forward(self, z: Tensor, library: Tensor | None = None) -> Distribution:
        return dist.Poisson(_log_mean(self.network(z), self.library, library).exp()).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The logarithm of the mean of x, kept above 0.001."""
        return x.mean(0).clamp_min(1e-3).log()


class NegativeBinomial(nn.Module):
    """p(x | z) = prod_i NB(x_i; m_i, t_i), of mean m and variance m + m^2 / t: a mass on {0, 1, ...}.

    log m = network(z); t, the inverse dispersion, is a parameter of every feature. With `library` the call takes l too,
    a size of every row, and m = l softmax(network(z)): what a single cell's total count does to all its genes. l is a
    covariate that stands beside x in the batch, `(x, mask, library)`, and the figure is log p(x | l). That is a density
    of x for an l that was set apart from x (a depth, a size factor). With x's own total for l it is not p(x) or
    p(x | total): x is scored by an offset that was read off it, so such figures compare only with each other.
    Lopez et al. 2018, https://doi.org/10.1038/s41592-018-0229-2

    Args:
        network: `(..., latent)` to `(..., features)`, log m.
        features: size of a datum.
        library: whether m is a share of the row's own size.

    >>> likelihood = NegativeBinomial(torch.nn.Linear(2, 3), features=3, library=True)
    >>> likelihood(torch.zeros(2), torch.tensor([100.0])).mean.detach().sum().round(decimals=3)
    tensor(100.)
    """

    outputs = 1

    def __init__(self, network: nn.Module, features: int, library: bool = False):
        super().__init__()
        self.network = network
        self.log_inverse_dispersion = nn.Parameter(torch.zeros(features))
        self.library = library

    def forward(self, z: Tensor, library: Tensor | None = None) -> Distribution:
        log_mean = _log_mean(self.network(z), self.library, library)
        t, logits = self.log_inverse_dispersion.exp(), log_mean - self.log_inverse_dispersion
        return dist.NegativeBinomial(t, logits=logits).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The logarithm of the mean of x, kept above 0.001."""
        return x.mean(0).clamp_min(1e-3).log()


class ZeroInflatedNegativeBinomial(nn.Module):
    """p(x | z) = prod_i g_i [x_i = 0] + (1 - g_i) NB(x_i; m_i, t_i): a mass on {0, 1, ...} with more zeros.

    logit g and log m are the network's; the rest, `library` too, is `NegativeBinomial`'s.
    Lopez et al. 2018, https://doi.org/10.1038/s41592-018-0229-2

    Args:
        network: `(..., latent)` to `(..., 2 * features)`: log m for every feature, then logit g.
        features: size of a datum.
        library: whether m is a share of the row's own size.

    >>> ZeroInflatedNegativeBinomial(torch.nn.Linear(2, 6), features=3)(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 2

    def __init__(self, network: nn.Module, features: int, library: bool = False):
        super().__init__()
        self.network = network
        self.log_inverse_dispersion = nn.Parameter(torch.zeros(features))
        self.library = library

    def forward(self, z: Tensor, library: Tensor | None = None) -> Distribution:
        output, gate_logits = self.network(z).chunk(2, dim=-1)
        log_mean = _log_mean(output, self.library, library)
        t, logits = self.log_inverse_dispersion.exp(), log_mean - self.log_inverse_dispersion
        counts = dist.NegativeBinomial(t, logits=logits)
        return dist.ZeroInflatedDistribution(counts, gate_logits=gate_logits).to_event(1)


def _log_mean(output: Tensor, asked: bool, library: Tensor | None) -> Tensor:
    """log m: the output itself, or log of the library size times its softmax."""
    if asked != (library is not None):
        rule = "needs the library size beside z, `(..., 1)`" if asked else "takes a library size only with library=True"
        raise ValueError(f"this likelihood {rule}")
    if library is None:
        return output
    least = torch.finfo(output.dtype).tiny  # a row of size 0 has all its mass at 0, and a finite gradient
    return torch.where(library == 0, least, library).log() + output.log_softmax(dim=-1)
