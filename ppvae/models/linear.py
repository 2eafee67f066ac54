"""Linear stories, which have exact answers."""

import torch
from torch import Tensor, nn

from ppvae.models.autoencoders import Autoencoder
from ppvae.models.likelihoods import Normal
from ppvae.models.priors import Flat


def PCA(x: Tensor, latent: int) -> Autoencoder:
    """Principal component analysis in closed form, as a linear autoencoder that needs no fit.

    The code is the projection on the `latent` leading eigenvectors of the covariance of x. No linear autoencoder has
    a smaller squared error; what is left is the sum of the discarded eigenvalues. Bourlard & Kamp 1988,
    https://doi.org/10.1007/BF00332918

    Args:
        x: data, `(batch, features)`.
        latent: number of components, at most the smaller of batch and features.

    Raises:
        ValueError: when `latent` is out of range.

    >>> x = torch.randn(100, 5)
    >>> story = PCA(x, latent=5)
    >>> torch.allclose(story.likelihood(story.encoder(x).mean).mean, x, atol=1e-5)
    True
    """
    if not 1 <= latent <= min(x.shape):
        raise ValueError(f"latent should be from 1 to {min(x.shape)} for data of shape {tuple(x.shape)}, got {latent}")
    mean = x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x - mean, full_matrices=False)
    axes = axes[:latent]  # (latent, features)
    encode = _affine(axes, -axes @ mean)
    decode = _affine(axes.T, mean)
    residual = (x - decode(encode(x))).square().mean().item()
    variance = max(residual, torch.finfo(x.dtype).tiny)  # zero when nothing is discarded
    return Autoencoder(Flat(latent), Normal(decode, variance), encode).to(x)


def _affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).to(weight)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
