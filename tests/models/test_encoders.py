"""Encoders: shapes, densities, draws that match them, and gradients through the draws."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import ENCODERS, story_of
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

import ppvae
from ppvae import networks
from ppvae.inference import log_weights
from ppvae.inference.program.codes import encode
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.models.sizes import Sizes
from ppvae.selfcheck.analytic import LinearGaussian, affine

FLOWS = ["InverseAutoregressiveFlow", "NeuralSpline", "Sylvester"]
PROPER = [name for name in ENCODERS if name != "PointMass"]


def make(name, latent=2, features=3, move=True):
    """An encoder of float64, its parameters away from where they start."""
    torch.manual_seed(0)
    encoder = Sizes((features,), latent, networks.MLP([4])).encoder(ENCODERS[name]).double()
    size = 0.05 if name == "NeuralSpline" else 0.3  # no spline so steep that a grid would miss its spikes
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(move * size * torch.randn_like(parameter))
    return encoder


def points(name, q):
    """Points of the support in two dimensions, and the measure of the cell around each."""
    if name == "OneHotCategorical":
        return torch.eye(2).double(), torch.ones(2).double()
    if name == "VonMisesFisher":
        angle = torch.arange(2000).double() * math.pi / 1000
        return torch.stack([angle.cos(), angle.sin()], -1), torch.full((2000,), math.pi / 1000).double()
    if name == "GumbelSoftmax":  # a density over the first coordinate, 1 / (1 + exp(-t))
        t = torch.linspace(-60, 60, 20_001, dtype=torch.float64)
        z = torch.stack([t.sigmoid(), (-t).sigmoid()], -1)
        return z, z.prod(-1) * (t[1] - t[0])
    draws = q.sample((2000,))
    steps = torch.linspace(-11, 11, 301, dtype=torch.float64)
    x, y = (steps * scale + loc for loc, scale in zip(draws.mean(0), draws.std(0), strict=True))
    return torch.cartesian_prod(x, y), ((x[1] - x[0]) * (y[1] - y[0])).expand(301**2)


def f(z):
    return (0.7 * z[..., 0] - 0.4 * z[..., 1]).sin() + 0.1 * z[..., 0] ** 2 * z[..., 1]


@pytest.mark.parametrize("name", ENCODERS)
class TestEncoders:
    @pytest.mark.parametrize("leading", [(), (5,), (4, 5)])
    def test_any_leading_dimensions(self, name, leading):
        q = make(name)(torch.randn(*leading, 3).double())
        assert (q.batch_shape, q.event_shape) == (leading, (2,))
        assert q.sample().shape == q.mean.shape == (*leading, 2)
        assert q.log_prob(q.sample()).shape == leading

    @pytest.mark.parametrize("latent", [1, 3, 5])
    def test_any_number_of_dimensions(self, name, latent):
        if (name, latent) in [("VonMisesFisher", 1), ("GumbelSoftmax", 1)]:
            return  # one point is no density
        q = make(name, latent)(torch.randn(6, 3).double())
        assert q.event_shape == (latent,)
        assert q.log_prob(q.sample()).isfinite().all()

    def test_particles_differ_and_so_do_data(self, name):
        """As in a plate of particles: the distribution is expanded."""
        q = make(name)(torch.randn(40, 3).double())
        wide = q.expand((20, 40))
        z = wide.rsample() if wide.has_rsample else wide.sample()
        assert z.shape == (20, 40, 2)
        torch.testing.assert_close(wide.log_prob(z), q.log_prob(z))
        torch.testing.assert_close(wide.mean, q.mean.expand(20, 40, 2))
        assert (z[0] == z[1]).all() == (name == "PointMass")

    def test_has_rsample_is_honest(self, name):
        q = make(name)(torch.randn(3).double())
        assert q.has_rsample == (name != "OneHotCategorical")
        assert (q.rsample() if q.has_rsample else q.log_prob(q.sample())).requires_grad

    def test_codes_do_not_depend_on_the_other_data(self, name):
        encoder, x = make(name), torch.randn(6, 3).double()
        torch.testing.assert_close(encoder(x).mean[:2], encoder(x[:2]).mean)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_it_moves_to_another_device(self, name):
        q = make(name).cuda()(torch.randn(4, 3, device="cuda").double())
        z = q.rsample() if q.has_rsample else q.sample()
        assert z.device.type == q.mean.device.type == q.log_prob(z.detach().clone()).device.type == "cuda"


@pytest.mark.parametrize("name", PROPER)
class TestDensities:
    def test_the_density_integrates_to_one(self, name):
        with torch.no_grad():
            q = make(name)(torch.randn(3).double())
            z, weight = points(name, q)
            total = q.log_prob(z).exp() @ weight
        assert total.item() == pytest.approx(1, abs=self.tolerance(name))

    def tolerance(self, name):
        """By how well a grid sees the density: one has corners, and another bends as its draws of weights say."""
        return {"NeuralSpline": 1e-3, "InverseAutoregressiveFlow": 1e-4}.get(name, 1e-6)

    def test_samples_match_the_density(self, name):
        with torch.no_grad():
            q = make(name)(torch.randn(3).double())
            z, weight = points(name, q)
            mass = q.log_prob(z).exp() * weight
            torch.manual_seed(1)
            draws = q.sample((40_000,))
        for moment in (lambda z: z, lambda z: z**2, lambda z: z.prod(-1, keepdim=True), lambda z: f(z).unsqueeze(-1)):
            error = moment(draws).std(0) / math.sqrt(len(draws))
            assert ((moment(draws).mean(0) - mass @ moment(z)).abs() < 4 * error + 1e-12).all()

    def test_the_mean_is_the_densitys(self, name):
        """To all digits where it has a closed form; within four errors of its 256 fixed draws where it has not."""
        with torch.no_grad():
            q = make(name)(torch.randn(3).double())
            z, weight = points(name, q)
            mass = q.log_prob(z).exp() * weight
            spread = (mass @ z**2 - (mass @ z) ** 2).sqrt()
            error = 4 * spread / 16 if name in [*FLOWS, "GumbelSoftmax"] else torch.full_like(spread, 1e-6)
            assert ((q.mean - mass @ z).abs() < error).all()

    def test_the_gradient_of_an_expectation_is_that_of_the_quadrature(self, name):
        """With respect to the network's outputs: through the draws where they pass a gradient, else by the score."""
        encoder = make(name)
        outputs = encoder.network(torch.randn(3).double()).detach()
        encoder.network = nn.Identity()
        with torch.no_grad():
            z, weight = points(name, encoder(outputs))
        given = outputs.clone().requires_grad_()
        (exact,) = torch.autograd.grad((encoder(given).log_prob(z).exp() * weight) @ f(z), given)
        rows = outputs.expand(20_000, -1).clone().requires_grad_()
        q = encoder(rows)
        torch.manual_seed(1)
        draws = q.rsample() if q.has_rsample else q.sample()
        value = f(draws) if q.has_rsample else f(draws) * q.log_prob(draws)
        (estimate,) = torch.autograd.grad(value.sum(), rows)  # one a draw, so that it has a standard error
        error = estimate.std(0) / math.sqrt(len(estimate))
        assert ((estimate.mean(0) - exact).abs() < 6 * error + 1e-9).all()
        assert (exact.abs() / error).max() > 12  # half of it, or twice, would be seen, however steep an encoder is
        assert error.max() < exact.abs().max() / 5  # and no component is lost in its noise


