"""`ppvae fit`: a run folder with configuration, weights, curves and figures."""

from collections.abc import Iterator
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from ppvae import build, figures, runs, train
from ppvae.arguments import add_trust, fit_parser
from ppvae.base import Objective
from ppvae.data import Dataset
from ppvae.inference.programs import batch_for
from ppvae.inference.streams import own_generators
from ppvae.pretraining import pretrain
from ppvae.progress import track
from ppvae.scoring import settle


def options() -> ArgumentParser:
    parser = fit_parser()
    parser.add_argument("--out", type=str, required=True, help="the run folder to write: new or empty")
    add_trust(parser)
    return parser


def run(options: Namespace) -> None:
    """Fit, and write the folder when all of it is there."""
    out = options.pop("out")
    options.pop("trust", None)  # it has been heeded
    parser = fit_parser()
    with runs.new_folder(out) as folder:
        dataset = runs.load_data_of(options)
        options = build.complete(parser, options, dataset.observation)
        objective = build.find_objective(options.objective, options.objective_args)
        with own_generators():
            torch.manual_seed(options.seed)
            story = build.build_story(parser, options, dataset.observation, dataset.drawn().train)
        story.to("cuda" if torch.cuda.is_available() else "cpu")
        if options.pretrain:
            fitted = {name: options[name] for name in ("batch_size", "lr", "seed")}
            pretrain(story, batch_for(story, **dataset.drawn().tensors("train")), epochs=options.pretrain, **fitted)
        name = options.story.class_path.rpartition(".")[2]
        history = train.History()
        broken: BaseException | None = None
        try:
            for record in records(story, dataset, objective, options):
                history.epochs.append(record)
        except (train.NotFinite, KeyboardInterrupt) as stop:
            if not history.epochs:
                raise
            kept = f"{str(stop) or f'stopped in epoch {len(history.epochs) + 1}'}; the run so far is in {out}"
            broken = type(stop)(kept)
        settle(story, batch_for(story, **dataset.drawn().tensors("train")))
        story.to("cpu")
        runs.write(folder, parser.dump(options), dataset.observation, story, history.epochs)
        figures.save_what_can_be(lambda: figures.of_run(story, name, dataset, history), folder / "figures")
    last = history.epochs[-1]
    likelihood = getattr(story, "likelihood", None)
    named = f"; likelihood {type(likelihood).__name__}" if isinstance(likelihood, nn.Module) else ""
    print(f"{dataset.observation}{named}")
    print(f"epoch {last.epoch}: loss {last.loss:.3f}, on validation data {last.valid:.3f} nats per datum; run in {out}")
    if broken is not None:
        raise broken


def records(story: Any, dataset: Dataset, objective: Objective, options: Namespace) -> Iterator[train.Epoch]:
    """The epochs of a fit under a progress bar; of a story that is solved already, what the objective says of it."""
    if not train.learns(story):
        dataset = dataset.drawn()
    data, valid = (batch_for(story, **dataset.tensors(split)) for split in ("train", "valid"))
    if not train.learns(story):
        yield train.assess(story, data, objective, valid)
        return
    training = train.begin(story, options.lr, options.seed)
    chosen = {name: options[name] for name in ("epochs", "batch_size", "warm_up", "clip", "schedule", "compile")}
    epochs = train.run(training, data, objective, valid=valid, transform=dataset.resample, say=True, **chosen)
    yield from track(epochs, "fit", total=options.epochs)
