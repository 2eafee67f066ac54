"""Generative stories and their parts: priors, likelihoods, encoders."""

from ppvae.models import encoders, likelihoods, priors, stories
from ppvae.models.autoencoders import Autoencoder
from ppvae.models.conditional import Conditional
from ppvae.models.hierarchical import Hierarchical
from ppvae.models.ladder import Ladder
from ppvae.models.linear import Linear, fit_factor_analysis, fit_pca, fit_ppca
from ppvae.models.mixture import Mixture
from ppvae.models.semi_supervised import SemiSupervised
from ppvae.models.sizes import Sizes
from ppvae.models.stories import assemble
from ppvae.models.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "Conditional",
    "Hierarchical",
    "Ladder",
    "Linear",
    "Mixture",
    "SemiSupervised",
    "Sizes",
    "assemble",
    "encoders",
    "fit_factor_analysis",
    "fit_pca",
    "fit_ppca",
    "likelihoods",
    "priors",
    "stories",
]
