"""The self-check: everything passes as it is, and a line fails for every mistake that is made on purpose."""

import inspect
import math
import textwrap
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ppvae.inference import laplace as laplace_function
from ppvae.inference import objectives
from ppvae.inference.evidence import annealing, bidirectional, exact
from ppvae.inference.evidence.tally import Tally
from ppvae.inference.objectives import divergences, enumeration, modes, pathwise, sampled, simulation
from ppvae.inference.posteriors import chains, local
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.program import prepared, proposals
from ppvae.inference.program.streams import keys
from ppvae.inference.program.weights import Draws
from ppvae.selfcheck import LIMIT, invariance, selfcheck
from ppvae.selfcheck import evidence as of_evidence
from ppvae.selfcheck import objectives as of_objectives
from ppvae.selfcheck import posteriors as of_posteriors
from ppvae.selfcheck.analytic import LinearGaussian
from ppvae.selfcheck.checks import against, at_least, at_most, equal
from ppvae.selfcheck.evidence import bound_checks, evidence_checks, flag_checks
from ppvae.selfcheck.invariance import invariance_checks
from ppvae.selfcheck.objectives import BY_ROLE, CONTINUOUS, DISCRETE, objective_checks
from ppvae.selfcheck.posteriors import posterior_checks

weights_module = inspect.getmodule(Draws)
laplace_module = inspect.getmodule(laplace_function)


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.soak)])
def checks(request):
    """All, or without what is slow: two of the stories, two of four estimators that no layout changes, flows."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "some":
            stories, estimators, slow = of_evidence.cases()[:2], invariance._estimators(0), of_posteriors.approximate
            quick = {"importance": estimators["importance"], "annealed": partial(estimators["annealed"], particles=2)}
            patch.setattr(of_evidence, "cases", lambda: stories)
            patch.setattr(invariance, "_estimators", lambda seed: quick)
            patch.setattr(
                of_posteriors, "approximate", lambda *of, **how: (exact_draws if "flow" in of[2] else slow)(*of, **how)
            )
        yield list(selfcheck())


def failed(found):
    return {check.kind for check in found if not check.passed}


def test_everything_passes(checks):
    assert [check for check in checks if not check.passed] == []


def test_every_kind_of_check_is_there_and_each_has_a_name_of_its_own(checks):
    kinds = {check.kind for check in checks}
    assert kinds == {"value", "gradient", "evidence", "its error", "bound", "flag", "posterior", "invariance"}
    names = [(check.kind, check.story, check.what) for check in checks]
    assert len(set(names)) == len(names)
    assert all(math.isfinite(check.figure) and math.isfinite(check.truth) for check in checks)


def test_every_objective_has_a_check():
    assert {*CONTINUOUS, *DISCRETE, *BY_ROLE} == set(objectives.__all__)


def test_every_objective_has_lines(checks):
    gradients = {check.what for check in checks if check.kind == "gradient"}
    assert gradients == set(objectives.__all__)


def test_it_draws_nothing_from_torchs_generator():
    state = torch.get_rng_state()
    next(selfcheck())
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="processes should be at least 1, got 0"):
        next(selfcheck(processes=0))


def test_lines_by_hand():
    assert against("k", "s", "w", 1.0, 0.0, 0.25).passed
    assert not against("k", "s", "w", 1.0, 0.0, 0.2).passed
    assert against("k", "s", "w", 1.0, 0.0, 0.25).z == 4
    for lost in (against("k", "s", "w", math.nan, 0.0, 0.2), against("k", "s", "w", 1.0, 1.0, 0.0)):
        assert not lost.passed
    figures, truths = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 2.5, 3.0]).double()
    assert (equal("k", "s", "w", figures, truths).figure, equal("k", "s", "w", figures, truths).truth) == (2, 2.5)
    assert not equal("k", "s", "w", figures, truths).passed
    assert equal("k", "s", "w", figures, figures + 1e-9).passed
    assert not equal("k", "s", "w", torch.tensor([1.0, math.nan]), torch.tensor([1.0, 1.0])).passed
    assert at_most("k", "s", "w", 1.0, 1.0).passed
    assert not at_most("k", "s", "w", math.nan, 1.0).passed
    assert not at_least("k", "s", "w", 0.9, 1.0).passed
    assert LIMIT == 4.5


# mistakes made on purpose: where, what instead, and which check should fail


def one_case(monkeypatch, rows, *names):
    """Only these estimators on the linear-Gaussian story: the others have nothing to do with the mistake."""
    every = of_evidence.ANYWHERE | of_evidence.WHERE_GRADIENTS_ARE
    monkeypatch.setattr(of_evidence, "ANYWHERE", {name: every[name] for name in names})
    monkeypatch.setattr(of_evidence, "WHERE_GRADIENTS_ARE", {})
    known, monkeypatched = LinearGaussian(), partial(monkeypatch.setattr, of_evidence)
    x = known.data(rows)
    first = [of_evidence.cases()[0]._replace(data=x, truth=known.log_evidence(x))]
    monkeypatched("cases", lambda: first)


def by(function, change):
    """A function whose result is changed."""
    return lambda *args, **kwargs: change(function(*args, **kwargs))


def accepted_always(log_density, u, step, scale, noise, leapfrog):
    noise.uniform = lambda particles: torch.full((particles, u.shape[1]), -1.0, dtype=u.dtype)
    return hmc_transition(log_density, u, step, scale, noise, leapfrog)


closed_densities = exact.model_densities
hmc_transition = inspect.getmodule(run_chains).transition


def with_sign_of_q(draws):
    return draws._replace(log_q=-draws.log_q)


ESTIMATES = {
    "log-mean-exp without log K": (
        (Tally, "log_mean_exp", lambda self: self.total),
        "importance, K = 300",
        "evidence",
    ),
    "mean of log-weights": ((Tally, "log_mean_exp", lambda self: self.elbo()[0]), "importance, K = 300", "evidence"),
    "log(K - 1)": (
        (Tally, "log_mean_exp", lambda self: self.total - math.log(self.count - 1)),
        "importance, K = 10",
        "evidence",
    ),
    "an error halved": (
        (Tally, "standard_error", by(Tally.standard_error, lambda e: e / 2)),
        "importance, K = 300",
        "its error",
    ),
    "an error doubled": (
        (Tally, "standard_error", by(Tally.standard_error, lambda e: e * 2)),
        "importance, K = 300",
        "its error",
    ),
    "the guide's density with a sign": (
        (weights_module, "draw", by(weights_module.draw, with_sign_of_q)),
        "importance, K = 300",
        "evidence",
    ),
    "the guide's density in a mixture": (
        (proposals, "guide_log_density", by(proposals.guide_log_density, lambda log_q: log_q + 0.3)),
        "importance, defensive",
        "evidence",
    ),
    "a wider proposal weighed as the guide": (
        (weights_module, "draw", by(weights_module.draw, lambda found: found._replace(log_q=found.log_q + 0.1))),
        "importance, widened",
        "evidence",
    ),
    "annealing that stops short": (
        (annealing, "betas", by(annealing.betas, lambda b: 0.97 * b)),
        "annealed from the guide",
        "evidence",
    ),
    "annealing that starts late": (
        (annealing, "betas", by(annealing.betas, lambda b: 0.05 + 0.95 * b)),
        "annealed from the guide",
        "evidence",
    ),
    "transitions that accept everything": (
        (annealing, "transition", accepted_always),
        "annealed from the prior",
        "evidence",
    ),
    "one stream for all data": (
        (prepared, "keys", lambda batch, seed: [f"{seed}".encode()] * len(batch[0])),
        "importance, K = 300",
        "evidence",
    ),
    "an exact figure a millionth off": (
        (exact, "model_densities", lambda *args: by(closed_densities(*args), lambda found: (found[0] + 1e-6, 0))),
        None,
        "evidence",
    ),
}


# Mistakes that are small: of the 60 data of the self-check, they would be seen at some seeds and not at others. The z
# of 20 seeds, on average and their spread, is 9.8 +- 0.8, 13.3 +- 1.3 and 8.2 +- 0.65 here: 5 spreads and more beyond
# the limit of 4.5. Of the others, of 60 data, the smallest are those of annealing: 18.5 +- 2.1 and 21 +- 2.7 (a step
# that is further off has a larger spread over the data, and a smaller z).
ROWS = {"log(K - 1)": 240, "an error halved": 120, "an error doubled": 120}


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_mistake_in_an_estimator_is_seen(name, monkeypatch):
    (where, what, instead), estimator, kind = ESTIMATES[name]
    one_case(monkeypatch, ROWS.get(name, 60), *([estimator] if estimator else []))
    assert failed(evidence_checks()) == set()
    monkeypatch.setattr(where, what, instead)
    assert kind in failed(evidence_checks())


def test_weights_that_are_never_suspected_are_seen(monkeypatch):
    monkeypatch.setattr(Tally, "pareto_k", lambda self: torch.zeros_like(self.total))
    assert failed(flag_checks()) == {"flag"}
    monkeypatch.setattr(Tally, "pareto_k", lambda self: torch.ones_like(self.total))
    assert failed(flag_checks()) == {"flag"}


def test_mistakes_in_bounds_are_seen(monkeypatch):
    assert failed(bound_checks()) == set()
    plain = Tally.add
    with monkeypatch.context() as patch:
        patch.setattr(Tally, "add", lambda self, log_w: plain(self, 0.9 * log_w))
        assert failed(bound_checks()) == {"bound"}
    with monkeypatch.context() as patch:  # back to the prior with the forward weights' sign
        back = bidirectional._backward
        patch.setattr(
            bidirectional, "_backward", lambda *args, **given: (0.8 * log_w for log_w in back(*args, **given))
        )
        found = [check.what for check in bound_checks() if not check.passed]
        assert found == ["bidirectional, upper"]


POSTERIORS = {
    "hmc that accepts everything": ((chains, "transition", accepted_always), "hmc"),
    "a density with half its height": (
        (local, "model_densities", lambda *args: by(local_densities(*args), lambda found: (found[0] / 2, found[1]))),
        "local_normal",
    ),
    "curvature": (
        (laplace_module, "curvature", by(laplace_module.curvature, lambda found: (found[0], 1.01 * found[1]))),
        "laplace",
    ),
    "r-hat": ((chains, "r_hat", by(chains.r_hat, lambda r: r + 1)), "hmc, largest R-hat"),
}
local_densities = local.model_densities


def exact_draws(story, x, method, *, num_samples, **_):
    known = LinearGaussian()
    noise = torch.randn(num_samples, *known.posterior_mean(x).shape).double()
    root = torch.linalg.cholesky(known.posterior_covariance)
    return SimpleNamespace(draws=known.posterior_mean(x) + noise @ root.mT)


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_mistake_in_a_posterior_is_seen(name, monkeypatch):
    (where, what, instead), seen = POSTERIORS[name]
    monkeypatch.setattr(where, what, instead)
    monkeypatch.setattr(of_posteriors, "approximate", exact_draws)  # slow, and right whatever the mistake
    found = [check.what for check in posterior_checks() if not check.passed]
    assert found
    assert all(what.startswith(seen) for what in found)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda batch, seed: [f"{seed} {row}".encode() for row in range(len(batch[0]))],  # by place
        lambda batch, seed: [key + bytes([len(batch[0])]) for key in keys(batch, seed)],  # by how many there are
    ],
)
def test_streams_that_depend_on_the_layout_are_seen(wrong, monkeypatch):
    every = invariance._estimators(0)
    monkeypatch.setattr(invariance, "_estimators", lambda seed: {"importance": every["importance"]})
    monkeypatch.setattr(prepared, "keys", wrong)
    found = [check for check in invariance_checks() if not check.passed]
    assert {check.kind for check in found} == {"invariance"}
    assert len(found) >= 4


# objectives, by their source with one expression changed
OBJECTIVES = {
    "elbo": (sampled, "terms.log_prior - terms.log_q", "terms.log_prior + terms.log_q", {"value", "gradient"}),
    "iwae": (sampled, "log_mean_exp(log_w)", "log_w.logsumexp(0)", {"value"}),
    "iwae, no logarithm": (sampled, "log_mean_exp(log_w)", "log_w.mean(0)", {"value", "gradient"}),
    "miwae": (sampled, "log_mean_exp(log_w.unflatten(0, groups))", "log_mean_exp(log_w)", {"value"}),
    "ciwae": (sampled, "(1 - beta) * multiple", "beta * multiple", {"value", "gradient"}),
    "renyi": (sampled, "log_w) / (1 - alpha)", "log_w)", {"value", "gradient"}),
    "dreg": (pathwise, "weights.square() * log_w", "weights * log_w", {"gradient"}),
    "dreg, no stop": (pathwise, "torch.softmax(log_w.detach()", "torch.softmax(log_w", {"gradient"}),
    "sticking_the_landing": (pathwise, "leaves.path(bound) + ", "", {"gradient"}),
    "mean_field_elbo": (divergences, "+ beta * divergence", "- beta * divergence", {"value", "gradient"}),
    "free_bits": (divergences, "clamp_min(nats)", "clamp_min(1.0)", {"value", "gradient"}),
}
DISCRETE_ONES = {
    "vimco": (sampled, "(signal * (log_score", "(-signal * (log_score", {"gradient"}),
    "vimco, no score": (sampled, "bound = bound + (signal", "bound = bound + (0 * signal", {"gradient"}),
    "elbo": (sampled, "(bound.detach() + beta)", "(-bound.detach() + beta)", {"gradient"}),
    "enumerated_elbo": (enumeration, " / len(batch[0])", "", {"value", "gradient"}),
}
ROLES = {
    "piwae": (pathwise, "torch.softmax(grouped, dim=0) / outer", "torch.softmax(grouped, dim=0)"),
    "wake_sleep": (simulation, "insomnia * terms.log_q", "-insomnia * terms.log_q"),
    "maximum_a_posteriori": (modes, "loss = -_total", "loss = -2 * _total"),
}


def mutant(module, name, old, new):
    source = textwrap.dedent(inspect.getsource(getattr(module, name)))
    assert old in source, f"{name} reads differently now"
    scope = dict(vars(module))
    exec(source.replace(old, new), scope)
    return scope[name]


@pytest.mark.parametrize("discrete", [False, True])
def test_mistakes_in_objectives_are_seen(discrete, monkeypatch):
    monkeypatch.setattr(of_objectives, "_by_role", lambda *_: iter(()))
    table, mutants = (DISCRETE, DISCRETE_ONES) if discrete else (CONTINUOUS, OBJECTIVES)
    other = "CONTINUOUS" if discrete else "DISCRETE"
    monkeypatch.setattr(of_objectives, other, {})
    made, kinds = {}, {}
    for label, (module, old, new, seen) in mutants.items():
        objective, bound = table[label.partition(",")[0]]
        wrong = mutant(module, label.partition(",")[0], old, new)
        options = objective.keywords if isinstance(objective, partial) else {}
        made[label], kinds[label] = (partial(wrong, **options), bound), seen
    monkeypatch.setattr(of_objectives, "DISCRETE" if discrete else "CONTINUOUS", made)
    found = list(objective_checks())
    for label, seen in kinds.items():
        wrong = {check.kind for check in found if check.what == label and not check.passed}
        assert seen <= wrong, label


@pytest.mark.parametrize("name", ROLES)
def test_mistakes_in_objectives_of_two_roles_are_seen(name, monkeypatch):
    monkeypatch.setattr(of_objectives, "CONTINUOUS", {})
    monkeypatch.setattr(of_objectives, "DISCRETE", {})
    module, old, new = ROLES[name]
    monkeypatch.setattr(objectives, name, mutant(module, name, old, new))
    found = [check for check in objective_checks() if not check.passed]
    assert {check.what for check in found} == {name}
    assert "gradient" in {check.kind for check in found}
