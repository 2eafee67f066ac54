"""Every part of the package, made ready for the contracts: a new part is one line here."""

from functools import partial

import torch

from ppvae import networks
from ppvae.models import assemble, guides, likelihoods, priors

PRIORS = {
    "StandardNormal": priors.StandardNormal,
    "GaussianMixture": partial(priors.GaussianMixture, components=3),
}

LIKELIHOODS = {  # and data that each can score
    "Bernoulli": (likelihoods.Bernoulli, lambda: torch.bernoulli(torch.full((6, 2), 0.5))),
    "Binomial": (partial(likelihoods.Binomial, total_count=4), lambda: torch.randint(0, 5, (6, 2)).float()),
    "Normal": (likelihoods.Normal, lambda: torch.randn(6, 2)),
    "Normal learned": (partial(likelihoods.Normal, learned=True), lambda: torch.randn(6, 2)),
}

ENCODERS = {
    "DiagonalNormal": guides.DiagonalNormal,
    "PointMass": guides.PointMass,
}

ENCODER_OF = {}  # a prior whose support is not all of R^latent: the encoder that goes with it
PRIOR_OF = {}  # and the other way round

PARTS = [
    *({"prior": name, "encoder": ENCODER_OF.get(name, "DiagonalNormal")} for name in PRIORS),
    *({"likelihood": name} for name in LIKELIHOODS),
    *({"encoder": name, "prior": PRIOR_OF.get(name, "StandardNormal")} for name in ENCODERS),
]


def story_of(prior="StandardNormal", likelihood="Normal", encoder="DiagonalNormal", **options):
    """A small VAE of parts by name: two features, two latent dimensions."""
    torch.manual_seed(0)
    parts = (PRIORS[prior], LIKELIHOODS[likelihood][0], ENCODERS[encoder])
    return assemble(*parts, shape=(2,), latent=2, network=networks.MLP([8]), **options)


def data_of(likelihood="Normal", **_):
    """Six data that a likelihood can score."""
    return LIKELIHOODS[likelihood][1]()
