"""One self-contained HTML page and plain files for a comparison: no network, no script, figures inline."""

import base64
import csv
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ppvae.data.observation import Observation
from ppvae.evaluation.comparison import COLUMNS, TOLERATED, Group, Row, not_ranked

HEADINGS = {
    "neg_elbo": "-ELBO",
    "neg_log_p": "-log p(x)",
    "behind": "behind best",
    "ess": "ESS",
    "k_above": "k-hat>0.7",
    "naive_neg_log_p": "naive -log p",
    "reconstruction": "recon. error",
    "continuity": "continuity",
    "precision": "precision",
    "recall": "recall",
    "active_units": "active",
    "neighbour": "1-NN",
    "probe": "probe",
    "seconds": "seconds",
}
IN_THE_PAGE = {"bits_per_dim": "bits/dim"}  # a terminal has no room for them
DIGITS = {"bits_per_dim": 3, "ess": 0, "active_units": 0, "seconds": 1, "reconstruction": 3}
PERCENT = {"k_above", "neighbour", "probe", "precision", "recall"}
BOUNDED_BY = {"neg_log_p": "unreliable", "bits_per_dim": "unreliable", "naive_neg_log_p": "naive_k_above"}
WITH_ERROR = {"neg_log_p": "monte_carlo_error", "behind": "behind_error"}


def cell(row: Row, column: str) -> str:
    """A figure as a person reads it, with the error that belongs to it, and its spread where there are seeds."""
    value = row.mean[column]
    if math.isnan(value):
        return "-"
    if column in PERCENT:
        return f"{value:.0%}"
    if column == "behind" and value == 0:
        return "best"
    text = f"{value:.{DIGITS.get(column, 2)}f}"
    error = row.mean[WITH_ERROR[column]] if column in WITH_ERROR else math.nan
    if not math.isnan(error):
        decimals = 2 if error >= 0.01 else 3
        text = f"{value:.{decimals}f} ± {error:.{decimals}f}"
    spread = row.spread.get(column, math.nan)
    if column in BOUNDED_BY and row.mean[BOUNDED_BY[column]] > TOLERATED:
        text = f"≤ {text}"
    if column == "behind" and row.mean["behind_bound"] == 1:
        text = f"~ {text}"
    if row.seeds > 1 and column in {"neg_elbo", "neg_log_p"} and not math.isnan(spread):
        text += f" (sd {spread:.2f})"
    return text


def cells(group: Group, headings: Mapping[str, str]) -> list[list[str]]:
    """The headings of the columns in which a group has figures, then its rows; how each saw the data, if unlike."""
    shown = [column for column in headings if any(not math.isnan(row.mean[column]) for row in group.rows)]
    table = [[headings[c] for c in shown], *([cell(row, c) for c in shown] for row in group.rows)]
    if len(group.views) > 1:
        seen = ["seen", *(row.contract.observation.how for row in group.rows)]
        table = [[view, *line] for view, line in zip(seen, table, strict=True)]
    return table


def print_tables(groups: Sequence[Group]) -> None:
    """A table for each group of comparable results, on standard output; as wide as it needs to be, never cut."""
    for group in groups:
        head, *body = cells(group, HEADINGS)
        table = Table(padding=(0, 1), box=None)
        table.add_column("", no_wrap=True)
        for heading in head:
            table.add_column(heading, justify="right", no_wrap=True)
        for row, figures in zip(group.rows, body, strict=True):
            table.add_row(row.name, *figures)
        width = Console(width=1000).measure(table).maximum
        console = Console(width=width, highlight=False)
        console.print(group.label, style="bold", soft_wrap=True)
        console.print(table)
        console.print()


def notes(seeds: int) -> list[str]:
    """How to read the table: one line each."""
    lines = [
        "nats per datum, lower is better; groups are never ranked together",
        "a density is on the scale of the raw data: log p(raw) = log p(x) + log |dx/draw|, on whatever scale it saw x",
        "bits per dimension, -log p(x) / (features ln 2), are in report.html and table.csv",
        "-log p(x) ± its Monte Carlo error; 'behind best' ± its error paired over the test data",
        "k-hat>0.7: the share of test data whose estimate is unreliable",
        "≤: that share is above 5 %, or trees other than the guide's are left out: -log p(x) is likely lower",
        "~: a difference of such bounds, which need not be equally loose",
        "naive: the same estimate with draws from the prior; where it is lower, the guide is the worse proposal",
        "recon. error: squared, summed over features, as seen, on a scale from 0 to 1; active: latents that follow x",
        "continuity: largest speed of the decoded datum along straight paths between codes, over its median; 1 is even",
        "precision: the share of draws from p(x) that lie among the test data; recall: of test data among such draws",
        "autoencoders: p(z) is a mixture of Gaussians fitted to their codes, and a Normal is refined for each datum",
        "1-NN and probe: accuracy of labels from the code, by its nearest neighbour and by logistic regression",
    ]
    if seeds == 1:
        lines.append("one seed: no error here holds the noise of the fits; --seeds 3 shows it")
    if seeds > 1:
        lines.append(f"sd: standard deviation over {seeds} seeds of the fit")
    return lines


