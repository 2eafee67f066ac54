"""What is asked of a story's programs: each thing refused by name, and what is right let through."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written
from torch import nn

from ppvae import networks
from ppvae.inference.program.checks import (
    check_data,
    check_parameters,
    check_point_mass,
    check_proper,
    foreign_parameters,
    hot_loop,
    not_finite,
    observed,
    of_factors,
)
from ppvae.inference.program.errors import NoDensity
from ppvae.models import assemble, encoders, likelihoods, priors


@pytest.mark.parametrize(
    ("likelihood", "x", "words"),
    [
        (likelihoods.Bernoulli, torch.full((4, 5), 0.25), r"'x'.*Bernoulli, \{0, 1\}; got 0.25 in row 0: binarise"),
        (partial(likelihoods.Binomial, total_count=3), torch.full((4, 5), 7.0), r"Binomial, \{0, ..., 3\}; got 7"),
        (partial(likelihoods.Binomial, total_count=3), torch.full((4, 5), 0.5), "got 0.5"),
        (likelihoods.Normal, torch.tensor([[0.0, torch.nan, 0, 0, 0]]), r"finite, got nan at index \[0, 1\]"),
        (likelihoods.Bernoulli, torch.zeros(4, 6), r"shape \(1, 6\) float32"),
        (likelihoods.Bernoulli, torch.zeros(4, 5, dtype=torch.int64), "should take data"),
    ],
)
def test_data_that_the_story_cannot_score_are_refused(likelihood, x, words):
    with pytest.raises(ValueError, match=words):
        check_data(bits(likelihood), (x,))


def bits(likelihood=likelihoods.Bernoulli, prior=priors.StandardNormal, encoder=encoders.DiagonalNormal):
    torch.manual_seed(0)
    return assemble(prior, likelihood, encoder, shape=(5,), latent=2, network=networks.MLP([4]))


@pytest.mark.parametrize("row", [0, 3, 4, 9])
def test_a_datum_is_named_by_its_row_among_all(row):
    x = torch.zeros(10, 5)
    x[row, 2] = 0.5
    with pytest.raises(ValueError, match=rf"got 0\.5 in row {row}: binarise"):
        check_data(bits(), (x,), rows=4)
    check_data(bits(), (torch.ones(10, 5),), rows=4)


def test_what_stands_where_a_value_is_missing_may_be_anything():
    x, mask = torch.zeros(3, 5), torch.ones(3, 5, dtype=torch.bool)
    x[1, 2], mask[1, 2] = torch.nan, False
    check_data(bits(), (x, mask))
    with pytest.raises(ValueError, match=r"finite, got nan at index \[1, 2\]"):
        check_data(bits(), (x, torch.ones_like(mask)))


def observing(fn):
    """x ~ fn, whatever z is."""
    normal = dist.Normal(torch.zeros(()), 1.0)

    def model(x):
        pyro.sample("z", normal)
        pyro.sample("x", fn, obs=x)

    return Written(model, lambda x: pyro.sample("z", normal))


def test_rows_of_another_shape_and_rows_outside_a_support_are_refused():
    shares = observing(dist.Dirichlet(torch.ones(3)))
    with pytest.raises(ValueError, match=r"'x' should observe data of shape \(3,\) per datum, got \(5,\)"):
        check_data(shares, (torch.full((4, 5), 0.2),))
    with pytest.raises(ValueError, match=r"'x' observes rows in the support of Dirichlet, Simplex\(\): rescale"):
        check_data(shares, (torch.full((4, 3), 0.5),))
    check_data(shares, (torch.full((4, 3), 1 / 3),))


@pytest.mark.parametrize(
    ("fn", "value", "support"),
    [
        (dist.Poisson(torch.ones(())), -1.0, r"Poisson, \{0, 1, \.\.\.\}"),
        (dist.Exponential(torch.ones(())), -1.0, r"Exponential, GreaterThanEq\(lower_bound=0.0\)"),
        (dist.Binomial(3, torch.tensor(0.5)), 4.0, r"Binomial, \{0, \.\.\., 3\}"),
    ],
)
def test_a_support_is_written_as_one_would(fn, value, support):
    with pytest.raises(ValueError, match=rf"'x' observes values in the support of {support}; got {value:g} in row 1"):
        check_data(observing(fn), (torch.tensor([1.0, value]),))


class Stray(nn.Module):
    """A scale of Pyro's store beside parameters of its own, one of which it hands to Pyro by `pyro.module`."""

    def __init__(self, stray):
        super().__init__()
        self.stray, self.loc = stray, nn.Linear(1, 1)

    def model(self, x):
        pyro.module("loc", self.loc)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    def guide(self, x):
        scale = pyro.param("scale", torch.ones(())) if self.stray else 1.0
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.loc(x.unsqueeze(-1))[..., 0], scale))


