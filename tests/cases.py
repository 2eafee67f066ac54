"""Every part of the package, made ready for the contracts: a new part is one line here."""

from functools import partial

import torch

from ppvae import networks
from ppvae.models import assemble, encoders, likelihoods, priors

PRIORS = {
    "StandardNormal": priors.StandardNormal,
    "GaussianMixture": partial(priors.GaussianMixture, components=3),
    "DiagonalNormal": priors.DiagonalNormal,
    "Laplace": partial(priors.Laplace, scale=0.5),
    "Laplace learned": partial(priors.Laplace, learned=True),
    "StudentT": partial(priors.StudentT, df=3.0),
    "StudentT learned": partial(priors.StudentT, learned=True),
    "VampPrior": partial(priors.VampPrior, components=3),
    "VampPrior weighted": partial(priors.VampPrior, components=3, learned_weights=True),
    "NeuralSplineFlow": partial(priors.NeuralSplineFlow, transforms=2, hidden=[8], bins=4),
    "MaskedAutoregressiveFlow": partial(priors.MaskedAutoregressiveFlow, hidden=[8]),
    "RealNVP": partial(priors.RealNVP, hidden=[8]),
    "LARS": partial(priors.LARS, hidden=[8]),
    "LARS untruncated": partial(priors.LARS, hidden=[8], truncation=None),
    "ExPost": partial(priors.ExPost, components=2),
    "OneHot": priors.OneHot,
    "OneHot learned": partial(priors.OneHot, learned=True),
    "RelaxedOneHot": priors.RelaxedOneHot,
    "RelaxedOneHot learned": partial(priors.RelaxedOneHot, learned=True),
    "HypersphericalUniform": priors.HypersphericalUniform,
    "VonMisesFisher": priors.VonMisesFisher,
}

LIKELIHOODS = {  # and data that each can score
    "Bernoulli": (likelihoods.Bernoulli, lambda: torch.bernoulli(torch.full((6, 2), 0.5))),
    "Binomial": (partial(likelihoods.Binomial, total_count=4), lambda: torch.randint(0, 5, (6, 2)).float()),
    "Normal": (likelihoods.Normal, lambda: torch.randn(6, 2)),
    "Normal learned": (partial(likelihoods.Normal, learned=True), lambda: torch.randn(6, 2)),
    "HeteroscedasticNormal": (likelihoods.HeteroscedasticNormal, lambda: torch.randn(6, 2)),
    "OptimalNormal": (likelihoods.OptimalNormal, lambda: torch.randn(6, 2)),
    "Laplace": (likelihoods.Laplace, lambda: torch.randn(6, 2)),
    "Laplace learned": (partial(likelihoods.Laplace, learned=True), lambda: torch.randn(6, 2)),
    "StudentT": (likelihoods.StudentT, lambda: torch.randn(6, 2)),
    "StudentT learned": (partial(likelihoods.StudentT, learned=True), lambda: torch.randn(6, 2)),
    "ContinuousBernoulli": (likelihoods.ContinuousBernoulli, lambda: torch.rand(6, 2)),
    "Beta": (likelihoods.Beta, lambda: torch.rand(6, 2).round(decimals=1)),  # 0 and 1 too
    "BetaBinomial": (partial(likelihoods.BetaBinomial, total_count=4), lambda: torch.randint(0, 5, (6, 2)).float()),
    "Poisson": (likelihoods.Poisson, lambda: torch.poisson(torch.full((6, 2), 3.0))),
    "NegativeBinomial": (likelihoods.NegativeBinomial, lambda: torch.poisson(torch.full((6, 2), 3.0))),
    "ZeroInflatedNegativeBinomial": (
        likelihoods.ZeroInflatedNegativeBinomial,
        lambda: torch.poisson(torch.full((6, 2), 1.0)),
    ),
    "Categorical": (partial(likelihoods.Categorical, levels=4), lambda: torch.randint(0, 4, (6, 2)).float()),
    "DiscretizedLogistic": (
        partial(likelihoods.DiscretizedLogistic, levels=8),
        lambda: torch.randint(0, 8, (6, 2)).float(),
    ),
    "DiscretizedLogisticMixture": (
        partial(likelihoods.DiscretizedLogisticMixture, levels=8, components=2),
        lambda: torch.randint(0, 8, (6, 2)).float(),
    ),
    "Heterogeneous": (
        partial(likelihoods.Heterogeneous, columns=["normal", "categorical(3)"]),
        lambda: torch.stack([2 + torch.randn(6), torch.tensor([0.0, 0, 0, 0, 1, 2])], dim=-1),
    ),
}

ENCODERS = {
    "DiagonalNormal": encoders.DiagonalNormal,
    "PointMass": encoders.PointMass,
    "FullNormal": encoders.FullNormal,
    "LowRankNormal": encoders.LowRankNormal,
    "NormalMixture": partial(encoders.NormalMixture, components=2),
    "InverseAutoregressiveFlow": partial(encoders.InverseAutoregressiveFlow, hidden=[8], context=4),
    "NeuralSpline": partial(encoders.NeuralSpline, hidden=[8], context=4, bins=4),
    "Sylvester": partial(encoders.Sylvester, transforms=2, context=4),
    "OneHotCategorical": encoders.OneHotCategorical,
    "GumbelSoftmax": encoders.GumbelSoftmax,
    "VonMisesFisher": encoders.VonMisesFisher,
}

ENCODER_OF = {  # a prior whose support is not all of R^latent: the encoder that goes with it
    "OneHot": "OneHotCategorical",
    "OneHot learned": "OneHotCategorical",
    "RelaxedOneHot": "GumbelSoftmax",
    "RelaxedOneHot learned": "GumbelSoftmax",
    "HypersphericalUniform": "VonMisesFisher",
    "VonMisesFisher": "VonMisesFisher",
}
PRIOR_OF = {  # and the other way round
    "OneHotCategorical": "OneHot",
    "GumbelSoftmax": "RelaxedOneHot",
    "VonMisesFisher": "HypersphericalUniform",
}

PARTS = [
    *({"prior": name, "encoder": ENCODER_OF.get(name, "DiagonalNormal")} for name in PRIORS),
    *({"likelihood": name} for name in LIKELIHOODS),
    *({"encoder": name, "prior": PRIOR_OF.get(name, "StandardNormal")} for name in ENCODERS),
]


def story_of(prior="StandardNormal", likelihood="Normal", encoder="DiagonalNormal", seed=0, **options):
    """A small VAE of parts by name: two features, two latent dimensions."""
    torch.manual_seed(seed)
    parts = (PRIORS[prior], LIKELIHOODS[likelihood][0], ENCODERS[encoder])
    return assemble(*parts, shape=(2,), latent=2, network=networks.MLP([8]), **options)


def data_of(likelihood="Normal", **_):
    """Six data that a likelihood can score."""
    return LIKELIHOODS[likelihood][1]()
