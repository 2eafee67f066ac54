"""One experiment: the story that options describe, built on some data, fitted and settled."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from ppvae.base import Objective
from ppvae.data import Dataset
from ppvae.evaluation.scoring import settle
from ppvae.experiments.build import build_story, complete, find_objective, find_optimizer
from ppvae.experiments.options import fit_parser
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import batch_for
from ppvae.progress import track
from ppvae.training.fit import begin, learns, run
from ppvae.training.history import Epoch
from ppvae.training.optimizers import MakeOptimizer
from ppvae.training.pretraining import pretrain

PASSED_ON = ("epochs", "batch_size", "warm_up", "clip", "schedule", "compile")


@dataclass(frozen=True)
class Experiment:
    """A story and what it is fitted by: `epochs` fit it, and `settled` ends that."""

    options: Namespace  # nothing is left open
    story: Any
    data: Dataset
    objective: Objective
    optimizer: MakeOptimizer

    def batch(self, split: str, drawn: bool = False) -> tuple[Tensor, ...]:
        """A split as the story takes it; `drawn`, with what changes from pass to pass drawn once."""
        return batch_for(self.story, **(self.data.drawn() if drawn else self.data).tensors(split))


def prepare(options: Namespace, data: Dataset) -> Experiment:
    """The experiment before its fit.

    Raises:
        ValueError: options that make no story of such data.
    """
    parser = fit_parser()
    options = complete(parser, options, data.observation)
    objective = find_objective(options.objective, options.objective_args)
    optimizer = find_optimizer(options.optimizer, options.optimizer_args)
    with own_generators():
        torch.manual_seed(options.seed)
        story = build_story(parser, options, data.observation, data.drawn().train)
    story.to("cuda" if torch.cuda.is_available() else "cpu")
    return Experiment(options, story, data, objective, optimizer)


def epochs(experiment: Experiment, progress: bool = True, say: bool = False) -> Iterator[Epoch]:
    """Fit, under a progress bar: the record of every epoch, and none where there is nothing to learn.

    Args:
        progress: whether to show a bar.
        say: whether to say in one line whether a longer fit is compiled, and why.
    """
    story, options, data = experiment.story, experiment.options, experiment.data
    if options.pretrain:
        steps: dict[str, Any] = {name: options[name] for name in ("batch_size", "lr", "seed")}
        pretrain(story, experiment.batch("train", drawn=True), epochs=options.pretrain, progress=progress, **steps)
    if not learns(story):
        return
    chosen = {name: options[name] for name in PASSED_ON}
    batches = experiment.batch("train"), experiment.objective
    training = begin(story, options.lr, options.seed, experiment.optimizer)
    passes = run(training, *batches, valid=experiment.batch("valid"), transform=data.resample, say=say, **chosen)
    yield from track(passes, "fit", total=options.epochs, show=progress)


def settled(experiment: Experiment) -> Any:
    """The story once it is fitted: a prior that is ex post has its codes."""
    settle(experiment.story, experiment.batch("train", drawn=True))
    return experiment.story
