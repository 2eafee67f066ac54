"""`ppvae fit`: a run folder with configuration, weights, curves and figures."""

from jsonargparse import ArgumentParser, Namespace
from torch import nn

from ppvae.commands import COMMANDS
from ppvae.experiments import run_folder
from ppvae.experiments.experiment import epochs, prepare, settled
from ppvae.experiments.options import add_trust, fit_parser
from ppvae.plots import figures
from ppvae.training.fit import NotFinite
from ppvae.training.history import History, assess


def options() -> ArgumentParser:
    parser = fit_parser(COMMANDS["fit"])
    parser.add_argument("--out", type=str, required=True, help="the run folder to write: new or empty")
    add_trust(parser)
    return parser


def run(options: Namespace) -> None:
    """Fit, and write the folder when all of it is there."""
    out = options.pop("out")
    options.pop("trust", None)  # it has been heeded
    with run_folder.new_folder(out) as folder:
        dataset = run_folder.load_data_of(options)
        experiment = prepare(options, dataset)
        name = experiment.options.story.class_path.rpartition(".")[2]
        history = History()
        broken: BaseException | None = None
        try:
            for record in epochs(experiment, say=True):
                history.epochs.append(record)
        except (NotFinite, KeyboardInterrupt) as stop:
            if not history.epochs:
                raise
            kept = f"{str(stop) or f'stopped in epoch {len(history.epochs) + 1}'}; the run so far is in {out}"
            broken = type(stop)(kept)
        if not history.epochs:  # it was solved already
            train, valid = (experiment.batch(split, drawn=True) for split in ("train", "valid"))
            history.epochs.append(assess(experiment.story, train, experiment.objective, valid))
        story = settled(experiment).to("cpu")
        run_folder.write(folder, fit_parser().dump(experiment.options), dataset.observation, story, history.epochs)
        figures.save_what_can_be(lambda: figures.of_run(story, name, dataset, history), folder / "figures")
    last = history.epochs[-1]
    likelihood = getattr(story, "likelihood", None)
    named = f"; likelihood {type(likelihood).__name__}" if isinstance(likelihood, nn.Module) else ""
    print(f"{dataset.observation}{named}")
    print(f"epoch {last.epoch}: loss {last.loss:.3f}, on validation data {last.valid:.3f} nats per datum; run in {out}")
    if broken is not None:
        raise broken
