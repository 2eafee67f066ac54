"""Exact values and gradients of objectives, by quadrature and enumeration: no draw, no estimator of ours."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import affine


def grid(nodes, dims):
    """Evenly spaced nodes of `dims` standard normals, `(dims, nodes^dims)`, and their weights.

    The trapezoidal rule: where log-mean-exp nearly has a kink (log w_1 = log w_2), Gauss-Hermite nodes are too few.
    """
    points = torch.linspace(-8, 8, nodes, dtype=torch.float64)
    weights = torch.softmax(-0.5 * points**2, dim=0)
    every = torch.cartesian_prod(*[torch.arange(nodes)] * dims).reshape(-1, dims)
    return points[every].T, weights[every].prod(-1)


class Gaussian:
    """A linear-Gaussian story of one latent dimension, all of whose parameters learn, and its bounds by quadrature."""

    def __init__(self):
        pairs = torch.tensor([[0.7], [-1.2]]), torch.tensor([0.1, 0.3])
        self.story = VAE(
            priors.DiagonalNormal(1),
            likelihoods.Normal(affine(*(value.double() for value in pairs)), 0.5, learned=True),
            encoders.DiagonalNormal(
                affine(torch.tensor([[0.3, -0.2], [0.1, 0.05]]).double(), torch.tensor([0.2, -0.1]).double())
            ),
        ).double()
        with torch.no_grad():
            for parameter in self.story.prior.parameters():
                parameter.add_(0.2)
        self.x = torch.tensor([[0.5, -1.0], [1.5, 0.3], [-0.4, 0.8]]).double()

    def terms(self, eps):
        """log p(x | z), log p(z), log q(z | x) and z, at z = m + s eps: `(particles, nodes, batch)`."""
        q, eps = self.story.encoder(self.x), eps[..., None, None]
        z = q.base_dist.loc + q.base_dist.scale * eps
        return self.story.likelihood(z).log_prob(self.x), self.story.prior().log_prob(z), q.log_prob(z), z

    def expected(self, bound, particles=2, beta=1.0, nodes=81):
        """The exact loss, minus E over the draws of a reduction of log-weights."""
        eps, mass = grid(nodes, particles)
        log_likelihood, log_prior, log_q, _ = self.terms(eps)
        return -(mass @ bound(log_likelihood + beta * (log_prior - log_q))).mean()

    def awake(self):
        """E sum_k v_k log q(z_k | x) of two draws that are given: what the guide follows in the wake phase."""
        eps, mass = grid(81, 2)
        with torch.no_grad():
            log_likelihood, log_prior, log_q, z = self.terms(eps)
            weights = torch.softmax(log_likelihood + log_prior - log_q, dim=0)
        return -(mass @ (weights * self.story.encoder(self.x).log_prob(z)).sum(0)).mean()

    def asleep(self):
        """E log q(z | x) over z and x from the model: in the sleep phase."""
        eps, mass = grid(33, 3)
        with torch.no_grad():
            p = self.story.prior().base_dist
            z = p.loc + p.scale * eps[0].unsqueeze(-1)  # (nodes, 1)
            x = self.story.likelihood(z).base_dist
            x = x.loc + x.scale * eps[1:].T
        return -(mass @ self.story.encoder(x).log_prob(z))


class Mixed(nn.Module):
    """A coin and a real number, both latent, their guides apart; and its bounds by enumeration and quadrature."""

    def __init__(self):
        super().__init__()
        self.logit, self.loc = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor([-0.5, 1.0]))
        self.coin, self.q_loc = nn.Parameter(torch.tensor(-0.3)), nn.Parameter(torch.tensor(0.2))
        self.log_scale = nn.Parameter(torch.tensor(0.1))
        self.double()
        self.x = torch.tensor([1.2]).double()

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Bernoulli(logits=self.logit))
            z = pyro.sample("z", dist.Normal(self.loc[k.long()], 1.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Bernoulli(logits=self.coin))
            pyro.sample("z", dist.Normal(self.q_loc, self.log_scale.exp()))

    def expected(self, bound, particles=2):
        eps, mass = grid(81, particles)
        total = torch.zeros(()).double()
        q_k, z = dist.Bernoulli(logits=self.coin), self.q_loc + self.log_scale.exp() * eps  # (particles, nodes)
        for k in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * particles).reshape(-1, particles, 1).double():
            log_p = dist.Bernoulli(logits=self.logit).log_prob(k) + dist.Normal(self.loc[k.long()], 1.0).log_prob(z)
            log_q = q_k.log_prob(k) + dist.Normal(self.q_loc, self.log_scale.exp()).log_prob(z)
            total = total - q_k.log_prob(k).sum().exp() * (
                mass @ bound(log_p + dist.Normal(z, 0.7).log_prob(self.x) - log_q)
            )
        return total


def mean(log_w):
    return log_w.mean(0)


def log_mean_exp(log_w):
    return log_w.exp().mean(0).log()


def between(log_w):
    return 0.3 * mean(log_w) + 0.7 * log_mean_exp(log_w)


def half(log_w):
    return 2 * log_mean_exp(log_w / 2)


def double_order(log_w):
    return -log_mean_exp(-log_w)


def is_guides(name):
    return name.startswith(("encoder", "coin", "q_loc", "log_scale"))


def flat(story, loss):
    """The gradient as one vector; zero where the loss does not hang on a parameter."""
    parameters = list(story.parameters())
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if s is None else s.flatten() for s, p in zip(slopes, parameters, strict=True)]
    )


def by_role(story, model, guide):
    """One gradient for the model's parameters, another for the guide's."""
    sizes = [(is_guides(name), p.numel()) for name, p in story.named_parameters()]
    chosen = torch.cat([torch.full((size,), role) for role, size in sizes])
    return torch.where(chosen, flat(story, guide), flat(story, model))


def estimated(story, x, objective, repeats=200, batches=120):
    """Means and standard errors of a loss and its gradient: `(1 + parameters,)` each."""
    rows = x.repeat(repeats, *[1] * (x.dim() - 1))
    found = []
    for seed in range(batches):
        torch.manual_seed(seed)
        loss = objective(story, rows)
        found.append(torch.cat([loss.detach().reshape(1), flat(story, loss)]))
    found = torch.stack(found)
    return found.mean(0), found.std(0) / math.sqrt(batches)


def agree(story, x, objective, value, exact, rough=0.05):
    """Within four standard errors everywhere, and those are a small part of what is estimated."""
    exact = torch.cat([value.detach().reshape(1), exact])
    found, error = estimated(story, x, objective)
    assert ((found - exact).abs() <= 4 * error + 1e-12).all(), (found - exact) / error
    assert error[1:].norm() < rough * exact[1:].norm()


def unbiased(objective, bound, **options):
    """Of the Gaussian story, the objective and its gradient are on average those of a reduction of log-weights."""
    known = Gaussian()
    exact = known.expected(bound, **options)
    agree(known.story, known.x, objective, exact, flat(known.story, exact))


def far(story, x, objective, other):
    """The estimate can be told from another bound's gradient: the tolerance means something."""
    found, error = estimated(story, x, objective)
    return ((found[1:] - flat(story, other)).abs() > 6 * error[1:]).any()
