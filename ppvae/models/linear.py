"""Linear stories, which have exact answers."""

import math
from typing import TypeVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.models.autoencoders import Autoencoder
from ppvae.models.checks import at_least_one
from ppvae.models.likelihoods import Normal
from ppvae.models.parameter_store import register
from ppvae.models.priors import Flat, StandardNormal
from ppvae.models.record import recorded
from ppvae.models.sizes import Sizes
from ppvae.models.vae import VAE

T = TypeVar("T")


class Linear(nn.Module):
    """z ~ N(0, I), x ~ N(W z + m, diag v), with the exact posterior for a guide: z ~ N(S W' V^-1 (x - m), S).

    S = (I + W' V^-1 W)^-1, so every log-weight is log p(x) = log N(x; m, W W' + V) itself. With one v for all features
    this is probabilistic PCA (Tipping & Bishop 1999, https://doi.org/10.1111/1467-9868.00196), with one for each it is
    factor analysis (Rubin & Thayer 1982, https://doi.org/10.1007/BF02293851). `ppca` and `factor_analysis` solve it; a
    fit trains it as any other story.

    Args:
        features: size of a datum.
        latent: number of latent dimensions.
        shared: whether all features share one noise variance.

    >>> story = Linear(features=5, latent=2)
    >>> story.log_evidence(torch.randn(3, 5)).shape
    torch.Size([3])
    """

    def __init__(self, features: int, latent: int, shared: bool = True):
        super().__init__()
        shape = (at_least_one("features", features), at_least_one("latent", latent))
        self.prior = StandardNormal(latent)
        self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(latent))
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_variance = nn.Parameter(torch.zeros(() if shared else (features,)))

    def model(self, x: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.encoder(x))

    @property
    def variance(self) -> Tensor:
        """v, the noise variance of every feature: `(features,)`."""
        return self.log_variance.exp().expand_as(self.mean)

    def likelihood(self, z: Tensor) -> Distribution:
        """p(x | z)."""
        return dist.Normal(z @ self.weight.T + self.mean, self.variance.sqrt()).to_event(1)

    def encoder(self, x: Tensor) -> Distribution:
        """p(z | x), the exact posterior."""
        scaled = self.weight / self.variance.unsqueeze(-1)  # V^-1 W
        precision = self.weight.T @ scaled + torch.eye(self.weight.shape[1]).to(self.weight)
        root = torch.linalg.cholesky(precision)
        loc = torch.cholesky_solve(((x - self.mean) @ scaled).unsqueeze(-1), root).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), exact: `(batch, features)` to `(batch,)`, nats."""
        return dist.LowRankMultivariateNormal(self.mean, self.weight, self.variance).log_prob(x)


def fit_ppca(x: Tensor, latent: int) -> Linear:
    """Probabilistic principal component analysis at its maximum likelihood, in closed form.

    v is the mean of the discarded eigenvalues of the covariance of x (over N, not N - 1), and W the leading
    eigenvectors times the square roots of their eigenvalues less v. Tipping & Bishop 1999,
    https://doi.org/10.1111/1467-9868.00196

    Args:
        x: data, `(batch, features)`; fewer rows than features will do.
        latent: number of components.

    Raises:
        ValueError: when `latent` components leave no noise: its likelihood would have no bound.

    >>> story = fit_ppca(torch.randn(100, 5), latent=2)
    >>> story.weight.shape
    torch.Size([5, 2])
    """
    _refuse_missing(x)
    mean = x.mean(dim=0)
    _, singular, axes = torch.linalg.svd(x - mean, full_matrices=False)
    values = singular.square() / len(x)
    rounding = torch.finfo(x.dtype).eps * max(x.shape) * x.square().sum(dim=1).mean().sqrt()
    rank = int((values.sqrt() > rounding).sum())
    if not 1 <= latent < rank:
        raise ValueError(
            f"latent should be at least 1, and below the {rank} directions that the data spread in, so that some noise "
            f"is left; got {latent}"
        )
    variance = values[latent:].sum() / (x.shape[1] - latent)  # eigenvalues of more features than rows are zero
    weight = axes[:latent].T * (values[:latent] - variance).clamp_min(0).sqrt()
    return _known_as("ppca", _solved(x, weight, mean, variance, shared=True), x, latent)


def fit_factor_analysis(x: Tensor, latent: int, tolerance: float = 1e-3, iterations: int = 5000) -> Linear:
    """Factor analysis at its maximum likelihood, by scikit-learn's EM.

    Rubin & Thayer 1982, https://doi.org/10.1007/BF02293851

    Args:
        x: data, `(batch, features)`.
        latent: number of factors.
        tolerance: the gain in the log-likelihood of all data below which EM stops, nats.
        iterations: after which it stops anyway, with scikit-learn's warning.

    Raises:
        ValueError: when `latent` is out of range, or a feature has no noise left: it is constant, or the factors say
            all of it, and its density has no bound.

    >>> fit_factor_analysis(torch.randn(100, 5), latent=2).variance.shape
    torch.Size([5])
    """
    _refuse_missing(x)
    if not 1 <= latent < min(x.shape):
        raise ValueError(
            f"latent should be from 1 to {min(x.shape) - 1} for data of shape {tuple(x.shape)}, got {latent}"
        )
    rows = x.double()
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
    smallest = 10 * torch.finfo(x.dtype).eps
    _refuse_noiseless(scale <= smallest * rows.abs().amax(dim=0))
    from sklearn.decomposition import FactorAnalysis

    solver = FactorAnalysis(latent, tol=tolerance, max_iter=iterations, svd_method="lapack")
    solver.fit(((rows - mean) / scale).cpu().numpy())  # of spread 1: its smallest noise is an absolute number
    weight, variance = (torch.from_numpy(found).to(rows) for found in (solver.components_.T, solver.noise_variance_))
    _refuse_noiseless(variance <= max(smallest, 1e-9))
    story = _solved(x, weight * scale.unsqueeze(-1), mean, variance * scale.square(), shared=False)
    return _known_as("factor_analysis", story, x, latent)


def _refuse_missing(x: Tensor) -> None:
    lost = ~x.isfinite().all(dim=-1)
    if lost.any():
        raise ValueError(
            f"a closed form needs every value of x, and row {int(lost.nonzero()[0])} lacks some: leave such rows out, "
            "or fit a story that takes missing values"
        )


def _refuse_noiseless(features: Tensor) -> None:
    if features.any():
        first = int(features.nonzero()[0])
        raise ValueError(
            f"every feature should keep some noise; feature {first} has none left: leave it out, take fewer factors, "
            "or use PPCA"
        )


@torch.no_grad()
def _solved(x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, shared: bool) -> Linear:
    story = Linear(weight.shape[0], weight.shape[1], shared).to(x)
    story.weight.copy_(weight)
    story.mean.copy_(mean)
    story.log_variance.copy_(variance.log())
    return story


def fit_pca(x: Tensor, latent: int) -> VAE:
    """Principal component analysis in closed form, as a linear autoencoder that needs no fit.

    The code is the projection on the `latent` leading eigenvectors of the covariance of x. No linear autoencoder has
    a smaller squared error; what is left is the sum of the discarded eigenvalues. Bourlard & Kamp 1988,
    https://doi.org/10.1007/BF00332918

    Args:
        x: data, `(batch, features)`.
        latent: number of components, at most the smaller of batch and features.

    Raises:
        ValueError: when `latent` is out of range, or a value of x is missing.

    >>> x = torch.randn(100, 5)
    >>> story = fit_pca(x, latent=5)
    >>> torch.allclose(story.likelihood(story.encoder(x).mean).mean, x, atol=1e-5)
    True
    """
    _refuse_missing(x)
    if not 1 <= latent <= min(x.shape):
        raise ValueError(f"latent should be from 1 to {min(x.shape)} for data of shape {tuple(x.shape)}, got {latent}")
    mean = x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x - mean, full_matrices=False)
    axes = axes[:latent]  # (latent, features)
    encode = _affine(axes, -axes @ mean)
    decode = _affine(axes.T, mean)
    residual = (x - decode(encode(x))).square().mean().item()
    variance = max(residual, torch.finfo(x.dtype).tiny)  # zero when nothing is discarded
    return _known_as("pca", Autoencoder(Flat(latent), Normal(decode, variance), encode).to(x), x, latent)


def _known_as(name: str, story: T, x: Tensor, latent: int) -> T:
    """The story with the record of what makes one like it without data: a function of `models.stories`."""
    makers = {"likelihood": Normal, "story": f"ppvae.models.stories.{name}"}
    return recorded(story, makers, Sizes((x.shape[1],), latent))


def _affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).to(weight)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
