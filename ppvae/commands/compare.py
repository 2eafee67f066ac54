"""`ppvae compare`: a line-up on one data set, as a table, figures and one page."""

import platform
from argparse import Action
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ppvae.commands import COMMANDS
from ppvae.data.datasets import Missing
from ppvae.data.observation import Observation
from ppvae.evaluation.comparison import group_results, not_ranked
from ppvae.evaluation.measure import completeness_of_training_data
from ppvae.experiments import lineup, run_folder
from ppvae.experiments.options import add_trust, fit_parser, merged, new_parser
from ppvae.plots import figures, report
from ppvae.progress import console, track

SOURCE = ("data", "root", "label", "missing", "labelled")
SHARED = (*SOURCE, "latent", "epochs", "batch_size", "lr")
"""The options of a comparison that every contender has, unless it says otherwise."""


class OneMore(Action):
    """Adds a contender that is typed, `name: words of a fit` or the words alone, to those that a configuration has."""

    def __call__(self, parser: Any, namespace: Any, text: Any, option_string: str | None = None) -> None:
        """What is typed stays words until there is something to merge them over."""
        name, colon, words = text.partition(": ")
        if not colon or name.startswith("-"):
            name = words = text
        namespace[self.dest] = {**namespace[self.dest], name.strip() or "as they come": words}


def options() -> ArgumentParser:
    parser = new_parser("compare", COMMANDS["compare"])
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    known = ", ".join(lineup.names())
    parser.add_argument("--lineup", type=str, default=None, help=f"{known}, or a YAML file of `name: {{options}}`")
    parser.add_argument(
        "--contender",
        action=OneMore,
        default={},
        help="one more, as `name: words of a fit` or the words alone: --contender='Vamp: --prior VampPrior'; may be "
        "given again; in a file `contender: {name: {options}}`",
    )
    parser.add_argument(
        "--common", default={}, help="what every contender has, such as '--lr 1e-2'; in a file `common: {options}`"
    )
    parser.add_argument("--data", type=str, default="digits", help="a known name, or a .npy, .npz, .csv or folder")
    parser.add_argument("--root", type=str, default="data", help="folder that holds torchvision's files")
    parser.add_argument("--label", type=str, default=None, help="the column of labels in a .csv file")
    parser.add_argument("--missing", type=Missing, default="refuse", help="nan and empty cells: refuse or mask")
    parser.add_argument("--labelled", type=int | None, default=None, help="how many training labels a story is told")
    parser.add_argument("--latent", type=int, default=8, help="number of latent dimensions")
    parser.add_argument("--epochs", type=int, default=None, help="passes in every fit; 1,000 steps' worth, 10 to 100")
    parser.add_argument("--batch_size", type=int, default=128, help="rows per step")
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's step size")
    parser.add_argument("--particles", type=int, default=1000, help="draws per test datum for the evidence")
    parser.add_argument("--test_rows", type=int, default=None, help="measure on the first of the test data only")
    parser.add_argument("--seeds", type=int, default=1, help="fits of every contender; the table shows their spread")
    parser.add_argument("--out", type=str, required=True, help="the folder to write: new or empty")
    add_trust(parser)
    return parser


def run(options: Namespace) -> None:
    """Fit every contender, measure them all, and write the folder when all of it is there."""
    for option in ("latent", "epochs", "batch_size", "test_rows", "particles", "seeds"):
        if options[option] is not None and options[option] < 1:
            raise ValueError(f"{option} should be at least 1, got {options[option]}")
    source = merged(fit_parser(), {name: options[name] for name in SOURCE})
    dataset = lineup.view_of(source, options.test_rows)
    if options.epochs is None:
        options.epochs = min(100, max(10, 1000 * options.batch_size // len(dataset.train)))
    contenders = entries(options, dataset.observation)
    settings = {"command": "ppvae compare", **{k: v for k, v in options.as_dict().items() if k != "config"}}
    with run_folder.new_folder(options.out) as folder:
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
        drawn = figures.save_what_can_be(lambda: figures.of_comparison(shown, groups), folder / "figures")
        lead = (
            f"{len(shown)} ways to model {options.data}, fitted by the same loop and measured on the same "
            f"{len(shown[0].data.test)} test data. Every story is a Pyro program; every log p(x) has its error."
        )
        page = folder / "report.html"
        report.write_page(f"ppvae compare: {options.data}", lead, groups, drawn, settings, page)
    report.print_tables(groups)
    left_out = [f"left out: {failure}" for failure in failed]
    for line in [*not_ranked(groups), *report.notes(options.seeds), *references(shown), *left_out]:
        print(line)
    print(f"\ntable, figures and page: {Path(options.out) / 'report.html'}")


def references(fitted: Sequence[lineup.Fitted]) -> list[str]:
    """What precision and recall are for real data, of each view: the scale to read them on."""
    views = {figures.view(entry.data): entry.data for entry in fitted}
    found = {name: completeness_of_training_data(data) for name, data in views.items()}
    said = (f"{name}: {two.precision:.0%}, {two.recall:.0%}" for name, two in found.items() if two)
    line = "; ".join(said)
    return [f"precision and recall of as many training data, {line}"] if line else []


def entries(options: Namespace, observation: Observation) -> list[lineup.Contender]:
    """Who competes: a line-up, the contenders named one by one, or both; the overview where none is named."""
    trust = "trust" in options
    name = options.lineup or (None if options.contender else lineup.OVERVIEW)
    lines = lineup.lineup(name, observation, options.latent, trust) if name else {}
    parser = fit_parser()
    shared = merged(parser, options.common, merged(parser, {name: options[name] for name in SHARED}), trust)
    return lineup.contenders(lines | options.contender, shared, trust)


def summary_line(entry: lineup.Fitted | lineup.Failed) -> str:
    if isinstance(entry, lineup.Failed):
        return f"left out: {entry}"
    seconds = entry.result.measures["seconds"]
    result = entry.result
    figure = ""
    if result.evidence is not None:
        figure = f", -log p(x) {-result.on_raw_scale(result.evidence).estimate.mean().item():.2f}"  # as the table's
    seed = f", seed {entry.result.seed}" if entry.result.seed else ""
    return f"{entry.contender.name}{seed}{figure} ({seconds:.1f} s)"


def versions() -> dict[str, str]:
    """What a figure may depend on beside the options."""
    packages = {name: version(name) for name in ("ppvae", "pyro-ppl", "torch")}
    return packages | {"python": platform.python_version(), "machine": platform.machine()}
