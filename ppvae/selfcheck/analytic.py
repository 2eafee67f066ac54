"""Stories whose evidence, posteriors and bounds are known: what every estimator and objective is held against."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.models import VAE, encoders, likelihoods, priors

Bound = Callable[[Tensor], Tensor]
"""A reduction of log-weights over their first dimension: `(particles, ...)` to `(...)`."""


class LinearGaussian:
    """z ~ N(0, I), x ~ N(W z + b, c I): x ~ N(b, W W' + c I), z | x ~ N(S W' (x - b) / c, S), S = (I + W'W / c)^-1.

    Everything is in double precision. Bishop 2006, section 2.3.3.
    """

    def __init__(self, latent: int = 2, features: int = 5, variance: float = 0.3, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        # orthogonal columns make the exact posterior diagonal, so a diagonal guide can be exact
        square = torch.randn(features, features, generator=generator, dtype=torch.float64)
        scales = torch.linspace(0.6, 1.4, latent, dtype=torch.float64)
        self.weight = torch.linalg.qr(square)[0][:, :latent] * scales
        self.bias = torch.randn(features, generator=generator, dtype=torch.float64)
        self.variance = variance
        gram = self.weight.T @ self.weight / variance
        self.posterior_covariance = torch.linalg.inv(torch.eye(latent, dtype=torch.float64) + gram)
        self.gain = self.posterior_covariance @ self.weight.T / variance  # (latent, features)

    def marginal(self, seen: Tensor | None = None) -> torch.distributions.MultivariateNormal:
        """p(x), or that of the features where `seen` is true."""
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(len(self.bias), dtype=torch.float64)
        if seen is None:
            return torch.distributions.MultivariateNormal(self.bias, covariance)
        return torch.distributions.MultivariateNormal(self.bias[seen], covariance[seen][:, seen])

    def log_evidence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x), or of what `mask` says is observed: `(batch,)` nats."""
        if mask is None:
            return self.marginal().log_prob(x)
        return torch.stack([self._of_part(row, seen) for row, seen in zip(x, mask.bool(), strict=True)])

    def _of_part(self, row: Tensor, seen: Tensor) -> Tensor:
        return self.marginal(seen).log_prob(row[seen]) if seen.any() else row.new_zeros(())  # of nothing p is 1

    def posterior_mean(self, x: Tensor) -> Tensor:
        """E[z | x]: `(batch, latent)`."""
        return (x.double() - self.bias) @ self.gain.T

    def data(self, rows: int, seed: int = 1) -> Tensor:
        """Draws x ~ p(x): `(rows, features)`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.marginal().sample((rows,))

    def story(self, widen: float = 1.0, shift: float = 0.0) -> VAE:
        """The story with its exact posterior for a guide; or one whose scales and means are off."""
        decoder = affine(self.weight, self.bias)
        log_scale = 0.5 * self.posterior_covariance.diagonal().log() + math.log(widen)
        weight = torch.cat([self.gain, torch.zeros_like(self.gain)])
        bias = torch.cat([-self.gain @ self.bias + shift, log_scale])
        story = VAE(
            priors.StandardNormal(self.weight.shape[1]),
            likelihoods.Normal(decoder, self.variance),
            encoders.DiagonalNormal(affine(weight, bias)),
        ).double()
        likelihood: Any = story.likelihood
        likelihood.log_scale.data.fill_(0.5 * math.log(self.variance))  # to all digits of float64
        return story

    def gap(self, widen: float, shift: float) -> float:
        """KL(q || posterior) of that guide, the same for every datum: the ELBO is log p(x) less this."""
        scale = self.posterior_covariance.diagonal().sqrt()
        q = torch.distributions.Normal(torch.full_like(scale, shift), widen * scale)
        p = torch.distributions.Normal(torch.zeros_like(scale), scale)
        return torch.distributions.kl_divergence(q, p).sum().item()

    def moment_gap(self, widen: float, shift: float) -> float:
        """1/2 log E_q[(posterior / q)^2] of that guide: CUBO is above log p(x) by this. widen^2 above 1/2."""
        scale = self.posterior_covariance.diagonal().sqrt()
        m, v = shift / scale, widen**2  # of q, in the posterior's standard deviations
        a = 1 - 1 / (2 * v)
        log_moment = 0.5 * math.log(v / (2 * a)) + (m / v) ** 2 / (4 * a) + m**2 / (2 * v)
        return 0.5 * log_moment.sum().item()

    def expected(self, story: VAE, x: Tensor, bound: Bound, particles: int = 2, nodes: int = 81) -> Tensor:
        """E over the guide's draws of a bound, and by autograd its gradient: `(batch,)` nats. For one latent dimension.

        The trapezoidal rule over the noise of every particle, z = m + s eps: no sampling, no estimator.
        """
        noise, mass = _quadrature(particles, nodes)
        q: Any = story.encoder(x)
        z = q.base_dist.mean + q.base_dist.stddev * noise  # (particles, grid, batch, 1)
        return (mass * bound(self._log_w(story, x, z))).sum(0)

    def awake(self, story: VAE, x: Tensor, particles: int = 2, nodes: int = 81) -> Tensor:
        """E[sum_k w_k log q(z_k | x)] with the normalised weights and the draws held: its gradient is what a guide
        climbs in the wake phase of reweighted wake-sleep. `(batch,)` nats, for one latent dimension."""
        noise, mass = _quadrature(particles, nodes)
        q: Any = story.encoder(x)
        z = (q.base_dist.mean + q.base_dist.stddev * noise).detach()
        share = self._log_w(story, x, z).softmax(0).detach()
        return (mass * (share * q.log_prob(z)).sum(0)).sum(0)

    def _log_w(self, story: VAE, x: Tensor, z: Tensor) -> Tensor:
        return story.prior().log_prob(z) + story.likelihood(z).log_prob(x) - story.encoder(x).log_prob(z)


def _quadrature(particles: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Standard normal noise of every particle, `(particles, grid, 1, 1)`, and its probabilities, `(grid, 1)`.

    On an even grid, whose error falls faster than any power of its width; bounds bend too sharply for Gauss-Hermite.
    """
    points = torch.linspace(-8, 8, nodes, dtype=torch.float64)
    grid = torch.cartesian_prod(*[points] * particles).reshape(-1, particles)
    mass = (-grid.square().sum(-1) / 2).softmax(0)
    return grid.T.unsqueeze(-1).unsqueeze(-1), mass.unsqueeze(-1)


class Enumerable(nn.Module):
    """A latent of three values, x ~ N(loc_k, 1): evidence and every bound are sums.

    The guide's probabilities are a softmax that is linear in x.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.1, 1.0, -0.5]).double())
        self.loc = nn.Parameter(torch.tensor([-1.0, 0.5, 2.0]).double())
        self.slope = nn.Parameter(torch.tensor([-0.3, 0.1, 0.2]).double())

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", self._prior())
            pyro.sample("x", dist.Normal(self.loc[k], 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", self._posterior(x))

    def _prior(self) -> Any:
        return dist.Categorical(logits=self.logits)

    def _posterior(self, x: Tensor) -> Any:
        return dist.Categorical(logits=x.unsqueeze(-1) * self.slope)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x): `(batch,)` nats."""
        return torch.logsumexp(self._log_joint(x), dim=0)

    def _log_joint(self, x: Tensor) -> Tensor:
        k = torch.arange(3)
        return self._prior().log_prob(k).unsqueeze(-1) + dist.Normal(self.loc.unsqueeze(-1), 1.0).log_prob(x)  # (3, N)

    def expected(self, x: Tensor, bound: Bound, particles: int = 2) -> Tensor:
        """E over the guide's draws of a bound, a sum over the values of every particle: `(batch,)` nats."""
        log_q = self._posterior(x).logits.log_softmax(-1).T  # (3, batch)
        log_w = self._log_joint(x) - log_q
        tuples = itertools.product(range(3), repeat=particles)
        terms = [log_q[list(k)].sum(0).exp() * bound(log_w[list(k)]) for k in tuples]
        return torch.stack(terms).sum(0)


class TwoLayers(nn.Module):
    """top ~ N(0, I), z ~ N(A top, 0.5 I), x ~ N(W z + b, 0.4 I), all linear; the guide is exact, or wider.

    q(top | x) and q(z | top, x) are the conditionals of the joint Gaussian, their scales times `widen`.
    """

    def __init__(self, widen: float = 1.0, features: int = 4, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.above, self.weight, self.bias, self.widen = normal(3, 2), normal(features, 3), normal(features), widen
        self.eye = {size: torch.eye(size, dtype=torch.float64) for size in (2, 3, features)}
        self.features = features

    def marginal(self) -> torch.distributions.MultivariateNormal:
        inner = self.above @ self.above.T + 0.5 * self.eye[3]
        covariance = self.weight @ inner @ self.weight.T + 0.4 * self.eye[self.features]
        return torch.distributions.MultivariateNormal(self.bias, covariance)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x): `(batch,)` nats."""
        return self.marginal().log_prob(x)

    def data(self, rows: int, seed: int = 1) -> Tensor:
        """Draws x ~ p(x): `(rows, features)`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.marginal().sample((rows,))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(top @ self.above.T, 0.5**0.5).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T + self.bias, 0.4**0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        through = self.weight @ self.above  # x | top ~ N(through top + b, seen)
        seen = 0.5 * self.weight @ self.weight.T + 0.4 * self.eye[self.features]
        precision = self.eye[2] + through.T @ torch.linalg.solve(seen, through)
        pull = torch.linalg.solve(precision, through.T @ torch.linalg.inv(seen))
        with pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", self._normal((x - self.bias) @ pull.T, precision))
            precision = self.eye[3] / 0.5 + self.weight.T @ self.weight / 0.4
            push = (x - self.bias) @ self.weight / 0.4 + top @ self.above.T / 0.5
            pyro.sample("z", self._normal(torch.linalg.solve(precision, push.unsqueeze(-1)).squeeze(-1), precision))

    def _normal(self, loc: Tensor, precision: Tensor) -> Any:
        return dist.MultivariateNormal(loc, scale_tril=self.widen * torch.linalg.cholesky(torch.linalg.inv(precision)))


def affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
