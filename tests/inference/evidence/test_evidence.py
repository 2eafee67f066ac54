"""What an evidence says of itself: verdicts, figures, lines."""

import math

import pytest
import torch

from ppvae.inference.evidence.evidence import COLUMNS, Evidence, assemble
from ppvae.inference.evidence.tally import reduce

LOWER, UPPER, CUBO = "stochastic lower bound", "stochastic upper bound", "upper bound, estimated from below"


def evidence(k=0.1, bound=LOWER, particles=100, data=40, **rest):
    """Figures by hand: -1, -2, ...; `k` is one for all, or a list for the first of the data."""
    column = -torch.arange(1.0, data + 1).double()
    pareto_k = torch.full((data,), 0.1).double()
    given = [k] * data if isinstance(k, float) else k
    pareto_k[: len(given)] = torch.tensor(given).double()
    count = torch.full((data,), particles) if isinstance(particles, int) else torch.tensor(particles)
    error = torch.full((data,), 0.2, dtype=torch.float64)
    return Evidence(
        estimate=column,
        standard_error=rest.pop("standard_error", error),
        ess=0.5 * count.double(),
        pareto_k=pareto_k,
        elbo=rest.pop("elbo", column - 1),
        elbo_standard_error=2 * error,
        particles=count,
        bound=bound,
        method="hand",
        **rest,
    )


@pytest.mark.parametrize(
    ("made", "verdict", "unreliable"),
    [
        ({}, "no sign of trouble: k-hat is at most 0.7 for every datum (a mode that no draw visits goes unseen)", 0),
        ({"k": 0.7}, "no sign of trouble: k-hat is at most 0.7", 0),
        ({"k": [0.71]}, "usable: k-hat is above 0.7 for 2.5% of the data, whose estimates are likely too low", 1 / 40),
        (
            {"k": [0.71], "bound": UPPER},
            "usable: k-hat is above 0.7 for 2.5% of the data, whose estimates are likely too high",
            1 / 40,
        ),
        (
            {"k": [0.71], "bound": CUBO},
            "usable: k-hat is above 0.7 for 2.5% of the data, whose estimates are likely too low to be bounds",
            1 / 40,
        ),
        (
            {"k": [0.9] * 4},
            "unreliable: k-hat is above 0.7 for 10% of the data; log p(x) is likely higher than the estimate by more "
            "than its error",
            0.1,
        ),
        (
            {"k": [0.9] * 4, "bound": UPPER},
            "unreliable: k-hat is above 0.7 for 10% of the data; log p(x) is likely lower",
            0.1,
        ),
        (
            {"k": [0.9] * 4, "bound": CUBO},
            "unreliable: k-hat is above 0.7 for 10% of the data; the bound is likely higher",
            0.1,
        ),
        ({"k": [math.nan]}, "usable: k-hat is above 0.7 for 2.5%", 1 / 40),  # unknown is not good
        ({"k": math.nan, "bound": "exact", "particles": 0}, "exact, to the rounding of the arithmetic", 0),
        (
            {"k": math.nan, "bound": "approximation", "particles": 0},
            "an approximation: right where p(z | x) is Gaussian",
            1,
        ),
        ({"held": "tree"}, "a lower bound: of the values of 'tree' one alone is counted", 1),
        ({"held": "tree", "bound": "approximation", "particles": 0}, "an approximation: right where", 1),
        ({"k": math.nan, "particles": 24}, "unchecked: Pareto k-hat needs at least 25 particles", 1),
        ({"k": [math.nan], "particles": [24] + [100] * 39}, "unchecked", 1 / 40),  # one of them is enough
        ({"standard_error": torch.tensor([0.3] + [0.1] * 39).double(), "target_error": 0.1}, "no sign of trouble", 0),
    ],
)
def test_the_verdict(made, verdict, unreliable):
    found = evidence(**made)
    assert found.verdict().startswith(verdict)
    assert found.unreliable() == pytest.approx(unreliable)
    assert found.summary()["verdict"] == found.verdict()
    assert found.verdict() in str(found)
    assert "\n" not in found.verdict()


def test_a_figure_that_is_lost_is_said_first():
    for bound in (LOWER, UPPER, CUBO, "approximation", "exact"):
        for lost in (-math.inf, math.nan):
            found = evidence(bound=bound, particles=0 if bound in {"approximation", "exact"} else 100)
            found.estimate[3] = lost
            assert found.verdict() == "unreliable: no draw had any weight for 1 of the data"


