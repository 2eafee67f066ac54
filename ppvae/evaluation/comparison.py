"""Results side by side: what is comparable is ranked with paired errors, the rest is labelled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ppvae.data.observation import Observation
from ppvae.evaluation.comparability import Contract, why_apart
from ppvae.inference.evidence.evidence import Evidence

TOLERATED = 0.05  # share of data with k-hat > 0.7 above which an estimate is printed as a bound

COLUMNS = {
    "neg_elbo": "test -ELBO, nats per datum, of a density on the raw scale; lower is better",
    "neg_log_p": "test -log p(x) by importance sampling, half from the guide, half from a Normal refined for each "
    "datum, nats per datum, of a density on the raw scale; lower is better",
    "monte_carlo_error": "Monte Carlo standard error of that mean",
    "bits_per_dim": "that -log p(x) / (features ln 2); none where values are missing",
    "behind": "how far -log p(x) is behind the best of its group, nats per datum",
    "behind_error": "standard error of that difference, paired by datum (test sampling and Monte Carlo)",
    "ess": "mean effective sample size per datum",
    "k_above": "share of test data with Pareto k-hat > 0.7: there the estimate is unreliable, likely too pessimistic",
    "unreliable": "share of test data whose figure is a bound: that share, or all where a part of p(x) is left out",
    "behind_bound": "1 where that difference is one of bounds: k-hat is above 0.7 for over 5 % of either's data",
    "naive_neg_log_p": "the same estimate with draws from the prior, log 1/n sum p(x|z_i): what the guide buys",
    "naive_monte_carlo_error": "Monte Carlo standard error of that estimate",
    "naive_k_above": "share of test data with k-hat > 0.7 for that estimate",
    "reconstruction": "squared error per datum, features on a scale from 0 to 1 over the range of what was seen",
    "neg_log_likelihood": "-log p(x|z) at the guide's mean z, nats per datum, of a density on the raw scale",
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
    """One fitted contender on one seed, scored on the scale on which it saw the data."""

    name: str
    observation: Observation
    seed: int
    evidence: Evidence | None  # None: an improper prior has none
    naive: Evidence | None
    measures: dict[str, float]  # by the names of COLUMNS; nan, or left out, where there is none
    of: str = ""  # of what the figures are, where it is not p(x)

    @property
    def contract(self) -> Contract:
        """Of what its figures are; without evidence, of what the data suggest."""
        measure = self.observation.measure if self.evidence is None else self.evidence.measure
        return Contract(self.observation, measure, self.of)

    def on_raw_scale(self, evidence: Evidence) -> Evidence:
        """A density's evidence on the scale of the raw data: log p(raw) = log p(x) + log |dx / draw|, nats per datum.

        A mass's is as it was, and so is every error.
        """
        shift = self.contract.log_jacobian
        return replace(evidence, estimate=evidence.estimate + shift, elbo=evidence.elbo + shift)


@dataclass(frozen=True)
class Row:
    """One contender over its seeds: the mean of every column, and its standard deviation over seeds.

    A density's figures are on the raw scale; `contract.observation` is what was seen.
    """

    name: str
    contract: Contract
    mean: dict[str, float]
    spread: dict[str, float]
    seeds: int

    def as_dict(self) -> dict[str, Any]:
        """What was seen, by how much its figures were moved to the raw scale, and every column."""
        scored = {
            "seen": self.contract.observation.how,
            "measure": self.contract.measure,
            "of": self.contract.of or "p(x)",
            "log_jacobian": self.contract.log_jacobian,
        }
        spread = {f"{column}_spread": value for column, value in self.spread.items()} if self.seeds > 1 else {}
        return {"name": self.name, "seeds": self.seeds, **scored, **self.mean, **spread}


@dataclass(frozen=True)
class Group:
    """Contenders whose contracts have the same terms, best -log p first; those without evidence keep their order."""

    rows: list[Row]
    ranked: bool

    @property
    def title(self) -> str:
        """What names it among other groups."""
        return self.rows[0].contract.title + ("" if self.ranked else ", without evidence")

    @property
    def views(self) -> list[str]:
        """How its rows saw the raw data, each way once."""
        return list(dict.fromkeys(row.contract.observation.how for row in self.rows))

    @property
    def label(self) -> str:
        """What its figures are of; of a density, which is on the raw scale, how the data were seen too."""
        contract = self.rows[0].contract
        seen = self.views[0] if len(self.views) == 1 else "as each row says"
        label = f"{contract}; seen {seen}" if contract.converts else f"{contract}"
        return label if self.ranked else f"{label}; improper priors: no evidence, not ranked"


def group_results(results: Sequence[Result]) -> list[Group]:
    """Group by the terms of what was scored, those without evidence last; rank inside a group only."""
    groups = []
    keys = dict.fromkeys((result.contract.terms, result.evidence is not None) for result in results)
    for terms, ranked in sorted(keys, key=lambda key: not key[1]):
        members = [r for r in results if r.contract.terms == terms and (r.evidence is not None) == ranked]
        best = _best(members) if ranked else []
        rows = [_row(own, best) for own in _by_contender(members)]
        if ranked:
            rows.sort(key=lambda row: row.mean["neg_log_p"])
        groups.append(Group(rows, ranked))
    return groups


def not_ranked(groups: Sequence[Group]) -> list[str]:
    """Why groups are not ranked together: a line for every group and every reason that parts it from earlier ones."""
    lines = []
    for place, group in enumerate(groups):
        apart: dict[str, list[str]] = {}
        for other in groups[:place]:
            apart.setdefault(_why(other, group), []).append(f"'{other.title}'")
        lines += [f"'{group.title}' is not ranked with {' or '.join(names)}: {why}" for why, names in apart.items()]
    return lines


def _why(one: Group, other: Group) -> str:
    if not (one.ranked and other.ranked):
        return "an improper prior has no evidence to rank by"
    return why_apart(one.rows[0].contract, other.rows[0].contract)


def _by_contender(members: Sequence[Result]) -> list[list[Result]]:
    """The seeds of every contender: one name on two views is two of them."""
    keys = dict.fromkeys((member.name, member.observation) for member in members)
    return [[m for m in members if (m.name, m.observation) == key] for key in keys]


def _evidences(members: Sequence[Result]) -> list[Evidence]:
    """Their evidence on the raw scale, where they have any."""
    return [member.on_raw_scale(member.evidence) for member in members if member.evidence is not None]


def _best(members: Sequence[Result]) -> list[Evidence]:
    """The evidence, seed by seed, of the contender with the highest mean estimate."""
    found = [_evidences(own) for own in _by_contender(members)]
    return max(found, key=lambda evidences: _pool(evidences).estimate.mean().item())


def spread_of_mean(evidences: Sequence[Evidence]) -> Tensor:
    """Standard error, by the spread over seeds, of the mean over seeds; zero for one seed, which shows none."""
    means = torch.stack([evidence.estimate.mean() for evidence in evidences])
    return means.std() / len(means) ** 0.5 if len(means) > 1 else torch.zeros(())


def _pool(evidences: Sequence[Evidence]) -> Evidence:
    """The mean over seeds, datum by datum; errors of independent runs add in quadrature."""

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(evidence, name) for evidence in evidences]).mean(0)

    def error(name: str) -> Tensor:
        squares = torch.stack([getattr(evidence, name).square() for evidence in evidences])
        return squares.sum(0).sqrt() / len(evidences)

    return replace(
        evidences[0],
        estimate=mean("estimate"),
        standard_error=error("standard_error"),
        ess=mean("ess"),
        pareto_k=mean("pareto_k"),
        elbo=mean("elbo"),
        elbo_standard_error=error("elbo_standard_error"),
    )


def _row(members: Sequence[Result], best_evidences: list[Evidence]) -> Row:
    per_seed = [_figures(member) for member in members]
    columns = per_seed[0].keys()
    values = {
        column: torch.tensor([figures[column] for figures in per_seed], dtype=torch.float64) for column in columns
    }
    mean = {column: value.mean().item() for column, value in values.items()}
    spread = {c: value.std().item() if len(value) > 1 else math.nan for c, value in values.items()}
    evidences = _evidences(members)
    mean["behind"] = mean["behind_error"] = mean["behind_bound"] = math.nan
    if best_evidences:
        pooled, best = _pool(evidences), _pool(best_evidences)
        mean["monte_carlo_error"] = float(pooled.summary()["monte_carlo_error"])
        mean["behind"], mean["behind_error"] = paired_difference(best.estimate, pooled.estimate)
        # a mean over seeds has the noise of its fits beside that of the test data
        noise = [float(spread_of_mean(both)) for both in (evidences, best_evidences)]
        mean["behind_error"] = math.hypot(mean["behind_error"], *noise)
        mean["behind_bound"] = float(max(e.unreliable() for e in (*evidences, *best_evidences)) > TOLERATED)
    ordered = {column: mean[column] for column in COLUMNS}
    return Row(members[0].name, members[0].contract, ordered, spread, len(members))


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
    figures["neg_log_likelihood"] -= result.contract.log_jacobian
    if result.evidence is not None:
        summary = result.on_raw_scale(result.evidence).summary()
        figures["bits_per_dim"] = result.contract.bits_per_dimension(result.evidence.estimate.mean().item())
        figures["neg_elbo"] = -float(summary["elbo"])
        figures["neg_log_p"] = -float(summary["log_p"])
        figures["monte_carlo_error"] = float(summary["monte_carlo_error"])
        figures["ess"] = float(summary["ess"])
        figures["k_above"] = float(summary["pareto_k_above_0.7"])
        figures["unreliable"] = result.evidence.unreliable()
    if result.naive is not None:
        naive = result.on_raw_scale(result.naive).summary()
        figures["naive_neg_log_p"] = -float(naive["log_p"])
        figures["naive_monte_carlo_error"] = float(naive["monte_carlo_error"])
        figures["naive_k_above"] = result.naive.unreliable()
    return figures
