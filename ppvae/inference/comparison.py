"""Results side by side: what is comparable is ranked with paired errors, the rest is labelled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.inference.importance import Evidence

TOLERATED = 0.05  # share of data with k-hat > 0.7 above which an estimate is printed as a bound

COLUMNS = {
    "neg_elbo": "test -ELBO, nats per datum; lower is better",
    "neg_log_p": "test -log p(x) by importance sampling from the guide, or from a widened point mass at its mean, "
    "nats per datum; lower is better",
    "monte_carlo_error": "Monte Carlo standard error of that mean",
    "behind": "how far -log p(x) is behind the best of its group, nats per datum",
    "behind_error": "standard error of that difference, paired by datum (test sampling and Monte Carlo)",
    "ess": "mean effective sample size per datum",
    "k_above": "share of test data with Pareto k-hat > 0.7: there the estimate is unreliable, likely too pessimistic",
    "unreliable": "share of test data whose figure is a bound: that share, or all where a part of p(x) is left out",
    "behind_bound": "1 where that difference is one of bounds: k-hat is above 0.7 for over 5 % of either's data",
    "naive_neg_log_p": "the same estimate with draws from the prior, log 1/n sum p(x|z_i): what the guide buys",
    "naive_monte_carlo_error": "Monte Carlo standard error of that estimate",
    "naive_k_above": "share of test data with k-hat > 0.7 for that estimate",
    "reconstruction": "squared error per datum, features on a scale from 0 to 1",
    "neg_log_likelihood": "-log p(x|z) at the guide's mean z, nats per datum",
    "active_units": "latent dimensions with Var_x(E_q[z|x]) > 0.01 of the prior's; of their mean under a flat prior",
    "kl": "KL(q(z|x) || p(z)), nats per datum: the next two together",
    "mutual_information": "I_q(x; z) over at most 500 test data, nats: at most the logarithm of their number",
    "aggregate_gap": "KL(q(z) || p(z)) of the average posterior over these data, nats",
    "continuity": "largest speed of the decoded datum along straight paths between test codes, over its median",
    "precision": "share of draws x ~ p(x|z), z ~ p(z), that lie among the test data (3 nearest neighbours)",
    "recall": "share of the test data that lie among such draws",
    "neighbour": "1-NN accuracy of the code",
    "probe": "accuracy of a linear probe on the code",
    "seconds": "of the fit",
}
"""What each column of a comparison holds."""


@dataclass(frozen=True)
class Result:
    """One fitted contender on one seed. `group` says what was observed: only equal groups are ranked together."""

    name: str
    group: str
    seed: int
    evidence: Evidence | None  # None: a point-mass guide has no evidence by this way
    naive: Evidence | None
    measures: dict[str, float]  # by the names of COLUMNS; nan, or left out, where there is none


@dataclass(frozen=True)
class Row:
    """One contender over its seeds: the mean of every column, and its standard deviation over seeds."""

    name: str
    mean: dict[str, float]
    spread: dict[str, float]
    seeds: int

    def as_dict(self) -> dict[str, Any]:
        spread = {f"{column}_spread": value for column, value in self.spread.items()} if self.seeds > 1 else {}
        return {"name": self.name, "seeds": self.seeds, **self.mean, **spread}


@dataclass(frozen=True)
class Group:
    """Contenders that scored the same observation, best -log p(x) first; those without evidence keep their order."""

    label: str
    rows: list[Row]
    ranked: bool


def group_results(results: Sequence[Result]) -> list[Group]:
    """Group by what was observed and by whether there is evidence; rank inside a group only."""
    groups = []
    keys = dict.fromkeys((result.group, result.evidence is not None) for result in results)
    for label, ranked in keys:
        members = [r for r in results if r.group == label and (r.evidence is not None) == ranked]
        best = _best(members) if ranked else []
        names = dict.fromkeys(member.name for member in members)
        rows = [_row([m for m in members if m.name == name], best) for name in names]
        if ranked:
            rows.sort(key=lambda row: row.mean["neg_log_p"])
        else:
            label = f"{label}; improper priors: no evidence, not ranked"
        groups.append(Group(label, rows, ranked))
    return groups


def _best(members: Sequence[Result]) -> list[Evidence]:
    """The evidence, seed by seed, of the contender with the highest mean estimate."""
    names = dict.fromkeys(member.name for member in members)
    found = [[m.evidence for m in members if m.name == name and m.evidence] for name in names]
    return max(found, key=lambda evidences: _pool(evidences).estimate.mean().item())


def spread_of_mean(evidences: Sequence[Evidence]) -> Tensor:
    """Standard error, by the spread over seeds, of the mean over seeds; zero for one seed, which shows none."""
    means = torch.stack([evidence.estimate.mean() for evidence in evidences])
    return means.std() / len(means) ** 0.5 if len(means) > 1 else torch.zeros(())


def _pool(evidences: Sequence[Evidence]) -> Evidence:
    """The mean over seeds, datum by datum; errors of independent runs add in quadrature."""
    first = evidences[0]

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(evidence, name) for evidence in evidences]).mean(0)

    def error(name: str) -> Tensor:
        squares = torch.stack([getattr(evidence, name).square() for evidence in evidences])
        return squares.sum(0).sqrt() / len(evidences)

    return Evidence(
        estimate=mean("estimate"),
        standard_error=error("standard_error"),
        ess=mean("ess"),
        pareto_k=mean("pareto_k"),
        elbo=mean("elbo"),
        elbo_standard_error=error("elbo_standard_error"),
        bound=first.bound,
        particles=first.particles,
        method=first.method,
        held=first.held,
        measure=first.measure,
    )


def _row(members: Sequence[Result], best_evidences: list[Evidence]) -> Row:
    per_seed = [_figures(member) for member in members]
    columns = per_seed[0].keys()
    values = {
        column: torch.tensor([figures[column] for figures in per_seed], dtype=torch.float64) for column in columns
    }
    mean = {column: value.mean().item() for column, value in values.items()}
    spread = {c: value.std().item() if len(value) > 1 else math.nan for c, value in values.items()}
    evidences = [member.evidence for member in members if member.evidence]
    mean["behind"] = mean["behind_error"] = mean["behind_bound"] = math.nan
    if best_evidences:
        pooled, best = _pool(evidences), _pool(best_evidences)
        mean["monte_carlo_error"] = float(pooled.summary()["monte_carlo_error"])
        mean["behind"], mean["behind_error"] = paired_difference(best.estimate, pooled.estimate)
        # a mean over seeds has the noise of its fits beside that of the test data
        noise = [float(spread_of_mean(both)) for both in (evidences, best_evidences)]
        mean["behind_error"] = math.hypot(mean["behind_error"], *noise)
        mean["behind_bound"] = float(max(e.unreliable() for e in (*evidences, *best_evidences)) > TOLERATED)
    return Row(members[0].name, {column: mean[column] for column in COLUMNS}, spread, len(members))


def paired_difference(better: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean of better - other over the same data, and its standard error.

    Pairing takes out what makes a datum hard for both, so small differences can be told. Each per-datum estimate
    carries its Monte Carlo error, so the spread of the differences holds both kinds.
    """
    difference = better - other
    if len(difference) == 1:
        return difference.item(), math.nan
    return difference.mean().item(), (difference.std() / len(difference) ** 0.5).item()


def _figures(result: Result) -> dict[str, float]:
    figures = dict.fromkeys(COLUMNS, math.nan) | result.measures
    if result.evidence is not None:
        summary = result.evidence.summary()
        figures["neg_elbo"] = -float(summary["elbo"])
        figures["neg_log_p"] = -float(summary["log_p"])
        figures["monte_carlo_error"] = float(summary["monte_carlo_error"])
        figures["ess"] = float(summary["ess"])
        figures["k_above"] = float(summary["pareto_k_above_0.7"])
        figures["unreliable"] = result.evidence.unreliable()
    if result.naive is not None:
        naive = result.naive.summary()
        figures["naive_neg_log_p"] = -float(naive["log_p"])
        figures["naive_monte_carlo_error"] = float(naive["monte_carlo_error"])
        figures["naive_k_above"] = result.naive.unreliable()
    return figures
