"""The variational autoencoder: one latent vector per datum."""

import pyro
from torch import Tensor, nn

from ppvae.base import Encoder, Likelihood, Penalty, Prior, optional
from ppvae.models import missing
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes


class VAE(nn.Module):
    """z ~ p(z), x ~ p(x | z), with the guide z ~ q(z | x). Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    A batch is `x`, or `(x, mask)` where values are missing: p(x | z) then scores what is observed, the guide sees zeros
    elsewhere, and every figure is of log p(x_observed). What x holds elsewhere, nan too, never matters
    (`models.missing`). It is `(x, mask, library)` where the likelihood takes a library size; a mask of ones where
    nothing is missing.

    Args:
        prior: p(z), event_shape `(latent,)`.
        likelihood: p(x | z), event_shape `(features,)`.
        encoder: q(z | x), event_shape `(latent,)`.
        penalty: what an objective adds to the loss, `(story, x, z)` to nats per datum: a factor of the guide, so that
            no log-weight and no evidence ever holds it (`models.autoencoders`).

    >>> from ppvae import networks
    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = VAE(
    ...     prior=priors.StandardNormal(2),
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(2, [8], 3)),
    ...     encoder=encoders.DiagonalNormal(networks.mlp(3, [8], 4)),
    ... )
    >>> pyro.poutine.trace(story.model).get_trace(torch.ones(5, 3)).nodes["z"]["value"].shape
    torch.Size([5, 2])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, encoder: Encoder, penalty: Penalty | None = None):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder
        self.penalty = penalty

    def model(self, x: Tensor, mask: Tensor | None = None, library: Tensor | None = None) -> Tensor:
        register(self)
        x, *given = self.seen(x, mask, library)  # (batch, features)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # (batch, latent)
            p = self.likelihood(z, *given[1:])
            return pyro.sample("x", missing.observed(p, given[0]) if given else p, obs=x)

    def guide(self, x: Tensor, mask: Tensor | None = None, library: Tensor | None = None) -> Tensor:
        register(self)
        x, *_ = self.seen(x, mask, library)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.encoder(x))
            if self.penalty is not None:
                pyro.factor("penalty", self.penalty(self, x, z), has_rsample=True)
            return z

    @property
    def library(self) -> bool:
        """Whether the batch holds the library size of every row: where the likelihood takes it."""
        return bool(optional(self.likelihood, "library"))

    @property
    def scores(self) -> str:
        """What its figures are of, where that is not p(x)."""
        return "p(x | library size)" if self.library else ""

    def seen(self, x: Tensor, mask: Tensor | None = None, library: Tensor | None = None) -> tuple[Tensor, ...]:
        """The batch as the programs see it: zeros where x is missing, a mask of booleans, a library `(batch, 1)`.

        Two batches that differ only in what stands where x is missing are the same one here.

        Raises:
            ValueError: a mask of another shape than x; a library without a mask, or that the likelihood does not take.
        """
        takes = self.library
        if takes != (library is not None):
            rule = (
                "takes the library size of every row" if takes else "takes no library size (library=True asks for it)"
            )
            raise ValueError(
                f"{type(self.likelihood).__name__} {rule}: a batch should be (x, mask{', library' * takes})"
            )
        if mask is None:
            return (x,)
        batch = (missing.zeros_where_missing(x, mask), mask.bool())
        return batch if library is None else (*batch, library.reshape(len(x), 1).to(x))


def vae(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> VAE:
    """z ~ p(z), x ~ p(x | z), with the guide z ~ q(z | x): one latent vector per datum.

    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z).
        encoder: makes q(z | x).
        sizes: of the data and the code, and the family of the networks.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2).encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    guide = sizes.encoder(encoder)
    return VAE(sizes.prior(prior, guide), sizes.likelihood(likelihood), guide)
