"""Priors: shapes, densities that integrate to one, samples that match their density, gradients, weights saved."""

import math

import pytest
import torch
from cases import PRIORS
from torch import nn

from ppvae import networks
from ppvae.models import encoders, priors
from ppvae.models.sizes import Sizes

SIMPLEX = [name for name in PRIORS if name.startswith(("OneHot", "RelaxedOneHot"))]
SPHERE = ["HypersphericalUniform", "VonMisesFisher"]
EUCLIDEAN = [name for name in PRIORS if name not in {*SIMPLEX, *SPHERE}]
TOLERANCE = {"LARS": 0.02, "LARS untruncated": 0.02}  # of the integral; theirs is that of log Z, tested below
TOLERANCE |= {name: 1e-3 for name in PRIORS if name.startswith("Laplace")}  # a corner: width^2 / (6 scale^2) is lost


def made(name, latent=2):
    """A prior of the table in float64, every parameter moved away from where it starts."""
    torch.manual_seed(1)
    sizes = Sizes(shape=(3,), latent=latent, network=networks.MLP([8]))
    encoder = sizes.encoder(encoders.DiagonalNormal, latent=max(latent, 1))
    prior = sizes.prior(PRIORS[name], encoder).double().eval()
    encoder.double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.15 * torch.randn_like(parameter)
    if isinstance(prior, priors.ExPost):
        codes = torch.randn(200, latent).double()
        codes[::2] += 3
        prior = priors.ex_post(codes, components=2)
    return prior


def plane(points=400):
    """Points of R^2 and their areas, for heavy tails too: z = 2 tan t along each axis, the midpoint rule in t."""
    t = math.pi * ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5)
    z, width = 2 * t.tan(), 2 / t.cos().square() * math.pi / points
    return torch.cartesian_prod(z, z), torch.outer(width, width).flatten()


def circle(points=1000):
    t = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    return torch.stack([t.cos(), t.sin()], -1), torch.full_like(t, 2 * math.pi / points)


def segment(points=4000):
    """Points (p, 1 - p) of the simplex and their lengths in p, dense at its ends: p = 1 / (1 + exp -y)."""
    y = torch.linspace(-80, 80, points, dtype=torch.float64)
    p, q = y.sigmoid(), (-y).sigmoid()
    return torch.stack([p, q], -1), p * q * (y[1] - y[0])


def corners():
    return torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)


def space_of(name):
    """Points of a prior's support in two dimensions, and what each weighs in an integral."""
    if name in SPHERE:
        return circle()
    if name in SIMPLEX:
        return corners() if name.startswith("OneHot") else segment()
    return plane()


@pytest.mark.parametrize("name", PRIORS)
class TestPriors:
    def test_shapes(self, name):
        prior = made(name, 5)()
        assert (prior.batch_shape, prior.event_shape) == ((), (5,))
        assert prior.sample((4, 3)).shape == (4, 3, 5)
        assert prior.expand([7]).sample().shape == (7, 5)
        assert prior.expand([1, 7]).log_prob(prior.sample((4, 7))).shape == (4, 7)
        assert prior.log_prob(prior.sample((4, 3))).shape == (4, 3)

    def test_the_density_integrates_to_one(self, name):
        points, weights = space_of(name)
        total = (made(name)().log_prob(points).exp() * weights).sum().item()
        assert total == pytest.approx(1, abs=TOLERANCE.get(name, 1e-4))

    def test_samples_match_the_density(self, name):
        """Means of bounded functions of z, so that heavy tails have errors too."""
        prior = made(name)()
        points, weights = space_of(name)
        mass = prior.log_prob(points).exp() * weights
        for value, of_draws in zip(bounded(points), bounded(prior.sample((20_000,))), strict=True):
            error = of_draws.std() / math.sqrt(len(of_draws)) + 1e-9
            assert (of_draws.mean() - (mass * value).sum() / mass.sum()).abs() < 4 * error

    def test_the_gradient_reaches_every_parameter(self, name):
        prior = made(name, 3)
        log_prob = prior().log_prob(prior().sample((20,)))
        learned = [value for value in prior.parameters() if value.requires_grad]
        assert log_prob.requires_grad == bool(learned) or "Vamp" in name
        for part in torch.autograd.grad(log_prob.square().sum(), learned) if learned else ():
            assert part.abs().sum() > 0

    def test_draws_that_say_so_pass_a_gradient(self, name):
        """d/dtheta E[f(z)] through the draws is that of the integral, which a spline's knots make inexact."""
        prior = made(name)
        trainable = [parameter for parameter in prior.parameters() if parameter.requires_grad]
        if not prior().has_rsample or not trainable:
            return
        points, weights = space_of(name)
        expected = gradient((prior().log_prob(points).exp() * weights * bounded(points)[2]).sum(), trainable)
        draws = torch.stack([gradient(bounded(prior().rsample((500,)))[2].mean(), trainable) for _ in range(100)])
        error = draws.std(0) / math.sqrt(len(draws))
        assert ((draws.mean(0) - expected).abs() < 4.5 * error + 3e-3).all()
        assert expected.abs().max() > 0.01

    def test_save_and_load(self, name):
        prior, again = made(name), made(name)
        with torch.no_grad():
            for tensor in [*again.parameters(), *again.buffers()]:
                tensor.zero_()
        again.load_state_dict(prior.state_dict())
        z = prior().sample((9,))
        assert torch.equal(again().log_prob(z), prior().log_prob(z))

    def test_float64_and_float32(self, name):
        prior = made(name)
        assert prior().sample().dtype == prior().log_prob(prior().sample()).dtype == torch.float64
        if "Vamp" not in name:  # its encoder is the story's
            prior = prior.float()
            assert prior().sample().dtype == prior().log_prob(prior().sample()).dtype == torch.float32

    def test_bad_sizes_are_refused(self, name):
        with pytest.raises(ValueError, match="latent should be at least 1, got 0"):
            made(name, 0)

    def test_one_dimension(self, name):
        if name in SPHERE or name.startswith("Relaxed"):
            with pytest.raises(ValueError, match="latent should be at least 2"):
                made(name, 1)
        else:
            assert made(name, 1)().sample((3,)).shape == (3, 1)


