"""Evaluation leaves everything as it was: one test over all that draws, moves or climbs."""

from functools import partial

import pyro
import pytest
import torch
from stories import fingerprint
from torch import nn

from ppvae import networks
from ppvae.inference import (
    annealed,
    bidirectional,
    exact,
    importance,
    in_processes,
    laplace,
    laplace_evidence,
    laplace_sampling,
    prior_sampling,
    refined_sampling,
    upper_bound,
)
from ppvae.inference.evidence.importance import draws
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.local import fit_normals
from ppvae.models import VAE, Autoencoder, encoders, likelihoods, priors

SHORT = {"particles": 4, "num_temperatures": 3, "num_leapfrog_steps": 2}
ESTIMATORS = {
    "importance": partial(importance, particles=40),
    "importance widened": partial(importance, particles=40, widening=1.5),
    "importance defensive": partial(importance, particles=40, defensive=0.2),
    "importance to a target": partial(importance, particles=40, target_error=0.3),
    "prior_sampling": partial(prior_sampling, particles=40),
    "upper_bound": partial(upper_bound, particles=40),
    "draws": partial(draws, particles=40),
    "annealed": partial(annealed, **SHORT),
    "annealed from the prior": partial(annealed, start="prior", **SHORT),
    "bidirectional": partial(bidirectional, **SHORT),
    "bidirectional from the prior": partial(bidirectional, start="prior", **SHORT),
    "exact": exact,
    "laplace": laplace,
    "laplace_evidence": laplace_evidence,
    "laplace_sampling": partial(laplace_sampling, particles=40),
    "fit_normals": partial(fit_normals, num_steps=3),
    "refined_sampling": partial(refined_sampling, particles=40, num_steps=3),
    "chains": partial(run_chains, num_samples=4, num_warmup=6, num_leapfrog_steps=2),
    "30 chains": partial(run_chains, num_samples=4, num_warmup=30, num_chains=6, num_leapfrog_steps=2),
}


def unquiet_parts():
    """An encoder and a decoder that an evaluation in training mode would change, or draw from."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    decoder = nn.Sequential(
        networks.mlp(2, [8], 8, nn.Tanh), _Flat(nn.BatchNorm1d(8)), nn.Dropout(0.5), nn.Linear(8, 5)
    )
    return encoder, decoder


class _Flat(nn.Module):
    """A layer of rows, over any leading dims."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def disturbed(story):
    """In another mode in one place, with gradients, and beside a parameter of Pyro's store."""
    story.train()
    next(module for module in story.modules() if isinstance(module, nn.Dropout)).eval()
    for parameter in story.parameters():
        parameter.grad = torch.randn_like(parameter)
    next(story.parameters()).requires_grad_(False)
    elsewhere = pyro.param("elsewhere", torch.ones(2))
    elsewhere.grad = torch.ones(2)
    return story


def vae():
    encoder, decoder = unquiet_parts()
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), encoders.DiagonalNormal(encoder))


def linear():
    """For `exact`: dropout and a norm that are linear in z while evaluating, and of another story while training."""
    encoder, _ = unquiet_parts()
    decoder = nn.Sequential(nn.Linear(2, 5), _Flat(nn.BatchNorm1d(5)), nn.Dropout(0.5))
    return VAE(priors.StandardNormal(2), likelihoods.Normal(decoder, 0.3), encoders.DiagonalNormal(encoder))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_evaluation_changes_nothing(name):
    story = disturbed(linear() if name == "exact" else vae())
    x = torch.bernoulli(torch.full((6, 5), 0.4))
    before, copy = fingerprint(story), x.clone()
    ESTIMATORS[name](story, x, progress=False)
    assert fingerprint(story) == before
    assert torch.equal(x, copy)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if "prior" in name or "lap" in name or "chains" in name])
def test_nor_does_that_of_an_autoencoder(name):
    encoder, decoder = unquiet_parts()
    encoder[-1] = nn.Linear(8, 2)
    story = disturbed(Autoencoder(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), encoder))
    x = torch.bernoulli(torch.full((6, 5), 0.4))
    before = fingerprint(story)
    ESTIMATORS[name](story, x, progress=False)
    assert fingerprint(story) == before


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "exact"])
def test_figures_do_not_depend_on_the_mode_that_the_story_is_in(name):
    story, x = vae(), torch.bernoulli(torch.full((6, 5), 0.4))
    found = []
    for training in (True, False):
        story.train(training)
        torch.manual_seed(int(training))
        found.append(ESTIMATORS[name](story, x, progress=False))
    assert str(found[0]) == str(found[1])


@pytest.mark.soak  # in the suite among the tests of processes, which take seconds to start
def test_nor_do_several_processes():
    story = disturbed(vae())
    x = torch.bernoulli(torch.full((6, 5), 0.4))
    before = fingerprint(story)
    in_processes(partial(importance, particles=30, progress=False), story, x, 2)
    assert fingerprint(story) == before


def test_nor_does_an_error():
    story = disturbed(vae())
    before = fingerprint(story)
    for estimator in (importance, annealed, run_chains, fit_normals, laplace):
        with pytest.raises((ValueError, RuntimeError)):
            estimator(story, torch.full((3, 4), 0.5), progress=False)
    assert fingerprint(story) == before
