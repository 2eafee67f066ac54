"""The semi-supervised variational autoencoder: some rows of a batch have a label, the others' is a latent."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppvae.base import Encoder, Likelihood, Prior
from ppvae.models.beside import one_hot, side_by_side
from ppvae.models.checks import at_least_one
from ppvae.models.parameter_store import register
from ppvae.models.sizes import Maker, Sizes

CERTAIN = 100.0  # a logit that leaves every other label a probability of 0 in float32, and a finite log


class SemiSupervised(nn.Module):
    """y ~ Cat(pi), z ~ p(z), x ~ p(x | z, y), with the guide y ~ q(y | x), z ~ q(z | x, y).

    The model M2 of Kingma et al. 2014, https://arxiv.org/abs/1406.5298. A row with the label -1 has none: its y is
    drawn by `elbo`, and summed over exactly by `enumerated_elbo`. The figure of such a row is log p(x), that of a row
    with a label log p(x, y). y is a row of one 1; it stands beside z at the likelihood's network and beside x at the
    encoder's. In the latents and the codes of a row, q(y | x) comes before z: a row's label itself, where it has one.

    The ELBO of a labelled row does not train q(y | x), so `elbo` and `enumerated_elbo` add alpha log q(y | x) there: a
    factor in the guide, which no figure counts. `iwae` and the log-weights leave it out, so that under `iwae` q(y | x)
    learns from the rows without a label alone: train with `enumerated_elbo`. The paper's weight, 0.1 N for the mean
    over the labelled, is alpha = 0.1 N / N_labelled: 50 for its 100 labels of 50,000.

    Args:
        prior: p(z).
        likelihood: p(x | z, y), of `(..., latent + classes)`.
        encoder: q(z | x, y), of `(..., features + classes)`.
        classifier: the logits of q(y | x), from `(..., features)` to `(..., classes)`.
        classes: number of labels, from 0.
        alpha: weight of -log q(y | x) in the objective of a labelled row, nats.

    Raises:
        ValueError: fewer than one class, or a negative alpha.

    >>> from ppvae import networks
    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = SemiSupervised(
    ...     prior=priors.StandardNormal(2),
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(2 + 10, [8], 3)),
    ...     encoder=encoders.DiagonalNormal(networks.mlp(3 + 10, [8], 4)),
    ...     classifier=networks.mlp(3, [8], 10),
    ...     classes=10,
    ... )
    >>> story.predict(torch.ones(5, 3)).shape
    torch.Size([5, 10])
    """

    labels_may_miss = True
    scores = "p(x, labels), p(x) where there is no label"  # what its figures are of

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood,
        encoder: Encoder,
        classifier: nn.Module,
        classes: int,
        alpha: float = 10.0,
    ):
        super().__init__()
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha should be 0 or more, and finite, got {alpha}")
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder
        self.classifier = classifier
        self.classes = at_least_one("classes", classes)
        self.alpha = alpha
        self.logits = nn.Parameter(torch.zeros(classes))  # of pi

    def model(self, x: Tensor, labels: Tensor | None = None) -> Tensor:  # x: (batch, features)
        register(self)
        known, labelled = self.rows(x, labels)
        with pyro.plate("data", len(x), dim=-1):
            # as Pyro's obs_mask would, but for float64 in TraceEnum_ELBO: two sites, each masked in the other's rows
            prior = dist.OneHotCategorical(logits=self.logits)
            with poutine.mask(mask=labelled):
                known = pyro.sample("y_observed", prior, obs=known)
            with poutine.mask(mask=~labelled):
                y = pyro.sample("y", prior)  # (batch, classes)
            y = torch.where(labelled.unsqueeze(-1), known, y)
            z = pyro.sample("z", self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(side_by_side(z, y)), obs=x)

    def guide(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        register(self)
        known, labelled = self.rows(x, labels)
        logits = self.classifier(x)  # (batch, classes)
        with pyro.plate("data", len(x), dim=-1):
            log_q = dist.OneHotCategorical(logits=logits).log_prob(known)
            pyro.factor("classification", -self.alpha * log_q.where(labelled, 0.0), has_rsample=True)
            q = dist.OneHotCategorical(logits=torch.where(labelled.unsqueeze(-1), CERTAIN * known, logits))
            y = pyro.sample("y", q, infer={"enumerate": "parallel"})  # of a label, certain: log q = 0
            return pyro.sample("z", self.encoder(side_by_side(x, y)))

    def rows(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Any]:
        """Labels as rows of one 1, `(batch, classes)`, and which data have one, `(batch,)`."""
        if labels is None:
            labels = torch.full((len(x),), -1, device=x.device)
        return one_hot(labels, self.classes, like=x, missing=True), labels >= 0

    def predict(self, x: Tensor) -> Tensor:
        """q(y | x), `(batch, features)` to `(batch, classes)`."""
        return torch.softmax(self.classifier(x), dim=-1)


def semi_supervised(
    prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, alpha: float = 10.0
) -> SemiSupervised:
    """y ~ Cat(pi), z ~ p(z), x ~ p(x | z, y), with the guide y ~ q(y | x), z ~ q(z | x, y); some y are given.

    Kingma et al. 2014, https://arxiv.org/abs/1406.5298

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z, y).
        encoder: makes q(z | x, y).
        sizes: of the data and the code, and the family of the networks.
        alpha: weight of -log q(y | x) in the objective of a datum that has a label, nats.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> story = assemble(*parts, shape=(3,), latent=2, classes=4, story=semi_supervised)
    >>> story.classifier(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """
    classes = sizes.known_classes
    guide = sizes.encoder(encoder, beside=classes)
    return SemiSupervised(
        sizes.with_labels().prior(prior, guide),
        sizes.likelihood(likelihood, inputs=sizes.latent + classes),
        guide,
        sizes.encoder_network(classes),
        classes,
        alpha,
    )
