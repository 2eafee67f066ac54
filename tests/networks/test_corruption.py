"""Corruptions against the moments they should have, in closed form, and against what they must leave alone."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

import ppvae
from ppvae import networks
from ppvae.models import Autoencoder, encoders, likelihoods, priors
from ppvae.models.sizes import Sizes
from ppvae.networks.corruption import Corrupted, GaussianNoise, Masking, SaltAndPepper

DRAWS = 200_000
X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
LOW, HIGH = torch.tensor([-1.0, -2.0, 3.0]), torch.tensor([1.0, -2.0, 7.0])  # the second feature never varies
CORRUPTIONS = {
    "masking": Masking(0.3),
    "gaussian": GaussianNoise(0.7),
    "salt and pepper": SaltAndPepper(0.3, LOW, HIGH),
    "black and white": SaltAndPepper(0.3, low=-1.0, high=2.0),
}
every_corruption = pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)


def moments(corruption, x):
    """The mean and the variance of every element, in closed form."""
    if isinstance(corruption, GaussianNoise):
        return x, torch.full_like(x, corruption.scale**2)
    rate, values = corruption.rate, [torch.zeros_like(x)]
    if isinstance(corruption, SaltAndPepper):
        values = [corruption.low.to(x).expand_as(x), corruption.high.to(x).expand_as(x)]
    mean, square = ((1 - rate) * x**k + rate * sum(value**k for value in values) / len(values) for k in (1, 2))
    return mean, square - mean.square()


class TestEveryCorruption:
    @every_corruption
    def test_moments_and_independence(self, corruption):
        """Of six elements, three features of two neighbouring rows: all covariances but the variances are 0."""
        y = corruption(X.expand(DRAWS, -1)).view(DRAWS // 2, 6)
        mean, variance = (part.repeat(2) for part in moments(corruption, X))
        products = (y - mean).unsqueeze(-1) * (y - mean).unsqueeze(-2)
        for found, expected in [(y, mean), (products, variance.diag())]:
            error = found.std(0) / len(found) ** 0.5
            assert ((found.mean(0) - expected).abs() <= 5 * error + 1e-12).all()

    @every_corruption
    def test_evaluation_gives_back_x_itself(self, corruption):
        x, before = torch.randn(4, 3), torch.get_rng_state()
        corruption.eval()
        found = corruption(x)
        corruption.train()
        assert found is x
        assert torch.equal(torch.get_rng_state(), before)

    @every_corruption
    def test_x_is_not_changed_in_place(self, corruption):
        x = torch.randn(50, 3)
        before = x.clone()
        corruption(x)
        assert torch.equal(x, before)

    @every_corruption
    @pytest.mark.parametrize("leading", [(), (1,), (4,), (5, 4), (0,)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_any_leading_dimensions_and_dtype(self, corruption, leading, dtype):
        y = corruption(torch.randn(*leading, 3, dtype=dtype))
        assert y.shape == (*leading, 3)
        assert y.dtype == dtype

    @every_corruption
    def test_the_tensors_decide_the_device(self, corruption):
        assert corruption(torch.zeros(4, 3, device="meta")).device.type == "meta"

    @every_corruption
    def test_every_particle_has_its_own_draw(self, corruption):
        first, second = corruption(torch.full((2, 200, 3), 0.5))
        assert (first != second).any(dim=0).tolist() == [True] * 3

    @every_corruption
    def test_the_draws_are_of_the_global_generator(self, corruption):
        x = torch.full((200, 3), 0.5)
        torch.manual_seed(3)
        once, again = corruption(x), corruption(x)
        torch.manual_seed(3)
        assert torch.equal(corruption(x), once)
        assert not torch.equal(once, again)


class TestMasking:
    x = torch.randn(DRAWS, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("rate", [0.01, 0.25, 0.9])
    def test_the_share_of_zeros(self, rate):
        zeros = (Masking(rate)(self.x) == 0).double().mean().item()
        assert abs(zeros - rate) < 4 * math.sqrt(rate * (1 - rate) / DRAWS)

    def test_what_is_not_lost_is_as_it_was(self):
        y = Masking(0.5)(self.x)
        assert torch.equal(y[y != 0], self.x[y != 0])

    def test_none_and_all(self):
        assert torch.equal(Masking(0.0)(self.x), self.x)
        assert (Masking(1.0)(self.x) == 0).all()

    def test_the_gradient_passes_where_nothing_is_lost(self):
        x = self.x.clone().requires_grad_()
        y = Masking(0.5)(x)
        y.sum().backward()
        assert torch.equal(x.grad, (y != 0).float())

    def test_a_lost_nan_is_lost(self):
        assert (Masking(1.0)(torch.full((3,), torch.nan)) == 0).all()


class TestGaussianNoise:
    def test_the_noise_is_normal(self):
        x = torch.linspace(-3, 3, DRAWS, dtype=torch.float64)
        noise = GaussianNoise(0.5)(x) - x
        assert stats.kstest(noise.numpy(), stats.norm(scale=0.5).cdf).pvalue > 1e-3
        assert abs(torch.corrcoef(torch.stack([noise, x]))[0, 1]) < 4 / DRAWS**0.5

    def test_no_noise_is_none(self):
        x = torch.randn(50, 3)
        assert torch.equal(GaussianNoise(0.0)(x), x)

    def test_the_gradient_passes_everywhere(self):
        x = torch.randn(50, 3, requires_grad=True)
        GaussianNoise(0.5)(x).sum().backward()
        assert (x.grad == 1).all()


class TestSaltAndPepper:
    @pytest.mark.parametrize("rate", [0.02, 0.4])
    def test_low_and_high_are_equally_likely(self, rate):
        y = SaltAndPepper(rate, low=-1, high=4)(torch.full((DRAWS,), 0.5))
        for value, share in {-1: rate / 2, 4: rate / 2, 0.5: 1 - rate}.items():
            found = (y == value).double().mean().item()
            assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / DRAWS), value

    def test_every_feature_has_its_own_values(self):
        y = SaltAndPepper(0.5, LOW, HIGH)(torch.full((100, 3), 0.5))
        assert [column.unique().tolist() for column in y.T] == [[-1, 0.5, 1], [-2, 0.5], [0.5, 3, 7]]

    def test_what_is_not_lost_is_as_it_was(self):
        x = torch.rand(DRAWS) + 2
        y = SaltAndPepper(0.5)(x)
        kept = (y != 0) & (y != 1)
        assert torch.equal(y[kept], x[kept])

    def test_none_and_all(self):
        x = torch.rand(DRAWS) + 2
        assert torch.equal(SaltAndPepper(0.0)(x), x)
        assert SaltAndPepper(1.0)(x).unique().tolist() == [0, 1]

    def test_the_gradient_passes_where_nothing_is_lost(self):
        x = (torch.rand(1000) + 2).requires_grad_()
        y = SaltAndPepper(0.5)(x)
        y.sum().backward()
        assert torch.equal(x.grad, (y >= 2).float())

    def test_its_values_are_saved(self):
        other = SaltAndPepper(0.5, torch.zeros(3), torch.ones(3))
        other.load_state_dict(SaltAndPepper(0.5, LOW, HIGH).state_dict())
        assert torch.equal(other.low, LOW)
        assert torch.equal(other.high, HIGH)
        assert not list(other.parameters())

    @pytest.mark.parametrize("x", [torch.rand(5, 3), torch.rand(5, 3).double()])
    def test_x_has_the_say_on_the_dtype(self, x):
        assert SaltAndPepper(0.5, LOW.double(), HIGH.double())(x).dtype == x.dtype


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Masking(-0.1), "rate should be from 0 to 1, got -0.1"),
        (lambda: Masking(1.5), "rate should be from 0 to 1, got 1.5"),
        (lambda: Masking(math.nan), "rate should be from 0 to 1, got nan"),
        (lambda: SaltAndPepper(2.0), "rate should be from 0 to 1, got 2.0"),
        (lambda: SaltAndPepper(0.5, low=2.0), "low should not be above high, got 1 above: give the smallest"),
        (lambda: SaltAndPepper(0.5, LOW, LOW - LOW.new_tensor([0, 0.5, 0])), "got 0.5 above"),
        (lambda: SaltAndPepper(0.5, high=math.inf), "high should be finite, got inf"),
        (lambda: SaltAndPepper(0.5, low=torch.tensor([0, math.nan])), "low should be finite, got nan"),
        (lambda: GaussianNoise(-1.0), "scale should be finite and not negative, got -1.0"),
        (lambda: GaussianNoise(math.inf), "scale should be finite and not negative, got inf"),
        (lambda: GaussianNoise(math.nan), "scale should be finite and not negative, got nan"),
    ],
)
def test_refusals_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as refused:
        make()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])  # the least and the largest that `torch.rand` gives
@pytest.mark.parametrize("make", [Masking, SaltAndPepper])
def test_none_and_all_at_the_ends_of_the_draws(monkeypatch, draw, make):
    x = torch.tensor([2.0, 3.0])
    monkeypatch.setattr(torch, "rand", lambda shape, device: torch.full(shape, draw, device=device))
    assert torch.equal(make(0.0)(x), x)
    assert (make(1.0)(x) < 2).all()


class TestCorrupted:
    family = networks.MLP([7, 5], "tanh")

    def test_the_encoder_is_the_familys_behind_the_corruption(self):
        corrupted = Corrupted(self.family, Masking(1.0))
        torch.manual_seed(1)
        encoder = corrupted.encoder((2, 3), 4)
        torch.manual_seed(1)
        bare = self.family.encoder((2, 3), 4)
        x = torch.randn(5, 6)
        torch.testing.assert_close(encoder(x), bare(torch.zeros_like(x)))
        torch.testing.assert_close(encoder.eval()(x), bare(x))

    def test_the_decoder_is_the_familys(self):
        torch.manual_seed(1)
        decoder = Corrupted(self.family, Masking(1.0)).decoder(4, (2, 3), 2)
        torch.manual_seed(1)
        bare = self.family.decoder(4, (2, 3), 2)
        z = torch.randn(5, 4)
        torch.testing.assert_close(decoder(z), bare(z))

    def test_it_is_no_family_of_the_command_line(self):
        assert "Corrupted" not in networks.__all__

    @pytest.mark.parametrize("family", [networks.MLP([8]), networks.Convolutional([2]), networks.LSTM(4)])
    def test_it_stands_behind_the_scale_for_every_family(self, family):
        sizes = Sizes(shape=(1, 4, 4), latent=2, network=Corrupted(family, Masking(1.0)), input_scale=0.5)
        encoder = sizes.encoder(encoders.PointMass)
        x = torch.randn(5, 16)
        torch.testing.assert_close(encoder(x).mean, encoder(torch.zeros_like(x)).mean)
        assert not torch.allclose(encoder.eval()(x).mean, encoder(torch.zeros_like(x)).mean)
        scale, inner = encoder.network
        assert scale.factor == 0.5
        assert isinstance(inner[0], Masking)


def linear(corruption, features):
    """A linear autoencoder of as many codes as features, in training shown the corrupted x, and its encoder's layer."""
    network = Corrupted(networks.MLP([]), corruption).encoder((features,), features)
    story = Autoencoder(priors.Flat(features), likelihoods.Normal(nn.Identity(), variance=1.0), network)
    return story, network[1][0]