def write_table(groups: Sequence[Group], settings: Mapping[str, Any], folder: Path) -> None:
    """`table.csv` and `table.json`: every column unrounded, with the group that says what is comparable.

    The latter holds every observation once, and each row names its own by its place among them.
    """
    rows = [{"group": group.label, "ranked": group.ranked, **row.as_dict()} for group in groups for row in group.rows]
    seen = [row.contract.observation for group in groups for row in group.rows]
    observations = list(dict.fromkeys(seen))
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({k: "" if _is_nan(v) else v for k, v in row.items()} for row in rows)
    plain: list[dict[str, Any]] = [{k: v if _is_json(v) else None for k, v in row.items()} for row in rows]
    for row, observation in zip(plain, seen, strict=True):
        row["observation"] = observations.index(observation)
    record = {
        "settings": dict(settings),
        "columns": COLUMNS,
        "observations": [observation.as_dict() for observation in observations],
        "not_ranked": not_ranked(groups),
        "rows": plain,
    }
    (folder / "table.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def write_page(
    title: str,
    lead: str,
    groups: Sequence[Group],
    figures: Mapping[str, tuple[Path, str]],
    settings: Mapping[str, Any],
    path: Path,
) -> None:
    """`report.html`. `figures` maps a heading to a PNG file and its caption."""
    seeds = max(row.seeds for group in groups for row in group.rows)
    parts = [f"<h1>{_text(title)}</h1>", f"<p>{_text(lead)}</p>"]
    parts += [_html_table(group) for group in groups]
    parts += [_html_list(not_ranked(groups)), _html_list(notes(seeds))]
    for heading, (file, caption) in figures.items():
        data = base64.b64encode(file.read_bytes()).decode()
        name = _text(heading.replace("-", " ").capitalize())
        parts.append(
            f"<figure><h2>{name}</h2><img alt='{name}' src='data:image/png;base64,{data}'>"
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    shown = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in settings.items())
    names = HEADINGS | IN_THE_PAGE
    columns = "".join(f"<tr><th>{_text(names.get(k, k))}</th><td>{_text(v)}</td></tr>" for k, v in COLUMNS.items())
    parts.append(f"<h2>What the columns hold</h2><table class='plain'>{columns}</table>")
    parts.append(_html_observations([row.contract.observation for group in groups for row in group.rows]))
    parts.append(f"<h2>How it was made</h2><table class='plain'>{shown}</table>")
    page = PAGE.replace("TITLE", _text(title)).replace("BODY", "\n".join(parts))
    path.write_text(page, encoding="utf-8")


def _html_table(group: Group) -> str:
    names = {column: HEADINGS[column] for column in ("neg_elbo", "neg_log_p")} | IN_THE_PAGE | HEADINGS
    titles = {names[column]: text for column, text in COLUMNS.items() if column in names}
    head, *body = cells(group, names)
    first = "".join(f"<th title='{_text(titles.get(name, ''))}'>{_text(name)}</th>" for name in head)
    rest = "".join(
        f"<tr><th>{_text(row.name)}</th>{''.join(f'<td>{_text(figure)}</td>' for figure in figures)}</tr>"
        for row, figures in zip(group.rows, body, strict=True)
    )
    return f"<h2>{_text(group.label)}</h2><div class='wide'><table><tr><th></th>{first}</tr>{rest}</table></div>"


def _html_list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>" if lines else ""


def _html_observations(seen: Sequence[Observation]) -> str:
    """The record of every observation, each once: a column for each, a line for each field."""
    records = [observation.as_dict() for observation in dict.fromkeys(seen)]
    lines = "".join(
        f"<tr><th>{_text(name)}</th>{''.join(f'<td>{_text(record[name])}</td>' for record in records)}</tr>"
        for name in records[0]
    )
    return f"<h2>What was observed</h2><table class='plain'>{lines}</table>"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>TITLE</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1300px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.1em; margin-top: 2em }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px }
th, td { padding: .25em .5em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap }
th:first-child, .plain td, .plain th { text-align: left } tr th:first-child { font-weight: 500 }
.plain td { white-space: normal }
figure { margin: 2em 0 } img { max-width: 100% } figcaption { color: #555 }
</style></head><body>
BODY
</body></html>
"""
