"""The conditional variational autoencoder: x given labels or covariates y."""

from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution, Encoder, Likelihood, Prior
from ppvae.models.beside import one_hot, side_by_side
from ppvae.models.checks import at_least_one
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes


class Conditional(nn.Module):
    """z ~ p(z) or p(z | y), x ~ p(x | z, y), with the guide z ~ q(z | x, y); y is given, so the figure is log p(x | y).

    y stands beside z at the likelihood's network and beside x at the encoder's: both parts take `[z, y]` and `[x, y]`,
    side by side along the last dimension. Labels go in as rows of one 1 each, covariates as they are. To generate,
    give the labels: `sample(story, (x, labels))`. Sohn et al. 2015,
    https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html; Kingma et al. 2014,
    https://arxiv.org/abs/1406.5298

    Args:
        prior: p(z); or p(z | y), a module that takes y, when `given` says so.
        likelihood: p(x | z, y), of `(..., latent + classes)`.
        encoder: q(z | x, y), of `(..., features + classes)`.
        classes: number of labels, from 0; or of columns of the covariates.
        given: whether the prior takes y.

    The second tensor of a batch, `labels`, is `(batch,)` whole numbers, or `(batch, classes)` real covariates.

    >>> from ppvae import networks
    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = Conditional(
    ...     prior=priors.StandardNormal(2),
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(2 + 10, [8], 3)),
    ...     encoder=encoders.DiagonalNormal(networks.mlp(3 + 10, [8], 4)),
    ...     classes=10,
    ... )
    >>> trace = pyro.poutine.trace(story.model).get_trace(torch.ones(5, 3), torch.tensor([3, 1, 4, 1, 5]))
    >>> trace.nodes["z"]["value"].shape
    torch.Size([5, 2])
    """

    scores = "p(x | labels)"  # what its figures are of

    def __init__(self, prior: nn.Module, likelihood: Likelihood, encoder: Encoder, classes: int, given: bool = False):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder
        self.classes = at_least_one("classes", classes)
        self.given = given

    def model(self, x: Tensor, labels: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        y = self.covariates(labels, x)  # (batch, classes)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior(y) if self.given else self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(side_by_side(z, y)), obs=x)

    def guide(self, x: Tensor, labels: Tensor) -> Tensor:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.encoder(side_by_side(x, self.covariates(labels, x))))

    def covariates(self, labels: Tensor, like: Tensor) -> Tensor:
        """y as numbers, `(batch, classes)`."""
        if labels.is_floating_point() and tuple(labels.shape[1:]) == (self.classes,):
            return labels.to(like)
        if labels.dim() != 1 or labels.is_floating_point():
            kind = f"shape {tuple(labels.shape)} of {labels.dtype}".replace("torch.", "")
            raise ValueError(f"y should be whole numbers, one a datum, or real rows of {self.classes}; got {kind}")
        return one_hot(labels, self.classes, like)


class Moved(nn.Module):
    """p(z | y): a prior whose draws are scaled and moved, z = m(y) + s(y) e with e ~ p(e); m and log s are linear in y.

    It starts as the prior itself, the same for every y.

    Args:
        prior: p(e), on all of R^latent.
        classes: size of y.
        latent: number of latent dimensions.

    >>> from ppvae.models import priors
    >>> Moved(priors.StandardNormal(2), classes=10, latent=2)(torch.eye(10)).batch_shape
    torch.Size([10])
    """

    def __init__(self, prior: Prior, classes: int, latent: int):
        super().__init__()
        self.prior = prior
        self.move = nn.Linear(classes, 2 * latent, bias=False)
        nn.init.zeros_(self.move.weight)

    def forward(self, y: Tensor) -> Distribution:
        loc, log_scale = self.move(y).chunk(2, dim=-1)
        transform = dist.transforms.AffineTransform(loc, log_scale.exp(), event_dim=1)
        return dist.TransformedDistribution(self.prior().expand(loc.shape[:-1]), [transform])


def conditional(
    prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, prior_given_labels: bool = False
) -> Conditional:
    """z ~ p(z), x ~ p(x | z, y), with the guide z ~ q(z | x, y), of data whose labels y are given.

    Sohn et al. 2015, https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z, y).
        encoder: makes q(z | x, y).
        sizes: of the data and the code, and the family of the networks.
        prior_given_labels: whether the prior is moved and scaled by the label.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> story = assemble(*parts, shape=(3,), latent=2, classes=4, story=conditional)
    >>> story.encoder(torch.zeros(5, 3 + 4)).mean.shape
    torch.Size([5, 2])
    """
    classes = sizes.known_classes
    guide = sizes.encoder(encoder, beside=classes)
    made: Any = sizes.with_labels().prior(prior, guide)
    return Conditional(
        Moved(made, classes, sizes.latent) if prior_given_labels else made,
        sizes.likelihood(likelihood, inputs=sizes.latent + classes),
        guide,
        classes,
        given=prior_given_labels,
    )
