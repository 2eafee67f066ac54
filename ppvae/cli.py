"""The command line: fit, evaluate, compare. The one file that knows everyone."""

import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from ppvae import build, data, figures, lineup, report, runs, train
from ppvae.arguments import PartsInBrief, fit_parser, parse, part_help, use_working_folder
from ppvae.base import Objective
from ppvae.data import Dataset, Observation
from ppvae.inference.comparison import group_results
from ppvae.inference.importance import own_generators
from ppvae.inference.programs import batch_for, scored
from ppvae.measure import completeness_of_training_data
from ppvae.pretraining import pretrain
from ppvae.progress import console, track
from ppvae.scoring import give_density, score, settle


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a person can mend is one line on standard error and exit status 2."""
    use_working_folder()
    try:
        words = sys.argv[1:] if arguments is None else arguments
        if text := part_help(words):
            print(text)
            return 0
        options = parse(command_line(), words)
        if options.command is None:
            raise ValueError("name a command: fit, evaluate or compare (ppvae --help tells more)")
        COMMANDS[options.command](options[options.command])
    except (ValueError, OSError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"ppvae: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"ppvae: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def command_line() -> ArgumentParser:
    text = "Variational autoencoders on Pyro."
    parser = ArgumentParser(
        prog="ppvae",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=PartsInBrief,  # of every command too
        description=text,
    )
    parser.add_argument("--version", action="version", version=f"ppvae {version('ppvae')}")
    commands = parser.add_subcommands(required=False, dest="command")
    commands.add_subcommand("fit", fit_options(), help="fit a story and write a run folder")
    commands.add_subcommand("evaluate", evaluate_options(), help="estimate the evidence of a run, with its errors")
    commands.add_subcommand("compare", compare_options(), help="compare ways to infer on one data set")
    return parser


def fit_options() -> ArgumentParser:
    parser = fit_parser()
    parser.add_argument("--out", type=str, required=True, help="the run folder to write: new or empty")
    return parser


def evaluate_options() -> ArgumentParser:
    text = "Estimate log p(x) of a run's data, with its errors."
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=text)
    parser.add_argument("run", type=str, help="a folder that `ppvae fit` wrote")
    parser.add_argument("--particles", type=int, default=1000, help="draws per datum")
    parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return parser


def compare_options() -> ArgumentParser:
    text = "Fit a line-up and write a table, figures and a page."
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=text)
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    known = ", ".join(lineup.names())
    parser.add_argument("--lineup", type=str, default=None, help=f"{known}, or a YAML file of `name: words of a fit`")
    parser.add_argument(
        "--contender",
        type=str,
        action="append",
        default=[],
        help="one more, as `name: words of a fit` or the words alone: --contender='Vamp: --prior VampPrior'; may be "
        "given again",
    )
    parser.add_argument("--common", type=str, default="", help="words that every contender has, such as '--lr 1e-2'")
    parser.add_argument("--data", type=str, default="digits", help="a known name, or a .npy, .npz, .csv or folder")
    parser.add_argument("--root", type=str, default="data", help="folder that holds torchvision's files")
    parser.add_argument("--label", type=str, default=None, help="the column of labels in a .csv file")
    parser.add_argument("--missing", type=data.Missing, default="refuse", help="nan and empty cells: refuse or mask")
    parser.add_argument("--labelled", type=int | None, default=None, help="how many training labels a story is told")
    parser.add_argument("--latent", type=int, default=8, help="number of latent dimensions")
    parser.add_argument("--epochs", type=int, default=None, help="passes in every fit; 1,000 steps' worth, 10 to 100")
    parser.add_argument("--batch_size", type=int, default=128, help="rows per step")
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's step size")
    parser.add_argument("--particles", type=int, default=1000, help="draws per test datum for the evidence")
    parser.add_argument("--test_rows", type=int, default=None, help="measure on the first of the test data only")
    parser.add_argument("--seeds", type=int, default=1, help="fits of every contender; the table shows their spread")
    parser.add_argument("--out", type=str, required=True, help="the folder to write: new or empty")
    return parser


def fit(options: Namespace) -> None:
    """`ppvae fit`: a run folder with configuration, weights, curves and figures."""
    out = options.pop("out")
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
        draw(lambda: figures.of_run(story, name, dataset, history), folder / "figures")
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
    epochs = train.run(training, data, objective, options.epochs, options.batch_size, valid, dataset.resample)
    yield from track(epochs, "fit", total=options.epochs)


def draw(make: Callable[[], figures.Figures], folder: Path) -> dict[str, tuple[Path, str]]:
    """Save figures; one that a story has no answer for (a mean, a sampler) never costs the run."""
    try:
        return figures.save(make(), folder)
    except Exception as error:
        print(f"the run has no figures: {shorten(f'{type(error).__name__}: {error}', 120)}")
        return {}


def evaluate(options: Namespace) -> None:
    """`ppvae evaluate RUN`: print the evidence, and keep it in the run folder."""
    if options.split not in {"train", "valid", "test"}:
        raise ValueError(f"split should be train, valid or test, got {options.split}")
    if options.particles < 1:
        raise ValueError(f"particles should be at least 1, got {options.particles}")
    run = runs.read(options.run)
    dataset = run.data()
    given = give_density(run.story, batch_for(run.story, **dataset.drawn().tensors("train")))
    tensors = dataset.drawn(options.seed).tensors(options.split)
    evidence = score(run.story, batch_for(run.story, **tensors), options.particles, options.seed)
    path = runs.write_evidence(run, evidence, options.split, options.seed)
    print(f"{options.split} split of {run.observation}")
    if given:
        components = len(run.story.prior.weights)
        print(f"the guide is a point mass: p(z) is a mixture of {components} Gaussians fitted to the training codes")
    print(f"{evidence}\nsaved in {path}")
    if scored(run.story):
        print(f"note: these are figures of {scored(run.story)}: compare with their like only")
    if evidence.measure != run.observation.measure:
        print(f"note: a {evidence.measure} of data that have a {run.observation.measure}: compare with its like only")


def compare(options: Namespace) -> None:
    """`ppvae compare`: a line-up on one data set, as a table, figures and one page."""
    for option in ("latent", "epochs", "batch_size", "test_rows", "particles", "seeds"):
        if options[option] is not None and options[option] < 1:
            raise ValueError(f"{option} should be at least 1, got {options[option]}")
    source = words_of(options, "data", "root", "label", "missing", "labelled")
    dataset = lineup.view_of(parse(fit_parser(), source), options.test_rows)
    if options.epochs is None:
        options.epochs = min(100, max(10, 1000 * options.batch_size // len(dataset.train)))
    contenders = entries(options, source, dataset.observation)
    settings = {"command": "ppvae compare", **{k: v for k, v in options.as_dict().items() if k != "config"}}
    with runs.new_folder(options.out) as folder:
        fits = lineup.compete(contenders, options.seeds, options.particles, options.test_rows)
        fitted: list[lineup.Fitted] = []
        failed: list[lineup.Failed] = []
        total = len(contenders) * options.seeds
        for entry in track(fits, "compare", total=total):
            if isinstance(entry, lineup.Fitted):
                fitted.append(entry)
            else:
                failed.append(entry)
            count = f"{len(fitted) + len(failed)}/{total}"
            console.print(f"{count} {summary_line(entry)}", highlight=False, soft_wrap=True)
        if not fitted:
            raise ValueError(f"no contender could be fitted; {failed[0]}")
        groups = group_results([entry.result for entry in fitted])
        settings |= versions() | ({"left out": "; ".join(map(str, failed))} if failed else {})
        report.write_table(groups, settings, folder)
        first = {entry.contender.name: entry for entry in reversed(fitted)}  # its first seed that went well
        shown = [entry for entry in fitted if first[entry.contender.name] is entry]
        drawn = draw(lambda: figures.of_comparison(shown, groups), folder / "figures")
        lead = (
            f"{len(shown)} ways to model {options.data}, fitted by the same loop and measured on the same "
            f"{len(shown[0].data.test)} test data. Every story is a Pyro program; every log p(x) has its error."
        )
        page = folder / "report.html"
        report.write_page(f"ppvae compare: {options.data}", lead, groups, drawn, settings, page)
    report.print_tables(groups)
    for line in [*report.notes(options.seeds), *references(shown), *(f"left out: {failure}" for failure in failed)]:
        print(line)
    print(f"\ntable, figures and page: {Path(options.out) / 'report.html'}")


def references(fitted: Sequence[lineup.Fitted]) -> list[str]:
    """What precision and recall are for real data, of each view: the scale to read them on."""
    views = {figures.view(entry.data): entry.data for entry in fitted}
    found = {name: completeness_of_training_data(data) for name, data in views.items()}
    said = (f"{name}: {two.precision:.0%}, {two.recall:.0%}" for name, two in found.items() if two)
    line = "; ".join(said)
    return [f"precision and recall of as many training data, {line}"] if line else []


def entries(options: Namespace, source: list[str], observation: Observation) -> list[lineup.Contender]:
    """Who competes: a line-up, the contenders named one by one, or both; the overview where none is named."""
    name = options.lineup or (None if options.contender else lineup.OVERVIEW)
    lines = lineup.lineup(name, observation, options.latent) if name else {}
    lines |= dict(map(named, options.contender))
    chosen = words_of(options, "latent", "epochs", "batch_size", "lr")
    return lineup.contenders(lines, [*source, *chosen, *shlex.split(options.common)])


def named(contender: str) -> tuple[str, str]:
    """A contender's name and words: `name: words`, or words that are their own name."""
    name, colon, words = contender.partition(": ")
    if colon and not name.startswith("-"):
        return name.strip(), words
    return contender.strip() or "as they come", contender


def words_of(options: Namespace, *names: str) -> list[str]:
    """Some options as the words that say them."""
    return [word for name in names if options[name] is not None for word in (f"--{name}", str(options[name]))]


def summary_line(entry: lineup.Fitted | lineup.Failed) -> str:
    if isinstance(entry, lineup.Failed):
        return f"left out: {entry}"
    seconds = entry.result.measures["seconds"]
    evidence = entry.result.evidence
    figure = "" if evidence is None else f", -log p(x) {-evidence.estimate.mean().item():.2f}"
    seed = f", seed {entry.result.seed}" if entry.result.seed else ""
    return f"{entry.contender.name}{seed}{figure} ({seconds:.1f} s)"


def versions() -> dict[str, str]:
    """What a figure may depend on beside the options."""
    packages = {name: version(name) for name in ("ppvae", "pyro-ppl", "torch")}
    return packages | {"python": platform.python_version(), "machine": platform.machine()}


COMMANDS = {"fit": fit, "evaluate": evaluate, "compare": compare}

if __name__ == "__main__":
    sys.exit(main())