def test_a_diagonal_normal_encoder_is_what_its_network_says():
    network = nn.Identity()
    q = encoders.DiagonalNormal(network)(torch.tensor([[1.0, 2.0, 0.0, math.log(3)]]))
    z = torch.tensor([[0.5, 4.0]])
    expected = dist.Normal(1.0, 1.0).log_prob(z[:, 0]) + dist.Normal(2.0, 3.0).log_prob(z[:, 1])
    torch.testing.assert_close(q.log_prob(z), expected)


def test_a_full_normal_encoder_is_what_its_network_says():
    q = encoders.FullNormal(nn.Identity())(torch.tensor([1.0, 2.0, 3.0, 0.0, math.log(2), math.log(3), 4.0, 5.0, 6.0]))
    lower = torch.tensor([[1.0, 0.0, 0.0], [4.0, 2.0, 0.0], [5.0, 6.0, 3.0]])
    torch.testing.assert_close(q.mean, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(q.covariance_matrix, lower @ lower.T)


def test_a_low_rank_normal_encoder_is_what_its_network_says():
    q = encoders.LowRankNormal(nn.Identity(), rank=1)(torch.tensor([1.0, 2.0, 0.0, math.log(3), 4.0, 5.0]))
    torch.testing.assert_close(q.covariance_matrix, torch.tensor([[17.0, 20.0], [20.0, 34.0]]))


def exact_full_normal():
    """A linear-Gaussian story whose posterior is correlated, with that posterior for a guide."""
    known = LinearGaussian()
    generator = torch.Generator().manual_seed(3)
    known.weight = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + known.weight.T @ known.weight / known.variance
    known.posterior_covariance = torch.linalg.inv(precision)
    known.gain = known.posterior_covariance @ known.weight.T / known.variance
    lower = torch.linalg.cholesky(known.posterior_covariance)
    constant = torch.cat([lower.diagonal().log(), lower[1:, 0]])
    weight = torch.cat([known.gain, torch.zeros(3, 5).double()])
    story = known.story()
    story.encoder = encoders.FullNormal(affine(weight, torch.cat([-known.gain @ known.bias, constant])))
    return known, story


def test_every_log_weight_is_the_evidence_where_a_full_normal_holds_the_posterior():
    known, story = exact_full_normal()
    x = known.data(7)
    log_w = log_weights(story, x, particles=11)
    assert known.posterior_covariance[0, 1].abs() > 1e-4  # not diagonal
    torch.testing.assert_close(log_w, known.marginal().log_prob(x).expand(11, 7), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_starts_close_to_the_diagonal_normal(name):
    encoder, x = make(name, latent=3, move=False), torch.randn(5, 3).double()
    loc, log_scale = encoder.network(x)[:, :6].chunk(2, -1)
    q, normal = encoder(x), dist.Normal(loc, log_scale.exp()).to_event(1)
    with torch.no_grad():
        divergence = (q.log_prob(z := q.rsample((500,))) - normal.log_prob(z)).mean(0)
    assert divergence.max() < 0.01


@pytest.mark.parametrize("name", FLOWS)
class TestFlows:
    def test_the_density_kept_for_a_draw_is_that_of_the_same_point(self, name):
        encoder, x = make(name, latent=3), torch.randn(5, 3).double()
        q = encoder(x).expand((4, 5))
        z = q.rsample()
        kept, again = q.log_prob(z), q.log_prob(z.detach().clone())
        torch.testing.assert_close(kept, again)
        base = q.dist.transform(z)  # and both are the change of variables, by autograd's Jacobian
        inverse = torch.autograd.functional.jacobian(lambda z: q.dist.transform(z).sum((0, 1)), z).movedim(0, -2)
        expected = dist.Normal(0.0, 1.0).log_prob(base).sum(-1) + torch.linalg.slogdet(inverse).logabsdet
        torch.testing.assert_close(kept, expected)

    def test_a_draw_without_gradients_has_a_density_with_them(self, name):
        q = make(name)(torch.randn(5, 3).double())
        z = q.sample()
        assert not z.requires_grad
        assert q.log_prob(z).requires_grad

    def test_the_context_reaches_the_transforms(self, name):
        """Two data with one loc and one scale still have different posteriors."""
        encoder = make(name)
        encoder.network = nn.Identity()
        outputs = torch.cat([torch.zeros(2, 4), torch.randn(2, 4)], -1).double()
        z = torch.randn(30, 1, 2).double()
        log_q = encoder(outputs).log_prob(z.expand(30, 2, 2))
        assert (log_q[:, 0] - log_q[:, 1]).abs().max() > 1e-3


class Banana(nn.Module):
    """z ~ N(0, I), x ~ N(z_2 - z_1^2, 0.3^2): a posterior that is bent."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Sizes((1,), 2, networks.MLP([16])).encoder(getattr(encoders, name))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 1:] - z[..., :1] ** 2, 0.3).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.encoder(x))


def banana_bound(name):
    """The ELBO after a short fit, and its standard error, at x = 0."""
    story, x = Banana(name), torch.zeros(32, 1)
    ppvae.fit(story, x, epochs=300, lr=1e-2, batch_size=32, progress=False)
    with torch.no_grad():
        log_w = log_weights(story, x[:1], particles=40_000)
    return log_w.mean().item(), log_w.std().item() / math.sqrt(len(log_w))


@pytest.fixture(scope="module")
def diagonal_bound():
    return banana_bound("DiagonalNormal")


@pytest.mark.parametrize("name", [*FLOWS, "NormalMixture"])
def test_a_richer_guide_beats_the_diagonal_normal_on_a_bent_posterior(name, diagonal_bound):
    bound, error = banana_bound(name)
    assert bound - diagonal_bound[0] > 4 * math.hypot(error, diagonal_bound[1])


class TestOneHot:
    def story(self, classes=4):
        torch.manual_seed(0)
        sizes = Sizes((3,), classes, networks.MLP([8]))
        encoder = sizes.encoder(encoders.OneHotCategorical)
        return VAE(priors.OneHot(classes), sizes.likelihood(likelihoods.Normal), encoder).double()

    def by_hand(self, story, x, classes=4):
        """sum_k q_k (log p(x, e_k) - log q_k), for every datum."""
        q = story.encoder.network(x).log_softmax(-1)  # (batch, classes)
        log_p = story.likelihood(torch.eye(classes).double().unsqueeze(1)).log_prob(x).T - math.log(classes)
        return (q.exp() * (log_p - q)).sum(-1)

    def test_pyros_enumeration_is_the_exact_elbo(self):
        story, x = self.story(), torch.randn(5, 3).double()
        exact = self.by_hand(story, x).sum()
        parameters = list(story.encoder.parameters())
        loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(story.model, config_enumerate(story.guide), x)
        torch.testing.assert_close(-loss, exact, atol=1e-6, rtol=0)
        expected = torch.autograd.grad(exact, parameters)
        for ours, theirs in zip(torch.autograd.grad(-loss, parameters), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("particles", [1, 3])
    def test_so_is_the_enumerated_elbo_at_every_call(self, particles):
        story, x = self.story(), torch.randn(5, 3).double()
        exact = -self.by_hand(story, x).mean()
        for _ in range(3):
            torch.testing.assert_close(
                ppvae.inference.enumerated_elbo(story, x, particles=particles), exact, atol=1e-6, rtol=0
            )

    def test_drawn_weights_and_their_score_gradient_have_that_expectation(self):
        story, x = self.story(), torch.randn(1, 3).double()
        exact = self.by_hand(story, x)
        log_w = log_weights(story, x, particles=20_000).detach()
        assert ((log_w.mean(0) - exact).abs() < 4 * log_w.std(0) / math.sqrt(len(log_w))).all()
        bias = story.encoder.network[-1].bias
        (expected,) = torch.autograd.grad(exact.sum(), bias)
        gradients = []
        for _ in range(200):
            (gradient,) = torch.autograd.grad(-ppvae.inference.elbo(story, x, particles=50), bias)
            gradients.append(gradient)
        gradients = torch.stack(gradients)
        error = gradients.std(0) / math.sqrt(len(gradients))
        assert ((gradients.mean(0) - expected).abs() < 4 * error).all()


def test_a_cold_gumbel_softmax_keeps_finite_weights_in_float32():
    torch.manual_seed(0)
    q = encoders.GumbelSoftmax(nn.Identity(), temperature=0.1)(torch.tensor([30.0, 0.0, -30.0]).expand(1000, 3))
    z = q.rsample()
    assert q.log_prob(z).isfinite().all()
    assert (z.sum(-1) - 1).abs().max() < 1e-5


def test_a_story_on_the_sphere_has_the_evidence_of_the_quadrature():
    torch.manual_seed(0)
    sizes = Sizes((3,), 2, networks.MLP([8]))
    story = VAE(
        priors.HypersphericalUniform(2), sizes.likelihood(likelihoods.Normal), sizes.encoder(encoders.VonMisesFisher)
    ).double()
    x = torch.randn(4, 3).double()
    z, weight = points("VonMisesFisher", None)
    exact = (story.likelihood(z.unsqueeze(1)).log_prob(x) + weight.log().unsqueeze(-1)).logsumexp(0)
    exact = exact - math.log(2 * math.pi)
    evidence = ppvae.inference.importance(story, x, particles=10_000)
    assert ((evidence.estimate - exact).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.median() < 0.05  # a datum far out has few draws near its mode


def test_what_points_nowhere_points_along_the_first_axis_and_learns():
    outputs = torch.tensor([[0.0, 0.0, 0.0, 1.0], [3.0, 0.0, 4.0, 1.0], [1e-30, 0.0, 0.0, 1.0]]).requires_grad_()
    q = encoders.VonMisesFisher(nn.Identity())(outputs)
    torch.testing.assert_close(q.loc, torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.0, 0.8], [1.0, 0.0, 0.0]]))
    q.log_prob(torch.tensor([0.0, 1.0, 0.0])).sum().backward()
    assert outputs.grad.isfinite().all()
    assert (outputs.grad[:, 1] > 0).all()


def test_sylvesters_transform_stays_one_to_one_where_its_tanh_is_full():
    outputs = torch.cat([torch.zeros(4), torch.full((2,), 50.0), torch.full((2,), -50.0), torch.zeros(2)])
    transform = encoders.Sylvester(nn.Identity(), latent=2)._transform(outputs.requires_grad_(), flip=False)
    _, log_det = transform.call_and_ladj(torch.zeros(2))
    log_det.backward()
    assert log_det.isfinite()
    assert outputs.grad.isfinite().all()


def test_codes_of_a_flow_are_its_mean_and_leave_the_generator_alone():
    story, x = story_of(encoder="NeuralSpline"), torch.randn(6, 2)
    state = torch.get_rng_state()
    first = encode(story, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(encode(story, x), first)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (partial(encoders.LowRankNormal, rank=0), "rank should be at least 1, got 0"),
        (partial(encoders.NormalMixture, latent=2, components=0), "components should be at least 1, got 0"),
        (partial(encoders.InverseAutoregressiveFlow, latent=2, transforms=0), "transforms should be at least 1, got 0"),
        (partial(encoders.NeuralSpline, latent=2, hidden=[8, 0]), r"hidden should be at least 1, got \[8, 0\]"),
        (partial(encoders.NeuralSpline, latent=2, bins=0), "bins should be at least 1, got 0"),
        (partial(encoders.Sylvester, latent=2, context=0), "context should be at least 1, got 0"),
        (partial(encoders.GumbelSoftmax, temperature=0.0), "temperature should be positive and finite, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build(nn.Identity())


def test_plain_trace_elbo_takes_a_flow():
    """Pyro's own objective sees the same kept density."""
    story, x = story_of(encoder="InverseAutoregressiveFlow"), torch.randn(6, 2)
    torch.manual_seed(0)
    loss = Trace_ELBO().differentiable_loss(story.model, story.guide, x)
    torch.manual_seed(0)
    torch.testing.assert_close(loss / 6, ppvae.inference.elbo(story, x))


@pytest.mark.parametrize("latent", [2, 3, 10])
def test_codes_on_the_sphere_start_as_concentrated_as_there_are_dimensions(latent):
    """Codes that start all but uniform say nothing, and learn nothing."""
    q = encoders.VonMisesFisher(nn.Identity())(torch.zeros(latent + 1))
    assert q.concentration.item() == pytest.approx(math.log1p(math.exp(latent)))


@pytest.mark.parametrize("name", FLOWS)
def test_every_dimension_of_a_flow_depends_on_every_noise(name):
    """Transforms that all had one order would leave a dimension without the other's noise."""
    q = make(name)(torch.randn(3).double())
    # somewhere: its network is one of ReLUs, and flat in places
    slopes = [torch.autograd.functional.jacobian(q.dist.transform.inv, noise) for noise in torch.randn(30, 2).double()]
    assert (torch.stack(slopes) != 0).any(0).all()


def test_the_components_of_a_mixture_start_apart():
    """Those that started as one would stay so."""
    assert len(encoders.NormalMixture(nn.Identity(), latent=2, components=4)(torch.zeros(4 * 5)).loc.unique(dim=0)) == 4


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_has_as_many_layers_as_are_asked_for(name):
    build = partial(getattr(encoders, name), nn.Identity(), 3, context=4)
    assert [len(build(transforms=count).transforms) for count in (1, 3)] == [1, 3]
    if name != "Sylvester":
        layers = build(hidden=[5, 7]).transforms[0].hyper
        assert [layer.out_features for layer in layers if hasattr(layer, "out_features")][:-1] == [5, 7]


def test_the_temperature_of_a_relaxed_code_is_what_is_asked_for():
    assert encoders.GumbelSoftmax(nn.Identity(), temperature=0.3)(torch.zeros(3)).temperature == pytest.approx(0.3)
