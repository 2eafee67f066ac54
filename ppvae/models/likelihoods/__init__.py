"""Likelihoods: modules whose call returns p(x | z), batch_shape `(...)` and event_shape `(features,)`.

Each takes a network from `(..., latent)` to `(..., features * outputs)`, where its attribute `outputs` is the number
of network outputs per observed element. Given z the elements are independent, so `missing.observed` can leave some out.
One of your own is a class like these, and needs no registration; one of the package's is imported and listed in
`__all__` here, which the command line reads.
"""

from ppvae.models.likelihoods.binary import Bernoulli
from ppvae.models.likelihoods.counts import (
    BetaBinomial,
    Binomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from ppvae.models.likelihoods.levels import Categorical, DiscretizedLogistic, DiscretizedLogisticMixture
from ppvae.models.likelihoods.mixed import Heterogeneous
from ppvae.models.likelihoods.optimal import OptimalNormal
from ppvae.models.likelihoods.real import HeteroscedasticNormal, Laplace, Normal, StudentT
from ppvae.models.likelihoods.unit import Beta, ContinuousBernoulli

__all__ = [
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Heterogeneous",
    "HeteroscedasticNormal",
    "Laplace",
    "NegativeBinomial",
    "Normal",
    "OptimalNormal",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]
