"""The line-up of `ppvae compare`: contenders, and how one is built, fitted and measured."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ppvae import metrics, networks
from ppvae.base import Objective
from ppvae.data import Dataset, Observation, load
from ppvae.inference.comparison import Result
from ppvae.inference.importance import importance, own_generators, prior_sampling
from ppvae.inference.objectives import elbo, iwae
from ppvae.inference.programs import codes, reconstruct
from ppvae.models import PCA, VAE, Autoencoder, assemble, guides, likelihoods, priors
from ppvae.train import History, NotFinite, fit

HIDDEN = [200]
IWAE = partial(iwae, particles=20)
Build = Callable[[Dataset, int], Any]  # (data, latent) to a story


@dataclass(frozen=True)
class Contender:
    """One line of a comparison: how it sees the data, what it is, and how it is fitted."""

    name: str
    build: Build
    view: dict[str, Any] = field(default_factory=dict)  # options of data.load
    objective: Objective | None = elbo  # None: build has solved it
    latent: int | None = None  # where it is not the comparison's
    evidence: bool = True  # a point-mass guide has none


@dataclass(frozen=True)
class Fitted:
    """A contender after its fit, with all that the table and the figures need."""

    contender: Contender
    story: Any
    data: Dataset
    history: History
    result: Result


@dataclass(frozen=True)
class Failed:
    """A contender whose fit broke: the others go on without it."""

    contender: Contender
    seed: int
    error: str

    def __str__(self) -> str:
        return f"{self.contender.name}, seed {self.seed}: {self.error}"


def vae(prior: Callable[[int], nn.Module], likelihood: Callable[[nn.Module], Any]) -> Build:
    """A VAE with a diagonal Normal guide, sized from the data and the latent size."""

    def build(data: Dataset, latent: int) -> VAE:
        seen = data.observation
        return assemble(
            prior,
            likelihood,
            guides.DiagonalNormal,
            shape=seen.shape,
            latent=latent,
            network=networks.MLP(HIDDEN),
            input_scale=seen.input_scale,
        )

    return build


def autoencoder(prior: Callable[[int], nn.Module], hidden: list[int]) -> Build:
    """An autoencoder with a Normal likelihood, so that its loss is a squared error, weighted 1 / (2 c)."""

    def build(data: Dataset, latent: int) -> Autoencoder:
        features = data.observation.features
        decoder = networks.mlp(latent, hidden[::-1], features)
        encoder = networks.mlp(features, hidden, latent)
        return Autoencoder(prior(latent), likelihoods.Normal(decoder, variance=0.05), encoder)

    return build


def lineup(observation: Observation) -> list[Contender]:
    """The contenders for data as they were observed: each likelihood on the view of the data that it can score."""
    contenders: list[Contender] = []
    if observation.kind == "levels":
        top = observation.maximum
        assert top is not None
        contenders += _stories(f"Binomial({top})", partial(likelihoods.Binomial, total_count=top), {})
        contenders += _stories("Bernoulli", likelihoods.Bernoulli, {"binarisation": "threshold"})[:3]
    if observation.kind == "binary":
        contenders += _stories("Bernoulli", likelihoods.Bernoulli, {})
    real = _real_view(observation)
    learned = _stories("Normal(c learned)", partial(likelihoods.Normal, variance=0.05, learned=True), real)[:3]
    fixed = _stories("Normal(c = 0.05)", partial(likelihoods.Normal, variance=0.05), real)[:1]
    return contenders + learned + fixed + _baselines(real)


def _real_view(observation: Observation) -> dict[str, Any]:
    if observation.kind == "real":
        return {"scaling": observation.scaling}
    return {"scaling": "standardise" if observation.maximum is None else "unit"}


def _stories(name: str, likelihood: Callable[[nn.Module], Any], view: dict[str, Any]) -> list[Contender]:
    standard, mixture = priors.StandardNormal, partial(priors.GaussianMixture, components=10)
    return [
        Contender(f"N(0, I), {name}, ELBO", vae(standard, likelihood), view),
        Contender(f"mixture, {name}, ELBO", vae(mixture, likelihood), view),
        Contender(f"N(0, I), {name}, IWAE", vae(standard, likelihood), view, objective=IWAE),
        Contender(f"N(0, I), {name}, ELBO, z = 2", vae(standard, likelihood), view, latent=2),
    ]


def _baselines(view: dict[str, Any]) -> list[Contender]:
    flat, standard = priors.Flat, priors.StandardNormal
    solved: Build = lambda data, latent: PCA(data.train, min(latent, *data.train.shape))  # noqa: E731
    return [
        Contender("PCA", solved, view, objective=None, evidence=False),
        Contender("linear autoencoder", autoencoder(flat, []), view, evidence=False),
        Contender("deep autoencoder", autoencoder(flat, HIDDEN), view, evidence=False),
        Contender("autoencoder, N(0, I) on z (MAP)", autoencoder(standard, HIDDEN), view, evidence=False),
    ]


def enter(
    contender: Contender,
    data: Dataset,
    *,
    latent: int,
    seed: int,
    epochs: int,
    batch_size: int,
    lr: float,
    particles: int,
    progress: bool = True,
) -> Fitted:
    """Build a contender, fit it on the training split, and measure it on the test split."""
    start = time.perf_counter()
    with own_generators():
        torch.manual_seed(seed)
        story = contender.build(data, contender.latent or latent)
    history = History()
    if contender.objective is not None:
        history = fit(
            story,
            data.train,
            objective=contender.objective,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            valid=data.valid,
            transform=data.resample,
            progress=progress,
        )
    measures = {"seconds": time.perf_counter() - start} | measure(story, data)
    evidence = naive = None
    if contender.evidence:
        evidence = importance(story, data.test, particles, seed, progress)
        naive = prior_sampling(story, data.test, particles, seed, progress)
    group = str(data.observation)
    if evidence is not None and evidence.measure != data.observation.measure:
        group += f", scored as a {evidence.measure}"
    result = Result(contender.name, group, seed, evidence, naive, measures)
    return Fitted(contender, story, data, history, result)


def measure(story: Any, data: Dataset) -> dict[str, float]:
    """Reconstruction and representation on the test split; nan for what needs labels that are not there."""
    test_codes = codes(story, data.test)
    accuracies = {"neighbour": float("nan"), "probe": float("nan")}
    if data.train_labels is not None and data.test_labels is not None:
        labelled = (codes(story, data.train), data.train_labels, test_codes, data.test_labels)
        accuracies = {
            "neighbour": metrics.neighbour_accuracy(*labelled),
            "probe": metrics.probe_accuracy(*labelled),
        }
    error = metrics.reconstruction_error(data.test, reconstruct(story, data.test), data.observation.contrast)
    free = isinstance(story.prior, priors.Flat)  # codes without a scale of their own
    active = float("nan") if free else metrics.active_units(test_codes)
    return {"reconstruction": error, "active_units": active, **accuracies}


def view_of(name: str, root: str, label: str | None, test_rows: int | None, **view: Any) -> Dataset:
    """The data as a contender sees them, measured on the first `test_rows` test data."""
    data = load(name, root=root, label=label, **view)
    labels = None if data.test_labels is None else data.test_labels[:test_rows]
    return replace(data, test=data.test[:test_rows], test_labels=labels)


def compete(
    contenders: list[Contender], see: Callable[..., Dataset], seeds: int, **options: Any
) -> Iterator[Fitted | Failed]:
    """Enter every contender on every seed, yielding each as it is done; `see(**view)` gives the data."""
    views: dict[str, Dataset] = {}
    for contender in contenders:
        view = str(sorted(contender.view.items()))
        if view not in views:
            views[view] = see(**contender.view)
        for seed in range(seeds):
            try:
                yield enter(contender, views[view], seed=seed, **options)
            except NotFinite as error:
                yield Failed(contender, seed, str(error).partition(";")[0])  # what broke, without what a fit keeps
