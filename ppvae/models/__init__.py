"""Generative stories and their parts: priors, likelihoods, guides."""

from ppvae.models import guides, likelihoods, priors
from ppvae.models.autoencoders import Autoencoder
from ppvae.models.linear import PCA
from ppvae.models.vae import VAE, assemble

__all__ = ["PCA", "VAE", "Autoencoder", "assemble", "guides", "likelihoods", "priors"]
