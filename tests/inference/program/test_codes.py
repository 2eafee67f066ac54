"""What is read off a fitted story, where it is known."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written
from torch import nn

from ppvae.inference import laplace
from ppvae.inference.program.codes import (
    decode,
    drawn_codes,
    encode,
    is_deterministic,
    prior_variance,
    reconstruct,
    reconstruction_log_likelihood,
    sample,
    simulate_jointly,
)
from ppvae.models import assemble, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian


def test_codes_are_the_guides_means():
    known = LinearGaussian()
    x = known.data(6)
    torch.testing.assert_close(encode(known.story(), x), known.posterior_mean(x))


def test_reconstruction_is_the_likelihoods_mean_at_the_code():
    known = LinearGaussian()
    x = known.data(6)
    expected = known.posterior_mean(x) @ known.weight.T + known.bias
    torch.testing.assert_close(reconstruct(known.story(), x), expected)


def test_generated_means_follow_the_prior_and_ignore_the_data():
    known = LinearGaussian()
    draws = sample(known.story(), torch.full((20_000, 5), 1e6).double(), means=True)
    covariance = known.weight @ known.weight.T
    error = covariance.diagonal().sqrt() / 20_000**0.5
    assert ((draws.mean(0) - known.bias).abs() < 4 * error).all()
    spread = covariance.diagonal() * (2 / 20_000) ** 0.5
    assert ((draws.var(0) - covariance.diagonal()).abs() < 4 * spread).all()


class Hierarchy(nn.Module):
    """Two latents, the second given the first: the mean of the second is taken at the mean of the first."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", 2, dim=-3):
                b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.factor("penalty", a)
            pyro.sample("x", dist.Normal(a + b.sum(-1).sum(-3), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(2 * x, 1.0))
            with pyro.plate("inner", 2, dim=-3):
                pyro.sample("b", dist.Normal(torch.stack([a, -3 * a], -1), 1.0).to_event(1))


def test_a_users_hierarchy_has_codes_side_by_side():
    x = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(encode(Hierarchy(), x), torch.stack([2 * x, *2 * [2 * x, -6 * x]], -1))
    torch.testing.assert_close(reconstruct(Hierarchy(), x), (2 * x + 2 * (2 * x - 6 * x)).unsqueeze(-1))


def test_codes_of_an_inner_plate_are_decoded_as_they_were_encoded():
    x = torch.tensor([1.0, 2.0, -0.5])
    torch.testing.assert_close(decode(Hierarchy(), x, z=encode(Hierarchy(), x)), reconstruct(Hierarchy(), x))
    z = torch.arange(15.0).reshape(3, 5)  # a, then both numbers of the first place, then of the second
    torch.testing.assert_close(decode(Hierarchy(), x, z=z), z.sum(-1, keepdim=True))


def test_the_mode_of_an_inner_plate_is_that_of_the_joint_normal():
    """x ~ N(a + sum of four b, 1), b ~ N(0, 1), and a ~ N(1, 1) by the factor: each is (x - 1) / 6 above its mean."""
    x = torch.tensor([1.0, 2.0, -0.5]).double()
    expected = torch.tensor([1.0, 0, 0, 0, 0]).double() + (x.unsqueeze(-1) - 1) / 6
    torch.testing.assert_close(laplace(Hierarchy().double(), x, progress=False).loc, expected)


def test_drawn_codes_have_the_moments_of_the_guide():
    known = LinearGaussian()
    story, x = known.story(), known.data(3)
    torch.manual_seed(0)
    drawn = drawn_codes(story, x, draws=4000).reshape(4000, 3, -1)
    spread = known.posterior_covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - known.posterior_mean(x)).abs() < 4 * spread / 4000**0.5).all()
    assert ((drawn.std(0) / spread - 1).abs() < 4 / (2 * 4000) ** 0.5).all()


def test_codes_of_ones_own_are_decoded_where_they_belong():
    known = LinearGaussian()
    x, z = known.data(6), torch.randn(6, 2).double()
    torch.testing.assert_close(decode(known.story(), x, z=z), z @ known.weight.T + known.bias)

    def model(x):
        a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
        b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a + b[..., 0] - 2 * b[..., 1], 1.0), obs=x)

    def guide(x):  # b first, which is where its numbers stand
        pyro.sample("b", dist.Normal(torch.stack([x, x], -1), 1.0).to_event(1))
        pyro.sample("a", dist.Normal(x, 1.0))

    story, own = Written(model, guide), torch.tensor([[1.0, 10, 100], [2, 20, 200]])
    assert decode(story, torch.zeros(2), z=own).tolist() == [[100 + 1 - 20], [200 + 2 - 40]]


def test_the_likelihood_of_a_reconstruction_is_that_of_the_data_at_the_code():
    known = LinearGaussian()
    x = known.data(6)
    mean = known.posterior_mean(x) @ known.weight.T + known.bias
    expected = dist.Normal(mean, known.variance**0.5).log_prob(x).sum(-1)
    torch.testing.assert_close(reconstruction_log_likelihood(known.story(), x), expected)
    y = torch.tensor([1.0, 2.0])  # and a factor is no part of it
    off = dist.Normal(reconstruct(Hierarchy(), y)[:, 0], 1.0).log_prob(y)
    torch.testing.assert_close(reconstruction_log_likelihood(Hierarchy(), y), off)


