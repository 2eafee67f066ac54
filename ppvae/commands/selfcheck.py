"""`ppvae selfcheck`: is every figure right on this machine?"""

import math
import time
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from ppvae.commands import COMMANDS
from ppvae.experiments.options import new_parser
from ppvae.progress import track
from ppvae.selfcheck import LIMIT, Check, selfcheck

KINDS = {
    "value": "Objectives: mean loss, nats per datum",
    "gradient": "Objectives: the element of the mean gradient that is furthest off",
    "evidence": "Estimators: mean log p(x), nats per datum (z: is the mean of estimate / truth of p(x) 1?)",
    "its error": "Estimators: mean of ((estimate - truth) / reported error)^2 (z: of its cube root)",
    "bound": "Bounds: mean over data, nats per datum",
    "flag": "A bad proposal is flagged by k-hat, and a good one is not",
    "posterior": "Posteriors",
    "invariance": "The same figure in chunks, in another order, in several processes: the datum that is furthest off",
}
EXPECTED = 160  # checks, about: how long the bar is


def options() -> ArgumentParser:
    parser = new_parser("selfcheck", COMMANDS["selfcheck"])
    parser.add_argument("--processes", type=int, default=1, help="share data out over so many, and compare the figures")
    parser.add_argument("--seed", type=int, default=0, help="of every draw")
    return parser


def run(options: Namespace) -> int:
    """Print the table; 1 where a check fails."""
    start = time.perf_counter()
    checks = list(track(selfcheck(options.processes, options.seed), "selfcheck", total=EXPECTED))
    print_checks(checks)
    failed = [check for check in checks if not check.passed]
    seconds = time.perf_counter() - start
    print(f"z: standard errors from the truth, at most {LIMIT} either way; -: equal but for rounding, or a limit")
    if failed:
        names = ", ".join(f"{check.what} ({check.kind}, {check.story})" for check in failed)
        print(f"{len(failed)} of {len(checks)} checks failed in {seconds:.0f} s: {names}")
        return 1
    print(f"all {len(checks)} checks passed in {seconds:.0f} s")
    return 0


def print_checks(checks: Sequence[Check]) -> None:
    """A table for each kind of check, on standard output; as wide as it needs to be."""
    for kind, heading in KINDS.items():
        table = Table(padding=(0, 1), box=None)
        for column in ("", "story", "figure", "truth", "error", "z", ""):
            table.add_column(column, justify="left" if column in {"", "story"} else "right", no_wrap=True)
        for check in checks:
            if check.kind == kind:
                table.add_row(*_cells(check))
        if table.row_count:
            console = Console(width=Console(width=1000).measure(table).maximum, highlight=False)
            console.print(heading, style="bold", soft_wrap=True)
            console.print(table)
            console.print()


def _cells(check: Check) -> list[str]:
    error = f"{check.error:.4f}" if check.error else "-"
    z = "-" if math.isnan(check.z) else f"{check.z:+.2f}"
    verdict = "ok" if check.passed else "FAILED"
    return [check.what, check.story, f"{check.figure:.4f}", f"{check.truth:.4f}", error, z, verdict]
