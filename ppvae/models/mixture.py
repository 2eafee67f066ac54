"""A mixture whose component is a latent of its own."""

from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution, Encoder, Likelihood, Prior
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes


class Mixture(nn.Module):
    """c ~ Cat(pi), z ~ N(m_c, diag s_c^2), x ~ p(x | z), with the guide z ~ q(z | x), c ~ p(c | z).

    The same p(x) as a `VAE` with the mixture for a prior, its component a site: clusters are named, and can be
    conditioned on. c is a row of one 1. In the guide, c follows the model's own p(c | z), the best guide there is, so
    every log-weight is the one of that VAE; `enumerated_elbo` sums over c exactly. Dilokthanakul et al. 2016,
    https://arxiv.org/abs/1611.02648; Jiang et al. 2017, https://arxiv.org/abs/1611.05148

    Args:
        prior: p(z), a mixture of diagonal Normals such as `priors.GaussianMixture`.
        likelihood: p(x | z).
        encoder: q(z | x).

    Raises:
        ValueError: a prior that is no mixture of diagonal Normals.

    >>> from ppvae import networks
    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = Mixture(
    ...     prior=priors.GaussianMixture(2, components=4),
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(2, [8], 3)),
    ...     encoder=encoders.DiagonalNormal(networks.mlp(3, [8], 4)),
    ... )
    >>> story.predict(torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, encoder: Encoder):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder
        self.mixture()

    def model(self, x: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        mixture = self.mixture()
        normals = mixture.component_distribution.base_dist
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", dist.OneHotCategorical(logits=mixture.mixture_distribution.logits))
            z = pyro.sample("z", dist.Normal(c @ normals.loc, c @ normals.scale).to_event(1))  # (batch, latent)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.encoder(x))
            pyro.sample("c", self.component(z), infer={"enumerate": "parallel"})
            return z

    def component(self, z: Tensor) -> Distribution:
        """p(c | z), of z `(..., latent)`."""
        mixture = self.mixture()
        log_joint = mixture.mixture_distribution.logits + mixture.component_distribution.log_prob(z.unsqueeze(-2))
        return dist.OneHotCategorical(logits=log_joint)

    def predict(self, x: Tensor) -> Tensor:
        """The probability of every component at the code of x, `(batch, features)` to `(batch, components)`."""
        return self.component(self.encoder(x).mean).probs

    def mixture(self) -> Any:
        prior = self.prior()
        normals = getattr(getattr(prior, "component_distribution", None), "base_dist", None)
        if not isinstance(normals, dist.Normal):
            kind = type(prior).__name__
            raise ValueError(f"a mixture story's prior should be a mixture of Normals (GaussianMixture), got {kind}")
        return prior


def mixture(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> Mixture:
    """c ~ Cat(pi), z ~ N(m_c, diag s_c^2), x ~ p(x | z), with the guide z ~ q(z | x), c ~ p(c | z).

    The prior has to be such a mixture, `--prior GaussianMixture` or one like it: any other, the default one too, is
    refused. Dilokthanakul et al. 2016, https://arxiv.org/abs/1611.02648

    Args:
        prior: makes p(z), a mixture of diagonal Normals.
        likelihood: makes p(x | z).
        encoder: makes q(z | x).
        sizes: of the data and the code, and the family of the networks.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.GaussianMixture, likelihoods.Normal, encoders.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2, story=mixture).encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    guide = sizes.encoder(encoder)
    return Mixture(sizes.prior(prior, guide), sizes.likelihood(likelihood), guide)