@pytest.mark.parametrize("k", [0.1, [0.9], [0.9] * 30])
def test_an_error_that_was_asked_for_and_missed_is_said_whatever_the_weights(k):
    errors = torch.full((40,), 0.05, dtype=torch.float64)
    errors[:3] = torch.tensor([0.051, math.inf, math.nan])
    said = "; 3 of the data have not reached the error asked for"
    assert evidence(k=k, standard_error=errors, target_error=0.05).verdict().endswith(said)
    assert said not in evidence(k=k, standard_error=errors).verdict()
    assert said not in evidence(k=k, target_error=0.2).verdict()


def test_lines_of_a_lower_bound():
    assert str(evidence(k=[0.8])).splitlines() == [
        "log p(x) = -20.500 nats per datum, of a mass; a stochastic lower bound by hand",
        "  Monte Carlo error   0.032  (100 particles, bias about -0.020)",
        "  sampling error      1.848  (40 data)",
        "  ELBO                -21.500  (Monte Carlo error 0.063)",
        "  ESS                 50.0 of 100 on average",
        "  Pareto k-hat > 0.7  2.5% of the data",
        "  usable: k-hat is above 0.7 for 2.5% of the data, whose estimates are likely too low",
    ]


def test_lines_of_other_bounds():
    upper = str(evidence(bound=CUBO)).splitlines()
    assert upper[0].endswith("an upper bound, estimated from below, by hand")
    assert upper[1] == "  Monte Carlo error   0.032  (100 particles)"
    assert str(evidence(bound=UPPER)).splitlines()[0].endswith("a stochastic upper bound by hand")
    several = str(evidence(particles=[100, *[300] * 39], target_error=0.2)).splitlines()[1]
    assert several == "  Monte Carlo error   0.032  (100 to 300 particles, worst datum 0.200, bias about -0.020)"
    few = str(evidence(k=math.nan, particles=3)).splitlines()
    assert few[1] == "  Monte Carlo error   0.032  (3 particles)"  # nothing says that the bias is no larger
    assert few[5] == "  Pareto k-hat > 0.7  not computed"
    none = str(evidence(elbo=torch.full((40,), -math.inf).double()))
    assert "  ELBO                none\n" in none


@pytest.mark.parametrize("bound", ["exact", "approximation"])
def test_what_draws_nothing_has_no_lines_of_draws(bound):
    nothing = torch.full((40,), math.nan).double()
    found = evidence(k=math.nan, bound=bound, particles=0, elbo=nothing, standard_error=0 * nothing.nan_to_num())
    lines = str(found).splitlines()
    said = {"exact": "exact, by hand", "approximation": "an approximation by hand"}[bound]
    assert lines[0] == f"log p(x) = -20.500 nats per datum, of a mass; {said}"
    assert lines[1] == "  sampling error      1.848  (40 data)"
    assert len(lines) == 3


def test_the_bias_has_the_sign_of_the_bound():
    assert evidence().summary()["bias"] == pytest.approx(-0.02)
    assert evidence(bound=UPPER).summary()["bias"] == pytest.approx(0.02)
    assert evidence(bound="exact", particles=0).summary()["bias"] == 0
    assert math.isnan(evidence(bound=CUBO).summary()["bias"])
    assert math.isnan(evidence(bound="approximation", particles=0).summary()["bias"])


def test_rows_by_mask_and_by_number():
    found = evidence(particles=list(range(100, 140)), target_error=0.3, held="c")
    order = torch.tensor([5, 0, 39])
    some = found.rows(order)
    for name in COLUMNS:
        assert torch.equal(getattr(some, name).nan_to_num(), getattr(found, name)[order].nan_to_num()), name
    assert (some.method, some.bound, some.target_error, some.held) == ("hand", LOWER, 0.3, "c")
    mask = found.estimate < -38.5
    assert found.rows(mask).estimate.tolist() == [-39, -40]
    assert found.rows(mask).particles.tolist() == [138, 139]


def test_reductions_of_a_datum_by_hand():
    log_w = torch.tensor([[0.0], [1.0], [2.0]]).double()
    w = log_w.exp()
    found = assemble(reduce(log_w).T, LOWER, "hand")
    assert found.estimate.item() == pytest.approx(w.mean().log().item())
    assert found.standard_error.item() == pytest.approx((w.std() / 3**0.5 / w.mean()).item())
    assert found.ess.item() == pytest.approx((w.sum() ** 2 / w.square().sum()).item())
    assert math.isnan(found.pareto_k.item())
    assert found.elbo.item() == 1
    assert found.elbo_standard_error.item() == pytest.approx(1 / 3**0.5)
    assert found.particles.tolist() == [3]
    assert not found.particles.is_floating_point()
    single = reduce(log_w[:1])
    assert single[1].isinf()
    assert single[5].isinf()
