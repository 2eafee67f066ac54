"""The line-ups of `ppvae compare`: a contender is the configuration of a fit; how it is built, fitted and measured."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ppvae.data import Dataset, load_dataset
from ppvae.data.files import read_yaml
from ppvae.data.observation import Observation
from ppvae.evaluation.comparison import Result
from ppvae.evaluation.measure import regularity, representation
from ppvae.evaluation.scoring import give_density, score
from ppvae.experiments.experiment import epochs, prepare, settled
from ppvae.experiments.lookup import nearest, one_line
from ppvae.experiments.options import fit_parser, merged
from ppvae.experiments.trust import Options, checked
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.evidence.importance import prior_sampling
from ppvae.inference.program.errors import NoDensity
from ppvae.inference.program.traces import scored
from ppvae.training.fit import NotFinite
from ppvae.training.history import History

FOLDER = Path(__file__).parent / "lineups"
OVERVIEW = "overview"
VIEW = ("root", "binarisation", "scaling", "label", "missing", "labelled")
"""The options that say how a contender sees the data."""


@dataclass(frozen=True)
class Contender:
    """One line of a comparison: its name, and the options of a fit."""

    name: str
    options: Namespace


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
    """A contender that could not be made, or whose fit broke: the others go on without it."""

    contender: Contender
    seed: int
    error: str

    def __str__(self) -> str:
        return f"{self.contender.name}, seed {self.seed}: {self.error}"


def names() -> list[str]:
    """The line-ups that come with the package."""
    return [OVERVIEW, *sorted(path.stem for path in FOLDER.glob("*.yaml"))]


def lineup(name: str, observation: Observation, latent: int = 8, trust: bool = False) -> dict[str, Options]:
    """A line-up by name, or from a YAML file of `name: {options of a fit}`.

    Raises:
        ValueError: an unknown name; not such a file; without trust, one that names what is not of ppvae.
    """
    if name == OVERVIEW:
        lines = {line: own for line, own in overview(observation).items() if own.get("latent") != latent}
        return checked(name, {"contender": lines})["contender"]
    path = FOLDER / f"{name}.yaml" if name in names() else Path(name)
    if not path.is_file():
        raise ValueError(f"unknown line-up '{name}': it should be one of {nearest(name, names())}, or a YAML file")
    lines = read_yaml(path)
    if not isinstance(lines, dict) or not lines:
        raise ValueError(f"{path} should hold contenders as `name: {{options of ppvae fit}}`")
    return checked(path, {"contender": lines}, trust)["contender"]


def overview(observation: Observation) -> dict[str, Options]:
    """Priors, likelihoods, objectives and autoencoders: each likelihood on the view of the data that it can score."""
    contenders: dict[str, Options] = {}
    if observation.kind == "levels":
        contenders |= _stories(f"Binomial({observation.maximum})", {})
        contenders |= dict(list(_stories("Bernoulli", {"binarisation": "threshold"}).items())[:3])
    if observation.kind == "binary":
        contenders |= _stories("Bernoulli", {})
    fixed, learned = (
        {
            "scaling": _real_scaling(observation),
            "likelihood": {"class_path": "Normal", "init_args": {"variance": 0.05, "learned": learned}},
        }
        for learned in (False, True)
    )
    contenders |= dict(list(_stories("Normal(c learned)", learned).items())[:3])
    contenders |= dict(list(_stories("Normal(c = 0.05)", fixed).items())[:1])
    autoencoder = {**learned, "story": "autoencoder", "prior": "Flat"}
    return contenders | {
        "PCA": {**learned, "story": "pca"},
        "linear autoencoder": {**autoencoder, "network": {"class_path": "MLP", "init_args": {"hidden": []}}},
        "autoencoder": autoencoder,
        "autoencoder, N(0, I) on z (MAP)": {**learned, "story": "autoencoder"},
    }


def _real_scaling(observation: Observation) -> str:
    if observation.kind == "real":
        return observation.scaling
    return "standardise" if observation.maximum is None else "unit"


def _stories(name: str, common: Options) -> dict[str, Options]:
    return {
        f"N(0, I), {name}, ELBO": common,
        f"mixture, {name}, ELBO": {**common, "prior": "GaussianMixture"},
        f"N(0, I), {name}, IWAE": {**common, "objective": "iwae", "objective_args": {"particles": 20}},
        f"N(0, I), {name}, ELBO, z = 2": {**common, "latent": 2},
    }


def contenders(lines: Mapping[str, Options | str], shared: Namespace, trust: bool = False) -> list[Contender]:
    """Contenders from their own configurations, or the words that somebody typed, over the options that all share.

    Args:
        trust: whether a configuration that typed words name may name what is not of ppvae.

    Raises:
        ValueError: no options of a fit, with the contender's name; other data than the others have.
    """
    parser, made = fit_parser(), []
    for name, own in lines.items():
        try:
            options = merged(parser, own, shared, trust)
        except (ValueError, OSError) as error:
            raise ValueError(f"contender '{name}': {one_line(error)}") from error
        for option in ("data", "root", "label", "seed"):
            if options[option] != shared[option]:
                rule = f"--{option} belongs to the comparison, not to one contender"
                raise ValueError(f"contender '{name}': {rule}, got {options[option]}")
        made.append(Contender(name, options))
    return made


def enter(contender: Contender, data: Dataset, seed: int, particles: int, progress: bool = True) -> Fitted:
    """Build a contender, fit it on the training split, and measure it on the test split."""
    start = time.perf_counter()
    options = contender.options.clone()
    options.seed = seed
    experiment = prepare(options, data)
    test = experiment.batch("test")
    history = History(list(epochs(experiment, progress)))
    story, drawn = settled(experiment), data.drawn()
    measures = {"seconds": time.perf_counter() - start} | representation(story, drawn)
    give_density(story, experiment.batch("train", drawn=True))
    measures |= regularity(story, drawn)
    evidence: Evidence | None = None
    naive: Evidence | None = None
    with suppress(NoDensity):
        evidence = score(story, test, particles=particles, seed=seed, progress=progress)
        naive = prior_sampling(story, test, particles=particles, seed=seed, progress=progress)
    result = Result(contender.name, data.observation, seed, evidence, naive, measures, scored(story))
    return Fitted(contender, story, data, history, result)


def view_of(options: Namespace, test_rows: int | None) -> Dataset:
    """The data as a contender sees them, measured on the first `test_rows` test data."""
    data = load_dataset(options.data, **{name: options[name] for name in VIEW}, seed=0)
    labels = None if data.test_labels is None else data.test_labels[:test_rows]
    return replace(data, test=data.test[:test_rows], test_labels=labels)


def compete(
    entries: Sequence[Contender], seeds: int, particles: int, test_rows: int | None = None, progress: bool = True
) -> Iterator[Fitted | Failed]:
    """Enter every contender on every seed, yielding each as it is done."""
    views: dict[tuple[Any, ...], Dataset] = {}
    for contender in entries:
        view = tuple(contender.options[name] for name in VIEW)
        for seed in range(seeds):
            try:
                if view not in views:
                    views[view] = view_of(contender.options, test_rows)
                yield enter(contender, views[view], seed, particles, progress)
            except NotFinite as error:
                yield Failed(contender, seed, one_line(error).partition(";")[0])  # what broke, not what a fit keeps
            except Exception as error:  # a part of the user's may fail in any way; the others go on
                yield Failed(contender, seed, one_line(error))
