"""A linear-Gaussian hierarchy whose posteriors are known, layer by layer."""

import math

import torch

from ppvae.models import encoders, likelihoods, priors
from ppvae.selfcheck.analytic import affine

DOUBLE = torch.float64


def normal(weight, bias, scale):
    """A module from z to N(weight z + bias, diag scale^2)."""
    outputs = torch.cat([bias, scale.log()])
    return encoders.DiagonalNormal(affine(torch.cat([weight, torch.zeros_like(weight)]), outputs))


class TwoLayers:
    """z2 ~ N(0, I), z1 ~ N(A z2 + a, t^2 I), x ~ N(W z1 + b, c I), with A and W'W diagonal: diagonal posteriors."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
        self.w = torch.linalg.qr(square)[0][:, :2] * torch.tensor([0.7, 1.3], dtype=DOUBLE)
        self.b = torch.randn(4, generator=generator, dtype=DOUBLE)
        self.a_diagonal, self.a = torch.tensor([1.2, -0.5], dtype=DOUBLE), torch.tensor([0.3, -1.0], dtype=DOUBLE)
        self.t2, self.c = 0.4, 0.2

    @property
    def z1_variance(self):
        return self.a_diagonal.square() + self.t2

    def marginal(self):
        covariance = self.w @ self.z1_variance.diag() @ self.w.T + self.c * torch.eye(4, dtype=DOUBLE)
        return torch.distributions.MultivariateNormal(self.w @ self.a + self.b, covariance)

    def parts(self):
        """The prior, the conditional and the likelihood."""
        t = torch.full((2,), math.sqrt(self.t2), dtype=DOUBLE)
        likelihood = likelihoods.Normal(affine(self.w, self.b), self.c).double()
        likelihood.log_scale.data.fill_(0.5 * math.log(self.c))  # to all digits of float64
        return priors.StandardNormal(2).double(), [normal(self.a_diagonal.diag(), self.a, t)], likelihood

    def bottom_up(self, widen=1.0):
        """q(z1 | x) and q(z2 | z1), the posteriors of the story; or scales that are off."""
        gram = (self.w.T @ self.w).diagonal()
        variance = 1 / (1 / self.z1_variance + gram / self.c)
        weight = variance.unsqueeze(-1) * self.w.T / self.c
        first = normal(weight, variance * self.a / self.z1_variance - weight @ self.b, widen * variance.sqrt())
        variance = 1 / (1 + self.a_diagonal.square() / self.t2)
        weight = (variance * self.a_diagonal / self.t2).diag()
        return [first, normal(weight, -weight @ self.a, widen * variance.sqrt())]

    def messages(self):
        """What x says of z1 alone, N(z1; (W'W)^-1 W'(x - b), c (W'W)^-1), and the posterior of z2."""
        gram = (self.w.T @ self.w).diagonal()
        weight = self.w.T / gram.unsqueeze(-1)
        first = normal(weight, -weight @ self.b, (self.c / gram).sqrt())
        noise = self.t2 * self.w @ self.w.T + self.c * torch.eye(4, dtype=DOUBLE)
        down = self.w * self.a_diagonal  # x ~ N(down z2 + W a + b, noise)
        gain = down.T @ torch.linalg.inv(noise)
        variance = 1 / (1 + (gain @ down).diagonal())
        weight = variance.unsqueeze(-1) * gain
        return [first, normal(weight, -weight @ (self.w @ self.a + self.b), variance.sqrt())]

    def data(self, rows):
        torch.manual_seed(1)
        return self.marginal().sample((rows,))
