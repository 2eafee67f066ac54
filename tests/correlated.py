"""A story whose posterior is far from diagonal."""

import math

import torch
from torch import nn

from ppvae.models import VAE, encoders, likelihoods, priors


def correlated():
    """A linear-Gaussian story whose posterior is far from diagonal, its posterior mean and precision."""
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 3).double(), torch.randn(4).double()
    decoder = nn.Linear(3, 4).double()
    decoder.load_state_dict({"weight": weight, "bias": bias})
    precision = torch.eye(3).double() + weight.T @ weight / 0.3
    gain, deviation = torch.linalg.solve(precision, weight.T) / 0.3, torch.linalg.inv(precision).diagonal().sqrt()
    encoder = nn.Linear(4, 6).double()  # off by half a deviation, and as wide as the marginals
    off = torch.cat([0.5 * deviation - gain @ bias, deviation.log()])
    encoder.load_state_dict({"weight": torch.cat([gain, 0 * gain]), "bias": off})
    likelihood = likelihoods.Normal(decoder, 0.3)
    story = VAE(priors.StandardNormal(3), likelihood, encoders.DiagonalNormal(encoder)).double()
    story.likelihood.log_scale.data.fill_(0.5 * math.log(0.3))
    x = 2 * torch.randn(200, 4).double()
    return story, x, (x - bias) @ gain.T, precision
