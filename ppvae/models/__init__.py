"""Generative stories and their parts: priors, likelihoods, guides."""

from ppvae.models import guides, likelihoods, priors, stories
from ppvae.models.autoencoders import Autoencoder
from ppvae.models.linear import PCA
from ppvae.models.sizes import Sizes
from ppvae.models.stories import assemble
from ppvae.models.vae import VAE

__all__ = ["PCA", "VAE", "Autoencoder", "Sizes", "assemble", "guides", "likelihoods", "priors", "stories"]