def test_a_parameter_that_is_not_the_storys_own_is_refused_and_leaves_no_trace():
    x = torch.zeros(3)
    assert foreign_parameters(Stray(False), (x,)) == []
    check_parameters(Stray(False), (x,))
    assert foreign_parameters(Stray(True), (x,)) == ["scale"]
    with pytest.raises(ValueError, match=r"belong to the story, .*; scale does not: make it an nn.Parameter"):
        check_parameters(Stray(True), (x,))
    assert list(pyro.get_param_store()) == []


@pytest.mark.parametrize(
    ("guide_scale", "z_scale", "x_scale", "found"),
    [
        (torch.nan, torch.nan, torch.nan, "site 'z' of the guide (Normal)"),
        (1.0, torch.nan, torch.nan, "site 'z' of the model (Normal)"),
        (1.0, 1.0, torch.nan, "site 'x' of the model (Normal)"),
        (1.0, 1.0, 0.0, "site 'x' of the model (Normal)"),
        (1.0, 1.0, 1.0, "no single site"),
    ],
)
def test_the_first_site_that_is_not_finite_is_named(guide_scale, z_scale, x_scale, found):
    def normal(scale):
        return dist.Normal(torch.zeros(()), torch.tensor(scale), validate_args=False)

    def model(x):
        pyro.sample("z", normal(z_scale))
        pyro.sample("x", normal(x_scale), obs=x)

    story = Written(model, lambda x: pyro.sample("z", normal(guide_scale)))
    assert not_finite(story, (torch.ones(3),)) == found


@pytest.mark.parametrize(
    ("likelihood", "measure"),
    [
        (likelihoods.Bernoulli, "mass"),
        (likelihoods.Normal, "density"),
        (
            partial(likelihoods.Heterogeneous, columns=[*["normal"] * 3, "bernoulli", "normal"]),
            "density, in columns 3 mass",
        ),
    ],
)
def test_what_is_observed_has_a_mass_or_a_density(likelihood, measure):
    assert observed(bits(likelihood), (torch.zeros(1, 5),)) == (measure, [])
    masked = torch.zeros(1, 5), torch.ones(1, 5, dtype=torch.bool)
    assert observed(bits(likelihood), masked) == (measure, [])


def test_factors_are_named_and_are_no_data():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("tilt", -z)
        pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(torch.zeros(()), 1.0)))
    assert observed(story, (torch.ones(1),)) == ("mass", ["tilt"])
    assert of_factors(["tilt"]) == ", of a density that the factor 'tilt' leaves unnormalised"
    assert of_factors([]) == ""


def test_a_prior_that_integrates_to_no_number_is_refused_before_anything_is_estimated():
    datum, proper, flat = (torch.zeros(1, 5),), bits(), bits(prior=priors.Flat)
    state = torch.get_rng_state()
    assert [site["name"] for site in check_proper(proper, datum)] == ["z", "x"]
    with pytest.raises(NoDensity, match=r"proper prior; that of site 'z' .* priors.ex_post"):
        check_proper(flat, datum)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_point_mass_is_refused_where_nothing_beside_it_has_its_density():
    datum = (torch.zeros(1, 5),)
    check_point_mass(bits(), datum)
    with pytest.raises(NoDensity, match=r"'z' has a point mass \(Delta\): use laplace_sampling"):
        check_point_mass(bits(encoder=encoders.PointMass), datum)

    def guide(x):
        u = pyro.sample("u", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    check_point_mass(Written(lambda x: None, guide), (torch.zeros(1),))


def test_a_hot_loop_is_without_validation_and_it_comes_back():
    def fail():
        with hot_loop():
            dist.Normal(torch.zeros(()), -1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(torch.zeros(()), -1.0)
