"""Stories that several tests of objectives share."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from ppvae import networks
from ppvae.models import VAE, encoders, likelihoods, priors


class Discrete(nn.Module):
    """A latent that passes no gradient, beside one that does."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.2, -0.3, 0.1]))
        self.loc = nn.Parameter(torch.tensor([-1.0, 0.0, 2.0]))
        self.encode = nn.Linear(1, 5)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            z = pyro.sample("z", dist.Normal(self.loc[k], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(self, x):
        out = self.encode(x.unsqueeze(-1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Categorical(logits=out[..., :3]))
            pyro.sample("z", dist.Normal(out[..., 3], out[..., 4].exp()))


def vae(prior=None, encoder=None):
    torch.manual_seed(0)
    return VAE(
        prior or priors.GaussianMixture(2, components=3),
        likelihoods.Bernoulli(networks.mlp(2, [7], 5)),
        encoder or encoders.DiagonalNormal(networks.mlp(5, [7], 4)),
    )


def binary():
    return torch.bernoulli(torch.full((6, 5), 0.4))


KINDS = {
    "vae": lambda: (vae().double(), binary().double()),
    "two layers": lambda: story_of_two_layers(),
    "discrete": lambda: (Discrete().double(), torch.randn(6).double()),
}


def alike(kind, *objectives):
    """From the same draws objectives have the same value and gradient."""
    story, x = KINDS[kind]()
    found = []
    for objective in objectives:
        torch.manual_seed(3)
        loss = objective(story, x)
        found.append([loss.detach(), *gradients(story, loss).values()])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def gradients(story, loss):
    story.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in story.named_parameters()
    }


def story_of_two_layers():
    return Chain().double(), torch.randn(6, dtype=torch.float64)


class Chain(nn.Module):
    """Two latents, the second drawn given the first in both programs, and a penalty on them."""

    def __init__(self, reverse=False):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.tensor(value)) for value in (0.5, 0.9, -0.4))
        self.up, self.across, self.scale = (nn.Parameter(torch.tensor(value)) for value in (0.3, 0.6, -0.2))
        self.reverse = reverse

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            top = pyro.sample("top", dist.Normal(self.a.expand(len(x)), 1.0))
            z = pyro.sample("z", dist.Normal(self.b * top, 0.8))
            pyro.sample("x", dist.Normal(self.c * z + top, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            first, second = ("z", "top") if self.reverse else ("top", "z")
            u = pyro.sample(first, dist.Normal(self.up * x, self.scale.exp()))
            v = pyro.sample(second, dist.Normal(self.across * u.sin() + x, self.scale.exp() * (1 + u**2)))
            pyro.factor("penalty", 0.1 * (u * v * self.up) ** 2, has_rsample=True)
