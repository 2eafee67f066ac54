"""Evidence: log p(x) for every datum, how wrong it may be, and in which direction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ppvae.inference.program.answers import Answer

Bound = Literal[
    "stochastic lower bound",
    "stochastic upper bound",
    "upper bound, estimated from below",
    "approximation",
    "exact",
]
COLUMNS = ("estimate", "standard_error", "ess", "pareto_k", "elbo", "elbo_standard_error", "particles")
"""The figures of a datum."""


@dataclass(frozen=True)
class Evidence(Answer):
    """An estimate of log p(x) for every datum, and how wrong each may be. Tensors are `(data,)`, in nats."""

    estimate: Tensor  # log 1/K sum_k w_k
    standard_error: Tensor  # Monte Carlo error of the estimate
    ess: Tensor  # effective sample size, 1 to K
    pareto_k: Tensor  # tail index of the weights: above 0.7 the estimate is unreliable, whatever its error says
    elbo: Tensor  # mean log-weight: the evidence lower bound
    elbo_standard_error: Tensor  # its Monte Carlo error
    particles: Tensor  # K, log-weights of the datum, as integers; 0 where nothing was drawn
    bound: Bound  # which way the estimate is off in expectation
    method: str
    measure: str = "mass"  # whether p(x) is a probability mass or a density, by the support of what is observed
    held: str = ""  # a discrete latent of which one value alone is counted: the estimate is then a bound the more
    target_error: float | None = None  # the Monte Carlo error that was asked for

    def summary(self) -> dict[str, float | str]:
        """Means over the data with their two errors, kept apart; nats per datum."""
        data = len(self.estimate)
        return {
            "method": self.method,
            "measure": self.measure,
            "bound": self.bound,
            "data": data,
            "particles": self.particles.double().mean().item(),
            "log_p": self.estimate.mean().item(),
            "monte_carlo_error": error_of_mean(self.standard_error),
            "sampling_error": (self.estimate.std() / data**0.5).item() if data > 1 else float("nan"),
            "bias": _BIAS.get(self.bound, float("nan")) * self.standard_error.square().mean().item(),
            "elbo": self.elbo.mean().item(),
            "elbo_monte_carlo_error": error_of_mean(self.elbo_standard_error),
            "ess": self.ess.mean().item(),
            "pareto_k_above_0.7": self._k_above() if self._checked() else float("nan"),
            "verdict": self.verdict(),
        }

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each datum."""
        return {"datum": range(len(self.estimate)), **{name: getattr(self, name).tolist() for name in COLUMNS}}

    def unreliable(self) -> float:
        """Share of the data whose k-hat is above 0.7, or unknown; all of them, where a part of p(x) is left out."""
        if self.held or self.bound == "approximation":
            return 1.0
        return 0.0 if self.bound == "exact" else self._k_above()

    def rows(self, chosen: Tensor) -> "Evidence":
        """The evidence of some of the data: by a mask, or in another order by their numbers."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in COLUMNS})

    def to_datatree(self) -> Any:
        """As an ArviZ DataTree, one entry a datum along `datum`; needs `pip install 'ppvae[arviz]'`."""
        from ppvae.inference.evidence.export import to_datatree  # ArviZ is optional

        return to_datatree(self)

    def _checked(self) -> bool:
        return bool((self.particles >= 25).all())

    def _k_above(self) -> float:
        return (~(self.pareto_k <= 0.7)).double().mean().item()

    def _missed(self) -> int:
        """How many data have not reached the error that was asked for."""
        return 0 if self.target_error is None else int((~(self.standard_error <= self.target_error)).sum())

    def verdict(self) -> str:
        """One line: can the figure be trusted?"""
        lost = int((~torch.isfinite(self.estimate)).sum())
        if lost:
            return f"unreliable: no draw had any weight for {lost} of the data"
        if self.bound == "exact":
            return "exact, to the rounding of the arithmetic"
        if self.bound == "approximation":
            return "an approximation: right where p(z | x) is Gaussian, and nothing here tells how far off elsewhere"
        if self.held:
            return f"a lower bound: of the values of '{self.held}' one alone is counted, and the others add to log p(x)"
        if not self._checked():
            return "unchecked: Pareto k-hat needs at least 25 particles"
        share, direction = self.unreliable(), _DIRECTION[self.bound]
        missed = f"; {self._missed()} of the data have not reached the error asked for" if self._missed() else ""
        if share == 0:
            said = "no sign of trouble: k-hat is at most 0.7 for every datum (a mode that no draw visits goes unseen)"
        elif share <= 0.05:
            said = f"usable: k-hat is above 0.7 for {share:.1%} of the data, whose estimates are likely {direction[0]}"
        else:
            said = (
                f"unreliable: k-hat is above 0.7 for {share:.0%} of the data; {direction[1]} "
                "by more than its error: more particles or a better guide would show it"
            )
        return said + missed

    def __str__(self) -> str:
        s = self.summary()
        checked = self._checked()
        share = f"{s['pareto_k_above_0.7']:.1%} of the data" if checked else "not computed"
        elbo = f"{s['elbo']:.3f}  (Monte Carlo error {s['elbo_monte_carlo_error']:.3f})"
        elbo = elbo if torch.isfinite(self.elbo).any() else "none"
        kind = {"exact": "exact,", "upper bound, estimated from below": "an upper bound, estimated from below,"}
        bound = kind.get(self.bound, f"{'an' if self.bound[0] == 'a' else 'a'} {self.bound}")
        lines = [
            f"log p(x) = {s['log_p']:.3f} nats per datum, of a {self.measure}; {bound} by {self.method}",
            f"  Monte Carlo error   {s['monte_carlo_error']:.3f}  ({self._drawn(s)})",
            f"  sampling error      {s['sampling_error']:.3f}  ({s['data']} data)",
            f"  {'mean log-weight' if self.bound == 'stochastic upper bound' else 'ELBO':<18}  {elbo}",
            f"  ESS                 {s['ess']:.1f} of {s['particles']:.0f} on average",
            f"  Pareto k-hat > 0.7  {share}",
            f"  {s['verdict']}",
        ]
        drawn = bool((self.particles > 0).any())
        return "\n".join(lines if drawn else [lines[0], lines[2], lines[-1]])

    def _drawn(self, summary: dict[str, float | str]) -> str:
        least, most = int(self.particles.min()), int(self.particles.max())
        count = f"{least}" if least == most else f"{least} to {most}"
        worst = "" if self.target_error is None else f", worst datum {self.standard_error.max().item():.3f}"
        low = self.bound == "stochastic lower bound" and self._checked() and self.unreliable() <= 0.05
        bias = f", bias about {summary['bias']:.3f}" if low else ""
        return f"{count} particles{worst}{bias}"


_BIAS = {"stochastic lower bound": -0.5, "stochastic upper bound": 0.5, "exact": 0.0}
"""Of the logarithm of an unbiased estimate of p(x), or of 1 / p(x), by its error squared: to second order."""

_DIRECTION = {
    "stochastic lower bound": ("too low", "log p(x) is likely higher than the estimate"),
    "stochastic upper bound": ("too high", "log p(x) is likely lower than the estimate"),
    "upper bound, estimated from below": ("too low to be bounds", "the bound is likely higher than its estimate"),
}


def assemble(figures: Tensor, bound: Bound, method: str, **rest: Any) -> Evidence:
    """Evidence of `(data, len(COLUMNS))` figures."""
    columns: Any = dict(zip(COLUMNS, figures.unbind(-1), strict=True))
    columns["particles"] = columns["particles"].long()
    return Evidence(**columns, bound=bound, method=method, **rest)


def error_of_mean(errors: Tensor) -> float:
    """The error of a mean of independent estimates."""
    return float((errors.square().sum().sqrt() / len(errors)).item())