def test_a_guide_of_point_masses_alone_is_deterministic():
    x = torch.zeros(2)

    def guide(sites):
        def draw(x):
            for name, (fn, infer) in sites.items():
                pyro.sample(name, fn(x), infer=infer)

        return Written(lambda x: None, draw)

    def point(x):
        return dist.Delta(x)

    def wide(x):
        return dist.Normal(x, 1.0)

    assert is_deterministic(guide({"z": (point, {}), "y": (point, {})}), x)
    assert not is_deterministic(guide({"z": (point, {}), "y": (wide, {})}), x)
    assert is_deterministic(guide({"z": (point, {}), "tree": (wide, {"code": False})}), x)
    assert not is_deterministic(guide({"tree": (point, {"code": False})}), x)  # no code at all
    assert not is_deterministic(guide({"u": (wide, {"is_auxiliary": True}), "z": (point, {})}), x)


def test_the_variance_of_the_prior_is_in_the_order_of_the_codes_and_none_of_a_flat_one():
    """Of 4000 draws of N(0, 1), z ~ N(a, 2^2) given it; the guide names z first."""

    def model(x):
        a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("z", dist.Normal(a, 2.0))

    def guide(x):
        pyro.sample("z", dist.Normal(x, 1.0))
        pyro.sample("a", dist.Normal(x, 1.0))

    state = torch.get_rng_state()
    found = prior_variance(Written(model, guide), torch.zeros(3), draws=4000)
    assert torch.equal(torch.get_rng_state(), state)
    assert ((found / torch.tensor([5.0, 1.0]) - 1).abs() < 5 * (2 / 4000) ** 0.5).all()
    flat = assemble(priors.Flat, likelihoods.Normal, encoders.DiagonalNormal, shape=(3,), latent=2)
    assert prior_variance(flat, torch.zeros(2, 3)) is None


def whitened(known, x):
    """Draws of p(x) as draws of N(0, I)."""
    root = torch.linalg.cholesky(known.marginal().covariance_matrix)
    return torch.linalg.solve_triangular(root, (x - known.bias).mT, upper=False).mT


def check_standard_normal(w):
    """First and second moments, within 5 standard errors: of 35 numbers one is off by as much once in 50,000 runs."""
    rows, size = w.shape
    assert w.mean(0).abs().max() < 5 / rows**0.5
    off = w.mT @ w / rows - torch.eye(size)
    assert (off.abs() < 5 * (1 + torch.eye(size)).sqrt() / rows**0.5).all()


def test_simulated_data_are_draws_of_p_x():
    known = LinearGaussian()
    x = sample(known.story(widen=3.0), torch.full((4000, 5), 1e6).double())
    check_standard_normal(whitened(known, x))


def test_a_latent_beside_its_data_is_a_draw_of_its_posterior():
    """Its residual, whitened by the posterior, is standard normal, and has nothing to do with x."""
    known = LinearGaussian()
    (x,), latents = simulate_jointly(known.story(widen=3.0), torch.zeros(4000, 5).double())
    residual = latents["z"][0] - known.posterior_mean(x)
    root = torch.linalg.cholesky(known.posterior_covariance)
    w = torch.linalg.solve_triangular(root, residual.mT, upper=False).mT
    check_standard_normal(torch.cat([whitened(known, x), w], dim=-1))


def test_what_is_no_x_stays_as_it_is_given():
    """Labels and masks; and x that is seen through a mask is drawn whole."""

    def model(x, label):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1e-3))
        pyro.sample("x", dist.Normal(10 * label + z, 1e-3), obs=x)

    story = Written(model, lambda x, label: pyro.sample("z", dist.Normal(x, 1.0)))
    label = torch.tensor([1.0, 2.0, 3.0])
    (x, same), _ = simulate_jointly(story, (torch.zeros(3), label))
    assert same is label
    assert (x - 10 * label).abs().max() < 0.02
    known, mask = LinearGaussian(), torch.rand(2000, 5) < 0.5
    (x, same), _ = simulate_jointly(known.story(), (torch.zeros(2000, 5).double(), mask))
    assert torch.equal(same, mask)
    check_standard_normal(whitened(known, x))


def test_two_sites_of_which_neither_observes_a_tensor_as_it_is_cannot_be_simulated():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("twice", dist.Normal(z, 1.0), obs=2 * x)
        pyro.sample("thrice", dist.Normal(z, 1.0), obs=3 * x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x, 1.0)))
    with pytest.raises(ValueError, match="should observe one tensor of the batch as it is; site 'twice' draws"):
        simulate_jointly(story, torch.zeros(3))


def test_a_latent_without_a_mean_has_no_code():
    story = Written(lambda x: None, lambda x: pyro.sample("z", dist.Cauchy(x, 1.0)))
    with pytest.raises(ValueError, match=r"latent site 'z' has no mean \(Cauchy\), so no code"):
        encode(story, torch.zeros(3))
