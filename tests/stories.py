"""Stories written out in a test, one datum a number, and integrals over their latent by quadrature."""

import hashlib
import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from ppvae.models import Autoencoder


class Written(nn.Module):
    """A model and a guide as functions of the data, each run within the data plate."""

    def __init__(self, model, guide):
        super().__init__()
        self.within = model, guide

    def model(self, *batch):
        with pyro.plate("data", len(batch[0]), dim=-1):
            self.within[0](*batch)

    def guide(self, *batch):
        with pyro.plate("data", len(batch[0]), dim=-1):
            self.within[1](*batch)


def one_latent(prior, likelihood, guide):
    """z ~ prior, x ~ likelihood(z), both of one number; the guide is a distribution of z by x."""

    def model(x):
        z = pyro.sample("z", prior)
        pyro.sample("x", likelihood(z), obs=x)

    def propose(x):
        pyro.sample("z", guide(x))

    return Written(model, propose)


def integral(prior, likelihood, x, low, high, points=40_001):
    """log p(x), by the trapezoidal rule."""
    z = torch.linspace(low, high, points, dtype=torch.float64)
    log_p = prior.log_prob(z).unsqueeze(-1) + likelihood(z.unsqueeze(-1)).log_prob(x)
    log_p = log_p.nan_to_num(nan=-math.inf)
    log_p[[0, -1]] -= math.log(2)
    return torch.logsumexp(log_p, dim=0) + math.log((high - low) / (points - 1))


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def gamma_story():
    """z ~ Gamma(3, 2), x ~ N(z, 0.5^2); the guide a log-normal."""
    prior = dist.Gamma(number(3.0), number(2.0))

    def likelihood(z):
        return dist.Normal(z, 0.5)

    def guide(x):
        return dist.LogNormal(torch.full_like(x, 0.2), 0.6)

    x = torch.tensor([0.2, 1.0, 2.5], dtype=torch.float64)
    return one_latent(prior, likelihood, guide), x, integral(prior, likelihood, x, 1e-9, 20)


def two_modes():
    """z ~ N(0, 2^2), x ~ N(z^2, 0.5^2): modes near +-sqrt(x); the guide knows the upper one alone."""
    prior = dist.Normal(number(0.0), 2.0)

    def likelihood(z):
        return dist.Normal(z.square(), 0.5)

    def guide(x):
        return dist.Normal(x.clamp_min(0.1).sqrt(), 0.2)

    x = torch.tensor([3.0, 4.0, 6.0], dtype=torch.float64)
    return one_latent(prior, likelihood, guide), x, integral(prior, likelihood, x, -20, 20)


def blind(known, seed=0):
    """The known story with a point mass that is not where the posterior is."""
    torch.manual_seed(seed)
    exact = known.story()
    return Autoencoder(exact.prior, exact.likelihood, nn.Linear(len(known.bias), known.weight.shape[1])).double()


def off_from_one(log_ratio):
    """How many standard errors the mean of exp(log_ratio) is away from 1, by its spread."""
    ratio = torch.expm1(log_ratio.double())
    return (ratio.mean() / (ratio.std() / len(ratio) ** 0.5)).item()


def fingerprint(*things):
    """What no evaluation should change: parameters, buffers, gradients, modes, generators, Pyro's store."""
    digest = hashlib.sha256()
    for thing in things:
        for name, tensor in [*thing.named_parameters(), *thing.named_buffers()]:
            for part in (tensor, tensor.grad):
                content = b"none" if part is None else part.detach().numpy().tobytes()
                digest.update(name.encode() + content + str(tensor.requires_grad).encode())
        digest.update(str([module.training for module in thing.modules()]).encode())
    digest.update(torch.get_rng_state().numpy().tobytes())
    numpys = np.random.get_state()  # noqa: NPY002
    digest.update(repr(numpys).encode() + repr(random.getstate()).encode())
    for name, value in sorted(pyro.get_param_store().items()):
        digest.update(name.encode() + value.detach().numpy().tobytes())
        digest.update(b"none" if value.grad is None else value.grad.numpy().tobytes())
    settings = (torch.is_grad_enabled(), torch.get_default_dtype(), pyro.settings.get("validate_poutine"))
    digest.update(repr((*settings, torch.backends.cudnn.enabled)).encode())
    return digest.hexdigest()
