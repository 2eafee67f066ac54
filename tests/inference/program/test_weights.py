"""Log-weights and their reductions against closed forms and Pyro's own traces."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from torch import nn

from ppvae.inference import log_joint, log_mean_exp, log_weights
from ppvae.inference.program.weights import effective_sample_size, standard_error
from ppvae.selfcheck.analytic import LinearGaussian


def test_every_log_weight_is_the_evidence_when_the_guide_is_exact():
    known = LinearGaussian()
    x = known.data(7)
    log_w = log_weights(known.story(), x, particles=11)
    assert log_w.shape == (11, 7)
    torch.testing.assert_close(log_w, known.marginal().log_prob(x).expand(11, 7), atol=1e-9, rtol=0)


def test_the_same_holds_to_1e_4_in_float32():
    known = LinearGaussian()
    x = known.data(7)
    log_w = log_weights(known.story().float(), x.float(), particles=11)
    torch.testing.assert_close(log_w.double(), known.marginal().log_prob(x).expand(11, 7), atol=1e-4, rtol=0)


def test_log_joint_is_prior_plus_likelihood():
    known = LinearGaussian()
    x, z = known.data(4), torch.randn(3, 4, 2).double()
    prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1).log_prob(z)
    likelihood = dist.Normal(z @ known.weight.T + known.bias, known.variance**0.5).to_event(1).log_prob(x)
    torch.testing.assert_close(log_joint(known.story(), x, {"z": z}), prior + likelihood)


class TwoLatents(nn.Module):
    """Anyone's program: two latents, an inner plate, a factor, a mask, a scale, and data as two tensors."""

    def model(self, x, mask):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", 3, dim=-3):
                b = pyro.sample("b", dist.Normal(a, 2.0))
            pyro.factor("penalty", -(a**2))
            pyro.deterministic("twice", 2 * a)
            with pyro.poutine.scale(scale=7.0), pyro.poutine.mask(mask=mask):
                pyro.sample("x", dist.Normal(b.sum(-3), 1.0), obs=x)

    def guide(self, x, mask):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", dist.Normal(x, 0.5))
            with pyro.plate("inner", 3, dim=-3):
                pyro.sample("b", dist.Normal(x, 1.5))


def test_log_weights_of_a_users_program_by_hand():
    x, mask = torch.tensor([0.3, -1.0]), torch.tensor([True, False])
    torch.manual_seed(5)
    log_w = log_weights(TwoLatents(), (x, mask), particles=4)
    torch.manual_seed(5)
    a = dist.Normal(x, 0.5).expand([4, 2]).sample()
    b = dist.Normal(x, 1.5).expand([3, 4, 2]).sample()
    log_p = dist.Normal(0.0, 1.0).log_prob(a) + dist.Normal(a, 2.0).log_prob(b).sum(0) - a**2
    log_p = log_p + mask * dist.Normal(b.sum(0), 1.0).log_prob(x)  # masked, and not scaled by 7
    log_q = dist.Normal(x, 0.5).log_prob(a) + dist.Normal(x, 1.5).log_prob(b).sum(0)
    torch.testing.assert_close(log_w, log_p - log_q)


class Broken(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def model(self, x):
        if self.fault == "global":
            pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if self.fault == "unmatched":
                pyro.sample("w", dist.Normal(0.0, 1.0))
            if self.fault == "collision":
                with pyro.plate("pixels", 2, dim=-2):
                    pyro.sample("w", dist.Normal(0.0, 1.0), obs=torch.zeros(2, len(x)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        if self.fault == "global":
            pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("global", "data plate.*'theta'"), ("unmatched", "every latent site.*lacks w"), ("collision", "dim -2.*dim=-3")],
)
def test_a_program_without_evidence_per_datum_is_refused(fault, words):
    with pytest.raises(ValueError, match=words):
        log_weights(Broken(fault), torch.zeros(3))


@pytest.mark.parametrize(
    ("data", "particles", "words"),
    [
        (torch.zeros(3), 0, "particles should be at least 1, got 0"),
        (torch.zeros(0), 1, "at least 1 datum"),
        ((torch.zeros(3), torch.zeros(2)), 1, r"equal length, got lengths \[3, 2\]"),
    ],
)
def test_bad_arguments_are_refused(data, particles, words):
    with pytest.raises(ValueError, match=words):
        log_weights(Broken(None), data, particles=particles)


def test_parameters_kept_in_pyros_store_are_seen_and_the_store_is_left_alone():
    """A user's own program may hold its parameters in the store: a figure must be of the fitted ones."""

    class Stored(Broken):
        def guide(self, x):
            scale = pyro.param("scale", torch.tensor(1.0))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(0.0, scale))

    x = torch.zeros(1)
    log_weights(Stored(None), x)
    assert list(pyro.get_param_store()) == []
    pyro.param("scale", torch.tensor(3.0))
    torch.manual_seed(0)
    z = 3 * torch.randn(1, 1)
    expected = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - dist.Normal(0.0, 3.0).log_prob(z)
    torch.manual_seed(0)
    torch.testing.assert_close(log_weights(Stored(None), x), expected)
    assert list(pyro.get_param_store()) == ["scale"]


def test_reductions_by_hand():
    w = torch.tensor([[0.1, 1.0], [0.5, 3.0], [0.9, 2.0]]).double()
    log_w = w.log() + 1000  # exp would overflow
    torch.testing.assert_close(log_mean_exp(log_w), w.mean(0).log() + 1000)
    torch.testing.assert_close(effective_sample_size(log_w), w.sum(0) ** 2 / (w**2).sum(0))
    torch.testing.assert_close(standard_error(log_w), w.std(0) / (3**0.5 * w.mean(0)))
    assert standard_error(log_w[:1]).isinf().all()


