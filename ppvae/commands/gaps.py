"""`ppvae gaps RUN`: what the bound of a run gives away, and to what: family, amortisation, data not fitted to."""

from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from ppvae.commands import COMMANDS
from ppvae.experiments import run_folder
from ppvae.experiments.options import add_trust, new_parser
from ppvae.inference.diagnostics.gaps import Difference, Gaps, Generalisation, gaps, generalisation
from ppvae.inference.program.traces import batch_for, scored
from ppvae.plots import figures
from ppvae.plots.inference import gap_bars

FAMILIES = {"diagonal": "diagonal Normals", "full": "Normals of any covariance", "flow": "flows, for want of its own"}


def options() -> ArgumentParser:
    parser = new_parser("gaps", COMMANDS["gaps"])
    parser.add_argument("run", type=str, help="a folder that `ppvae fit` or `ppvae.save` wrote")
    parser.add_argument("--rows", type=int, default=200, help="of the first of the test data, and of the training data")
    parser.add_argument("--particles", type=int, default=1000, help="draws per datum, of log p(x) and every ELBO")
    parser.add_argument("--num_steps", type=int, default=400, help="of the ascent of a Normal for each datum, at most")
    parser.add_argument(
        "--num_flow_steps", type=int, default=600, help="of the ascent of a flow for each datum, at most"
    )
    parser.add_argument("--family", type=str, default=None, help="the guide's: diagonal, full or flow; by the guide")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    add_trust(parser)
    return parser


def run(options: Namespace) -> None:
    """Print the gaps, and keep them in the run folder with their picture."""
    if options.rows < 2:
        raise ValueError(f"rows should be at least 2, so that a mean has an error, got {options.rows}")
    found = run_folder.read(options.run, "trust" in options)
    drawn = found.data().drawn(options.seed)
    parts: dict[str, Gaps] = {}
    for split in ("train", "test"):
        batch = batch_for(found.story, **drawn.tensors(split, options.rows))
        chosen = {name: options[name] for name in ("particles", "num_steps", "num_flow_steps", "family", "seed")}
        parts[split] = gaps(found.story, batch, **chosen)
    between = generalisation(parts["train"], parts["test"])
    print(f"{found.observation}; {scored(found.story) or 'p(x)'}, nats per datum, means over the first data of a split")
    print_gaps(parts, between)
    for line in notes(parts):
        print(line)
    summary = {split: part.summary() for split, part in parts.items()} | {"train - test": between.summary()}
    name = f"gaps-first{options.rows}-seed{options.seed}"
    path = run_folder.write_measures(found, name, {"seed": options.seed, **summary}, per_datum(parts))
    pictures = {"bars": (gap_bars({k: v.differences() for k, v in parts.items()}, "Gaps of inference"), "")}
    print(f"saved in {path}")
    print(f"figures: {', '.join(map(str, figures.save_beside(pictures, path)))}")


def print_gaps(parts: dict[str, Gaps], between: Generalisation) -> None:
    """One table: levels, then gaps, with the difference between the splits beside them."""
    table = Table(padding=(0, 1), box=None)
    for column in ("", *(f"{split} ({len(found.log_p.estimate)})" for split, found in parts.items()), "train - test"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    beside = {difference.name: cell(difference) for difference in between.differences}
    for kind in ("levels", "differences"):
        lists = [getattr(found, kind)() for found in parts.values()]
        for rows in zip(*lists, strict=True):
            cells = [cell(row, kind == "differences") for row in rows]
            table.add_row(rows[0].name, *cells, beside.get(rows[0].name, ""))
        if kind == "levels":
            table.add_row()
    console = Console(width=Console(width=1000).measure(table).maximum, highlight=False)
    console.print(table)


def cell(difference: Difference, judged: bool = True) -> str:
    """A figure and its standard error; in words, where it is within two of them."""
    said = f"{difference.mean:.3f} ± {difference.error:.3f}"
    return said if difference.resolved or not judged else f"unresolved ({said})"


def notes(parts: dict[str, Gaps]) -> list[str]:
    """What the table means, and how far log p(x) can be trusted."""
    first = next(iter(parts.values()))
    lines = [
        "±: one standard error, of a level that of its draws, of a gap that of paired differences; "
        f"the guide's family: {FAMILIES[first.family]}"
    ]
    for split, found in parts.items():
        ess = (found.log_p.ess / found.log_p.particles).min().item()
        worst = found.log_p.standard_error.max().item()
        share = found.log_p.unreliable()
        lines.append(
            f"log p(x), {split}: k-hat above 0.7 for {share:.0%}, least ESS {ess:.0%} of the draws, "
            f"largest Monte Carlo error {worst:.3f}"
        )
    return lines


def per_datum(parts: dict[str, Gaps]) -> list[dict[str, Any]]:
    """A row for each datum of each split."""
    rows = []
    for split, part in parts.items():
        names, values = zip(*part.columns().items(), strict=True)
        rows += [{"split": split, **dict(zip(names, row, strict=True))} for row in zip(*values, strict=True)]
    return rows
