"""Stories with a two-dimensional latent whose posteriors are known by quadrature: a banana, and two modes."""

import math

import pyro
import pyro.distributions as dist
import torch
from stories import Written

from ppvae.inference import log_joint

STEP = 0.02


def prior():
    return dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)


def banana():
    """z ~ N(0, I), x ~ N(z_2 + z_1^2, 0.3^2); the guide is a diagonal Normal."""

    def model(x):
        z = pyro.sample("z", prior())
        pyro.sample("x", dist.Normal(z[..., 1] + z[..., 0].square(), 0.3), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(torch.stack([0 * x, x / 2], dim=-1), 0.6).to_event(1))

    return Written(model, guide), torch.tensor([-1.0, -0.5, 0.5]).double()


def two_planes(noise=0.5):
    """z ~ N(0, I), x ~ N(z_1^2, noise^2): modes near z_1 = +-sqrt x; the guide knows the upper one alone."""

    def model(x):
        z = pyro.sample("z", prior())
        pyro.sample("x", dist.Normal(z[..., 0].square(), noise), obs=x)

    def guide(x):
        root = x.clamp_min(0.1).sqrt()
        scale = torch.tensor([noise / 2, 1.0]).double()
        pyro.sample("z", dist.Normal(torch.stack([root, 0 * x], dim=-1), scale).to_event(1))

    return Written(model, guide), torch.tensor([2.0, 3.0]).double()


def by_quadrature(story, x):
    """log p(x), E[z | x] and var[z | x] on a grid, as fine as it needs to be."""
    line = torch.arange(-6, 6 + STEP / 2, STEP, dtype=torch.float64)
    z = torch.cartesian_prod(line, line).unsqueeze(1).expand(-1, len(x), -1)
    log_p = log_joint(story, x, {"z": z})
    mass = log_p.softmax(0).unsqueeze(-1)
    mean = (mass * z).sum(0)
    return log_p.logsumexp(0) + 2 * math.log(STEP), mean, (mass * (z - mean).square()).sum(0)