def test_the_standard_error_is_the_spread_of_repeated_estimates():
    torch.manual_seed(0)
    log_w = 0.5 * torch.randn(2000, 400).double()  # 400 repeats of 2,000 log-normal weights
    spread = log_mean_exp(log_w).std().item()
    reported = standard_error(log_w).mean().item()
    assert abs(reported - spread) < 4 * spread / math.sqrt(2 * 399)  # the error of a standard deviation


def test_a_guide_that_draws_more_than_the_model_is_refused():
    """Its weights would hold a density that nothing integrates out."""

    class Extra(Broken):
        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x, 1.0))
                pyro.sample("extra", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="model's latent sites only; it draws extra"):
        log_weights(Extra(None), torch.zeros(3))


def test_an_autoguide_has_log_weights_where_it_keeps_the_data_plate():
    """Its draw is auxiliary: the latent is a function of it, and a positive one carries the Jacobian."""

    class Positive(nn.Module):
        def __init__(self):
            super().__init__()
            self.guide = AutoNormal(self.model, init_scale=1.5, init_loc_fn=init_to_value(values={"z": torch.ones(3)}))

        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Exponential(1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.5, 1.0, 2.0])
    log_w = log_weights(Positive(), x, particles=50_000).double()
    z = torch.linspace(0, 12, 100_001, dtype=torch.float64)[1:]
    density = (dist.Normal(z, 1.0).log_prob(x.double().unsqueeze(-1)) - z).exp()
    exact = torch.trapezoid(density, z).log()
    assert ((log_mean_exp(log_w) - exact).abs() < 4 * standard_error(log_w)).all()
    assert standard_error(log_w).max() < 0.05


@pytest.mark.parametrize("particles", [1, 2, 5])
def test_a_first_latent_in_an_inner_plate_does_not_change_the_particles(particles):
    class InnerFirst(nn.Module):
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                with pyro.plate("inner", 3, dim=-3):
                    b = pyro.sample("b", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(b.sum(-3), 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 3, dim=-3):
                pyro.sample("b", dist.Normal(0.0, 1.0))

    assert log_weights(InnerFirst(), torch.zeros(4), particles=particles).shape == (particles, 4)


def test_a_plate_that_only_has_the_size_of_the_batch_is_refused():
    class Shared(Broken):
        def model(self, x):
            with pyro.plate("pixels", 3, dim=-1):
                theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(theta, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("pixels", 3, dim=-1):
                pyro.sample("theta", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="one plate at dim -1"):
        log_weights(Shared(None), torch.zeros(3))


def test_an_auxiliary_draw_that_no_latent_is_a_function_of_is_refused():
    class Auxiliary(Broken):
        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                u = pyro.sample("u", dist.Normal(0.0, 3.0), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(u, 1.0))

    with pytest.raises(ValueError, match="one-to-one functions of; u is not"):
        log_weights(Auxiliary(None), torch.zeros(3))


ONE_HOT, SIMPLEX = dist.OneHotCategorical(torch.ones(2)), dist.RelaxedOneHotCategorical(torch.ones(()), torch.ones(2))
PLANE, CIRCLE = dist.Normal(torch.zeros(2), 1.0).to_event(1), dist.ProjectedNormal(torch.ones(2))
MIXTURE = dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), dist.Normal(torch.zeros(3, 2), 1.0).to_event(1))


class Pair:
    """A guide and a prior over one site, as they come."""

    def __init__(self, drawn, prior):
        self.drawn, self.prior = drawn, prior

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.drawn)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    ("drawn", "prior", "words"),
    [
        (
            CIRCLE,
            PLANE,
            r"'z' from a support like the model's, Real\(\); it draws from Sphere.* goes with .*VonMisesFisher",
        ),
        (PLANE, CIRCLE, r"like the model's, Sphere; it draws from Real\(\)"),
        (ONE_HOT, SIMPLEX, r"like the model's, Simplex\(\); it draws from OneHot\(\)"),
        (SIMPLEX, ONE_HOT, r"like the model's, OneHot\(\); it draws from Simplex\(\)"),
        (MIXTURE, SIMPLEX, r"like the model's, Simplex\(\); it draws from Real\(\)"),
        (ONE_HOT, PLANE, r"like the model's, Real\(\); it draws from OneHot\(\)"),
    ],
)
def test_a_guide_whose_density_is_over_another_kind_of_set_is_refused(drawn, prior, words, validate):
    """Its weights would be finite, and mean nothing."""
    with pyro.validation_enabled(validate), pytest.raises(ValueError, match=words):
        log_weights(Pair(drawn, prior), torch.zeros(3))


@pytest.mark.parametrize(
    ("drawn", "prior"),
    [
        (PLANE, PLANE),
        (PLANE, MIXTURE),
        (CIRCLE, CIRCLE),
        (SIMPLEX, dist.Dirichlet(torch.ones(2))),
        (ONE_HOT, ONE_HOT),
        (dist.LogNormal(torch.zeros(2), 1.0).to_event(1), PLANE),  # within the model's: a bound, if a loose one
        (dist.Delta(torch.tensor([0.6, 0.8]), event_dim=1), CIRCLE),
    ],
)
def test_a_guide_of_the_same_kind_and_a_point_mass_are_not(drawn, prior):
    assert log_weights(Pair(drawn, prior), torch.zeros(3)).isfinite().all()