@pytest.mark.parametrize("corruption", [Masking(0.4), GaussianNoise(0.7), SaltAndPepper(0.4, -1.0, 2.0)])
def test_a_linear_denoiser_comes_to_its_closed_form(corruption):
    """The regression of x on what it becomes, from its moments: Chen et al. 2012, https://arxiv.org/abs/1206.4683."""
    x = torch.randn(4000, 3) @ torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.5], [0.0, 0.0, 0.7]]) + 1
    mean, variance = moments(corruption, x)
    kept = 1.0 if isinstance(corruption, GaussianNoise) else 1 - corruption.rate
    covariance = torch.cov(mean.T, correction=0) + variance.mean(0).diag()
    weight = torch.linalg.solve(covariance, kept * torch.cov(x.T, correction=0)).T
    story, layer = linear(corruption, 3)
    for lr in (2e-2, 2e-3):
        ppvae.fit(story, x, epochs=15, batch_size=200, lr=lr, progress=False)
    torch.testing.assert_close(layer.weight.detach(), weight, atol=0.03, rtol=0)
    torch.testing.assert_close(layer.bias.detach(), x.mean(0) - weight @ mean.mean(0), atol=0.03, rtol=0)


def test_a_fit_seeds_the_corruption():
    x = torch.randn(50, 3)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        story, layer = linear(Masking(0.4), 3)
        torch.rand(len(weights))  # where the global generator stands does not matter
        ppvae.fit(story, x, epochs=5, batch_size=50, seed=seed, progress=False)  # one batch: no order
        weights.append(layer.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
