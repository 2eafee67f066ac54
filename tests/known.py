"""A linear-Gaussian story, whose evidence and posterior are known in closed form."""

import math

import torch
from torch import nn

from ppvae.models import VAE, guides, likelihoods, priors

LATENT, FEATURES, VARIANCE = 2, 5, 0.3


class LinearGaussian:
    """z ~ N(0, I), x ~ N(W z + b, c I): x ~ N(b, W W' + c I), z | x ~ N(S W' (x - b) / c, S), S = (I + W'W / c)^-1."""

    def __init__(self, latent=LATENT, features=FEATURES, variance=VARIANCE, seed=0):
        generator = torch.Generator().manual_seed(seed)
        # orthogonal columns make the exact posterior diagonal, so a diagonal guide can be exact
        square = torch.randn(features, features, generator=generator, dtype=torch.float64)
        scales = torch.linspace(0.6, 1.4, latent, dtype=torch.float64)
        self.weight = torch.linalg.qr(square)[0][:, :latent] * scales
        self.bias = torch.randn(features, generator=generator, dtype=torch.float64)
        self.variance = variance
        gram = self.weight.T @ self.weight / variance
        self.posterior_covariance = torch.linalg.inv(torch.eye(latent, dtype=torch.float64) + gram)
        self.gain = self.posterior_covariance @ self.weight.T / variance  # (latent, features)

    def marginal(self):
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(len(self.bias), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.bias, covariance)

    def posterior_mean(self, x):
        return (x.double() - self.bias) @ self.gain.T

    def data(self, rows, seed=1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.marginal().sample((rows,))

    def story(self, widen=1.0, shift=0.0):
        """The story with its exact posterior for a guide; or one whose scales and means are off."""
        decoder = affine(self.weight, self.bias)
        log_scale = 0.5 * self.posterior_covariance.diagonal().log() + math.log(widen)
        weight = torch.cat([self.gain, torch.zeros_like(self.gain)])
        bias = torch.cat([-self.gain @ self.bias + shift, log_scale])
        story = VAE(
            priors.StandardNormal(self.weight.shape[1]),
            likelihoods.Normal(decoder, self.variance),
            guides.DiagonalNormal(affine(weight, bias)),
        ).double()
        story.likelihood.log_scale.data.fill_(0.5 * math.log(self.variance))  # to all digits of float64
        return story

    def gap(self, widen, shift):
        """KL(q || posterior) of that guide, the same for every datum: the ELBO is log p(x) less this."""
        scale = self.posterior_covariance.diagonal().sqrt()
        q = torch.distributions.Normal(torch.full_like(scale, shift), widen * scale)
        p = torch.distributions.Normal(torch.zeros_like(scale), scale)
        return torch.distributions.kl_divergence(q, p).sum().item()


def affine(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