def bounded(z):
    """Functions of z whose means tell distributions apart."""
    a, b = z[..., 0].tanh(), z[..., 1].tanh()
    return [a, b, a * a, b * b, a * b]


def gradient(value, parameters):
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, parameters)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: priors.Laplace(2, scale=0.0), "scale should be positive and finite, got 0.0"),
        (lambda: priors.StudentT(2, df=-1.0), "df should be positive and finite, got -1.0"),
        (lambda: priors.RelaxedOneHot(2, temperature=math.inf), "temperature should be positive and finite"),
        (lambda: priors.VonMisesFisher(2, concentration=0.0), "concentration should be positive"),
        (lambda: priors.VampPrior(2, nn.Identity(), 3, components=0), "components should be at least 1, got 0"),
        (lambda: priors.ExPost(2, components=0), "components should be at least 1, got 0"),
        (lambda: priors.RealNVP(2, transforms=0), "transforms should be at least 1, got 0"),
        (lambda: priors.NeuralSplineFlow(2, bins=0), "bins should be at least 1, got 0"),
        (lambda: priors.RealNVP(2, hidden=[0]), r"every one of hidden should be at least 1, got \[0\]"),
        (lambda: priors.LARS(2, draws=0), "draws should be at least 1, got 0"),
        (lambda: priors.LARS(2, truncation=1), "truncation should be at least 2, or None, got 1"),
    ],
)
def test_arguments_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()()


# --- against others' densities


@pytest.mark.usefixtures("double")
def test_densities_are_those_of_scipy():
    from scipy import stats

    z = torch.randn(7, 3)
    laplace = stats.laplace(scale=0.5).logpdf(z.numpy()).sum(-1)
    torch.testing.assert_close(priors.Laplace(3, scale=0.5)().log_prob(z), torch.from_numpy(laplace))
    student = stats.multivariate_t(loc=[0, 0, 0], shape=4, df=3).logpdf(z.numpy())
    torch.testing.assert_close(priors.StudentT(3, df=3.0, scale=2.0)().log_prob(z), torch.from_numpy(student))
    prior = priors.VonMisesFisher(3, concentration=2.5)
    z = nn.functional.normalize(z, dim=-1)
    mean = nn.functional.normalize(prior.direction.detach(), dim=-1).numpy()
    fisher = stats.vonmises_fisher(mean, 2.5).logpdf(z.numpy())
    torch.testing.assert_close(prior().log_prob(z).detach(), torch.from_numpy(fisher))


