"""What decides which figures may be compared: of what they are, and on which scale."""

from dataclasses import dataclass, fields, replace
from math import log, nan

from ppvae.data.observation import Observation, Scaling


@dataclass(frozen=True)
class Contract:
    """Of what a figure is: what was observed, whether its mass or its density is meant, and which probability.

    Figures whose contracts have equal `terms` are ranked together, once each has its `log_jacobian` added.
    """

    observation: Observation
    measure: str  # mass, density, or a density of which some columns have masses: by the likelihood, not by the data
    of: str = ""  # such as p(x | labels), where it is not p(x)

    @property
    def converts(self) -> bool:
        """Whether a change of scale is its Jacobian and nothing else.

        A mass has no Jacobian, nor has a column of masses; binarisation is no change of scale; and where values are
        missing each datum has a Jacobian of its own, of the values that are there.
        """
        return self.measure == "density" and self.observation.binarisation == "none" and not self.observation.missing

    @property
    def log_jacobian(self) -> float:
        """What takes log p(x) to the scale of the raw data, nats per datum: log p(raw) = log p(x) + log |dx / draw|.

        0 for what does not convert.
        """
        return self.observation.log_jacobian if self.converts else 0.0

    def bits_per_dimension(self, log_p: float) -> float:
        """-log p / (features log 2), of log p(x) in nats per datum: on the raw scale where p converts to it.

        nan where values are missing: their number differs by datum.
        """
        seen = self.observation
        return nan if seen.missing else -(log_p + self.log_jacobian) / (seen.features * log(2))

    @property
    def terms(self) -> "Contract":
        """What has to be equal for two figures to be ranked together: all but the scale that a density was seen on.

        A density of levels, of scaled levels and of standardised ones is one density on three scales. That of levels
        with noise on them is another.
        """
        if not self.converts:
            return self
        scaling: Scaling = "dequantise" if self.observation.scaling == "dequantise" else "none"
        raw = replace(self.observation, kind="real", maximum=None, scaling=scaling, log_jacobian=0.0, contrast=1.0)
        return replace(self, observation=raw)

    @property
    def title(self) -> str:
        """What names the figures that share these terms."""
        return ", ".join(filter(None, [self._where, self.of]))

    def __str__(self) -> str:
        seen = self.observation
        what = "density on reals" if self.converts else f"{seen.measure} on {seen.support}"
        of = f", {self.of}" if self.of else ""
        return f"{self._where}: {what}, {seen.features} features, {seen.units}{of}"

    @property
    def _where(self) -> str:
        seen = self.observation
        if self.converts:
            noisy = seen.scaling == "dequantise"
            return seen.titled("uniformly dequantised, on the raw scale" if noisy else "on the raw scale")
        return seen.titled(seen.how) + (f", scored as a {self.measure}" if self.measure != seen.measure else "")

    @property
    def _values(self) -> str:
        seen = self.observation
        if seen.binarisation != "none":
            return f"{seen.binarisation} binarisation"
        return {"levels": f"levels 0 to {seen.maximum}", "real": "raw values"}.get(seen.kind, seen.kind)


def why_apart(one: Contract, other: Contract) -> str:
    """Why figures of `other` are not ranked with those of `one`, in plain words: the first difference that decides it.

    Empty where they are: their terms are equal.
    """
    a, b = one.terms.observation, other.terms.observation
    noisy = [c.observation.scaling == "dequantise" for c in (one, other)]
    if one.terms == other.terms:
        return ""
    if a.fingerprint != b.fingerprint:
        return f"other data: the fingerprints differ ({b.fingerprint} against {a.fingerprint})"
    if a.binarisation != b.binarisation:
        values = f"{other._values} against {one._values}"
        return f"other values are observed ({values}), and no conversion between them exists"
    if one.of != other.of:
        return f"{other.of or 'p(x)'} is not {one.of or 'p(x)'}"
    if a.labelled != b.labelled:
        told = ["all" if seen.labelled is None else f"{seen.labelled}" for seen in (b, a)]
        return f"their stories are told other labels ({told[0]} against {told[1]})"
    if noisy[0] != noisy[1]:
        return BOUND if "mass" in {one.measure, other.measure} else NOISE
    if {one.measure, other.measure} == {"mass", "density"}:
        return "a density has no mass unless the story defines one (DiscretizedLogistic does)"
    if one.measure != other.measure:
        return f"a {other.measure} is not a {one.measure}"
    if a.missing and a.scaling != b.scaling:
        return "values are missing: each datum has a Jacobian of its own, and the record holds that of a whole one"
    if a.scaling != b.scaling:
        return f"other scales ({b.how} against {a.how}), and a {one.measure} has no Jacobian to convert by"
    differing = [field.name for field in fields(a) if getattr(a, field.name) != getattr(b, field.name)]
    return f"their records differ in {', '.join(differing)}"


NOISE = "one is of levels with noise on them: that density bounds the levels' mass, a density of levels alone does not"
BOUND = (
    "-log p of levels with noise on them bounds the -log P(levels) of its own story from above, in the mean over the "
    "noise (Theis et al. 2016): a bound is not ranked with a mass"
)