@pytest.mark.usefixtures("double")
def test_the_relaxed_density_is_that_of_its_paper_and_covers_the_triangle():
    """Maddison et al. 2017, equation 10; integrated over the first two of three coordinates."""
    prior = priors.RelaxedOneHot(3, temperature=0.7, learned=True)
    with torch.no_grad():
        prior.logits += torch.tensor([0.5, -0.3, 0.0])
    alpha = prior.logits.detach().exp()
    axis = torch.linspace(-60, 60, 600)
    y = torch.cartesian_prod(axis, axis)
    z = torch.cat([y, torch.zeros(len(y), 1)], -1).softmax(-1)  # |d(z1, z2) / d(y1, y2)| = z1 z2 z3
    log_density = (
        math.log(2) + 2 * math.log(0.7) + (alpha.log() - 1.7 * z.log()).sum(-1) - 3 * (alpha * z**-0.7).sum(-1).log()
    )
    torch.testing.assert_close(prior().log_prob(z).detach(), log_density)
    assert (log_density.exp() * z.prod(-1)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("latent", [2, 30, 1000])
def test_draws_of_a_cold_relaxed_prior_lie_inside_the_simplex(latent):
    prior = priors.RelaxedOneHot(latent, temperature=0.1)()
    assert prior.log_prob(prior.sample((2000,))).isfinite().all()  # with validation on


@pytest.mark.parametrize("make", [priors.NeuralSplineFlow, priors.MaskedAutoregressiveFlow, priors.RealNVP])
@pytest.mark.parametrize("latent", [1, 5])
def test_a_flow_starts_close_to_the_standard_normal(make, latent):
    z = torch.randn(100, latent)
    assert (make(latent)().log_prob(z) - priors.StandardNormal(latent)().log_prob(z)).abs().mean() < 0.1


# --- where they start


def test_elementary_priors_start_at_what_is_asked_for():
    for learned in (False, True):
        torch.testing.assert_close(priors.Laplace(2, 0.5, learned)().base_dist.scale, torch.full((2,), 0.5))
        student = priors.StudentT(2, df=3.0, scale=2.0, learned=learned)()
        torch.testing.assert_close(student.df, torch.tensor(3.0))
        torch.testing.assert_close(student.scale_tril, 2 * torch.eye(2))
        assert priors.RelaxedOneHot(3, temperature=0.3, learned=learned)().temperature == pytest.approx(0.3)
    assert priors.VonMisesFisher(3, concentration=2.5)().concentration.item() == pytest.approx(2.5)
    normal = priors.DiagonalNormal(3)()
    assert (normal.mean == 0).all()
    assert (normal.stddev == 1).all()


def test_what_would_stay_alike_starts_apart():
    """Components, directions and shares that start as one learn as one."""
    mixture = priors.GaussianMixture(2, components=5)
    assert len(mixture.loc.detach().unique(dim=0)) == 5
    assert (mixture.log_scale == 0).all()  # unit scales: close to N(0, I)
    assert (mixture.logits == 0).all()
    one, other = priors.VonMisesFisher(3), priors.VonMisesFisher(3)
    assert not torch.equal(one.direction, other.direction)
    logits = priors.OneHot(4, learned=True).logits
    assert len(logits.detach().unique()) == 4
    assert logits.abs().max() < 0.1  # almost uniform
    assert (priors.OneHot(4).logits == 0).all()


@pytest.mark.parametrize("make", [priors.NeuralSplineFlow, priors.MaskedAutoregressiveFlow, priors.RealNVP])
def test_a_flow_has_as_many_layers_of_such_sizes_as_are_asked_for(make):
    made = make(3, transforms=2, hidden=[5, 7]).flow.transform.transforms
    networks_ = [layer.hyper for layer in made if hasattr(layer, "hyper")]
    assert len(networks_) == 2
    for network in networks_:
        assert [layer.out_features for layer in network if hasattr(layer, "out_features")][:-1] == [5, 7]
    if make is priors.NeuralSplineFlow:  # widths, heights and slopes between the pieces
        (few, more) = (make(3, bins=bins).flow.transform.transforms[0].hyper[-1].out_features for bins in (4, 6))
        assert (few, more) == (3 * (3 * 4 - 1), 3 * (3 * 6 - 1))


def test_the_rate_of_lars_is_of_fresh_draws_in_training_and_of_fixed_ones_in_evaluation(monkeypatch):
    prior, seen = priors.LARS(2, hidden=[4], truncation=5, draws=7, evaluation_draws=11), []
    plain = prior.log_acceptance
    monkeypatch.setattr(prior, "log_acceptance", lambda z: seen.append(z) or plain(z))
    assert prior().truncation == 5
    prior.log_rate()
    prior.eval().log_rate()
    prior.log_rate()
    assert [len(z) for z in seen] == [7, 7, 11, 11]
    assert not torch.isin(seen[0], seen[1]).any()
    assert not torch.isin(seen[1], prior.fixed).any()  # so that no training has seen what evaluation takes
    assert torch.equal(seen[2], seen[3])
