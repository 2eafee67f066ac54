"""Layer-wise pre-training: the stages are the story taken apart, each learns, and nothing else moves."""

import copy
import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

import ppvae
from ppvae import data, networks
from ppvae.inference import elbo
from ppvae.inference.program.codes import encode, reconstruct
from ppvae.models import VAE, Autoencoder, Linear, assemble, encoders, likelihoods, priors, stories
from ppvae.networks.corruption import Masking
from ppvae.training import pretraining
from ppvae.training.pretraining import pretrain, stages


def digits():
    return data.load_dataset("digits", scaling="unit")


def deep(hidden=(32, 16), latent=4, features=64, activation="relu", likelihood=likelihoods.Normal):
    family = networks.MLP(list(hidden), activation)
    decoder = family.decoder(latent, (features,), likelihood.outputs)
    return Autoencoder(priors.Flat(latent), likelihood(decoder), family.encoder((features,), latent))


def vae(hidden=(32, 16), latent=4, features=64):
    family = networks.MLP(list(hidden))
    encoder = encoders.DiagonalNormal(family.encoder((features,), 2 * latent))
    return VAE(priors.StandardNormal(latent), likelihoods.Normal(family.decoder(latent, (features,), 1)), encoder)


def of(encoder, decoder, likelihood=likelihoods.Normal):
    return Autoencoder(priors.Flat(2), likelihood(decoder), encoder)


def several():
    """A story of every kind of network that is taken apart, each of 6 features, 5 and 4 units, and a code of 2."""
    encoder, decoder = networks.mlp(6, [5, 4], 2), networks.mlp(2, [4, 5], 6)
    wide = networks.mlp(2, [4, 5], 12)
    shared = nn.Tanh()
    e, d = (
        [layer for layer in copy.deepcopy(network) if isinstance(layer, nn.Linear)] for network in (encoder, decoder)
    )
    return {
        "plain": of(encoder, decoder),
        "a scale before it": of(nn.Sequential(networks.Scale(0.1), copy.deepcopy(encoder)), copy.deepcopy(decoder)),
        "a corruption within": of(
            nn.Sequential(networks.Scale(0.1), nn.Sequential(Masking(0.5), copy.deepcopy(encoder))),
            copy.deepcopy(decoder),
        ),
        "a code from 0 to 1": of(nn.Sequential(copy.deepcopy(encoder), nn.Sigmoid()), copy.deepcopy(decoder)),
        "a shift behind it": of(
            copy.deepcopy(encoder), nn.Sequential(copy.deepcopy(decoder), networks.Shift(torch.arange(6.0)))
        ),
        "one activation in every place": of(
            nn.Sequential(e[0], shared, e[1], shared, e[2]),
            nn.Sequential(d[0], shared, nn.Sequential(d[1], shared, d[2])),
        ),
        "a norm before the code is read": of(
            copy.deepcopy(encoder), nn.Sequential(nn.LayerNorm(2), copy.deepcopy(decoder))
        ),
        "Bernoulli": of(copy.deepcopy(encoder), copy.deepcopy(decoder), likelihoods.Bernoulli),
        "two outputs": of(copy.deepcopy(encoder), wide, likelihoods.HeteroscedasticNormal),
    }


NAMES = list(several())


class TestStages:
    @pytest.mark.parametrize("name", NAMES)
    def test_put_together_again_they_are_the_story(self, name):
        story = several()[name].eval()
        h = x = torch.randn(7, 6)
        layers = [stage.eval() for stage in stages(story)]
        assert len(layers) == 3
        for layer in layers:
            h = layer.encoder(h).mean
        torch.testing.assert_close(h, story.encoder(x).mean)
        for layer in layers[:0:-1]:
            h = layer.likelihood(h).mean
        expected, found = story.likelihood(story.encoder(x).mean), layers[0].likelihood(h)
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.variance, expected.variance)

    @pytest.mark.parametrize("name", NAMES)
    def test_they_hold_the_very_modules_of_the_story_each_once(self, name):
        story = several()[name]
        held = [
            id(p)
            for layer in stages(story)
            for p in [*layer.encoder.parameters(), *layer.likelihood.network.parameters()]
        ]
        own = [id(p) for p in [*story.encoder.parameters(), *story.likelihood.network.parameters()]]
        assert sorted(held) == sorted(own)

    def test_a_layer_takes_the_activation_behind_it_and_its_mirror_does_too(self):
        story = several()["a corruption within"]
        kinds = [
            [[type(m).__name__ for m in part.network] for part in (layer.encoder, layer.likelihood)]
            for layer in stages(story)
        ]
        assert kinds == [
            [["Scale", "Masking", "Linear", "ReLU"], ["Linear"]],
            [["Linear", "ReLU"], ["Linear", "ReLU"]],
            [["Linear"], ["Linear", "ReLU"]],
        ]

    def test_the_bottom_has_the_likelihood_of_the_story_and_the_others_a_squared_error(self):
        story = deep(likelihood=likelihoods.Bernoulli)
        below, *above = stages(story)
        assert isinstance(below.likelihood, likelihoods.Bernoulli)
        for layer in above:
            x = torch.randn(5, layer.encoder.network[0].in_features)
            squares = (x - layer.likelihood(layer.encoder(x).mean).mean).square()
            expected = (0.5 * squares + 0.5 * math.log(2 * math.pi)).sum(-1).mean()
            torch.testing.assert_close(elbo(layer, x), expected)

    def test_the_copy_of_the_likelihood_is_around_the_last_layer_alone(self):
        story = deep()
        story.likelihood = likelihoods.Normal(story.likelihood.network, variance=0.3, learned=True)
        below = stages(story)[0].likelihood
        torch.testing.assert_close(below.log_scale, story.likelihood.log_scale)
        assert below.log_scale is not story.likelihood.log_scale
        assert len(list(below.parameters())) == 3  # a weight, a bias, a scale
        assert len(story.likelihood.network) == 5

    @pytest.mark.parametrize(("hidden", "layers"), [((32, 16), 2), ((32,), 1), ((32, 16, 8), 3)])
    def test_of_a_vae_all_but_the_topmost(self, hidden, layers):
        assert len(stages(vae(hidden))) == layers

    def test_layers_are_paired_from_the_bottom_as_far_as_their_sizes_mirror(self):
        encoder = networks.mlp(6, [5, 4, 3], 2)
        for hidden, layers in [([3, 4, 5], 4), ([4, 5], 2), ([3, 5], 1), ([7, 4, 5], 2), ([3, 9, 5], 1)]:
            assert len(stages(of(encoder, networks.mlp(2, hidden, 6)))) == layers

    def test_a_float64_story_stays_one(self):
        story = deep(features=6).double()
        pretrain(story, torch.randn(20, 6).double(), epochs=1, progress=False)
        assert {p.dtype for layer in stages(story) for p in layer.parameters()} == {torch.float64}


def gated(hidden, latent):
    family = networks.GatedMLP(hidden)
    return of(family.encoder((6,), latent), family.decoder(latent, (6,), 1))


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: vae(hidden=()), r"got VAE with 64 to 8 and 4 to 64: --network MLP with a hidden layer has one"),
            (lambda: Linear(6, 2), "got Linear with no dense layers and no dense layers: --network MLP"),
            (
                lambda: of(nn.Identity(), networks.mlp(2, [3], 6)),
                "got Autoencoder with no dense layers and 2 to 3, 3 to 6",
            ),
            (lambda: gated([5], 2), "pre-training should find a dense layer in the encoder that is mirrored"),
            (lambda: gated([2], 2), "got Autoencoder with 2 to 2 and 2 to 6"),  # its sizes agree by chance
            (lambda: nn.Linear(3, 2), "got Linear with no dense layers"),
        ],
    )
    def test_no_layer_to_pre_train(self, make, words):
        with pytest.raises(ValueError, match=words) as refused:
            pretrain(make(), torch.randn(10, 6), progress=False)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("network", [networks.Convolutional([2]), networks.LSTM(4), networks.Recursive(4)])
    def test_networks_that_are_not_dense(self, network):
        parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
        story = assemble(*parts, shape=(4, 4), latent=2, network=network, story=stories.autoencoder)
        with pytest.raises(ValueError, match=r"mirrored in the decoder, got VAE with .*no dense layers: --network MLP"):
            stages(story)

    def test_an_encoder_that_takes_more_than_x(self):
        with pytest.raises(ValueError, match=r"take x alone, 60 features, got one of 64: fit a story that puts labels"):
            pretrain(deep(), torch.randn(10, 60), progress=False)

    @pytest.mark.parametrize("option", [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}])
    def test_options_out_of_range(self, option):
        story = deep()
        before = copy.deepcopy(story.state_dict())
        with pytest.raises(ValueError, match=f"{next(iter(option))} should be"):
            pretrain(story, torch.randn(10, 64), progress=False, **option)
        assert same(before, story.state_dict())

    def test_data_that_are_none(self):
        with pytest.raises(ValueError, match="data should be a tensor or a tuple of tensors, got str"):
            pretrain(deep(), "digits", progress=False)
        with pytest.raises(ValueError, match="data should be finite, got nan"):
            pretrain(deep(), torch.full((3, 64), torch.nan), progress=False)


W = ("weight", "bias")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moved(before, story):
    return {name for name, parameter in story.named_parameters() if not torch.equal(before[name], parameter)}


@pytest.fixture
def fits(monkeypatch):
    """What `pretrain` fits: each stage with its data, and the weights that its fit moved, by identity."""
    record = []

    def fit(layer, batch, **options):
        story = fit.story
        before = {name: p.clone() for name, p in story.named_parameters()}
        history = ppvae.fit(layer, batch, **options)
        record.append((layer, batch, moved(before, story), history))
        return history

    def watch(story):
        fit.story = story
        return record

    monkeypatch.setattr(pretraining, "fit", fit)
    return watch


class TestWhatMoves:
    x = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))

    def test_every_stage_moves_its_own_layers_alone(self, fits):
        story = several()["plain"]
        record = fits(story)
        histories = pretrain(story, self.x, epochs=2, progress=False)
        layers = [(0, 4), (2, 2), (4, 0)]  # of the encoder, of the decoder
        expected = [
            {
                f"{part}.network.{i}.{what}"
                for part, i in zip(("encoder", "likelihood"), pair, strict=True)
                for what in W
            }
            for pair in layers
        ]
        assert [names for _, _, names, _ in record] == expected
        assert [history for *_, history in record] == histories
        assert [len(history.epochs) for history in histories] == [2, 2, 2]

    def test_of_a_vae_the_topmost_layers_stay(self):
        story = vae()
        before = {name: p.clone() for name, p in story.named_parameters()}
        pretrain(story, digits().train[:200], epochs=1, progress=False)
        expected = [("encoder", 0), ("encoder", 2), ("likelihood", 2), ("likelihood", 4)]
        assert moved(before, story) == {f"{part}.network.{i}.{what}" for part, i in expected for what in W}

    def test_what_a_likelihood_learns_beside_its_network_stays(self):
        story = deep()
        story.likelihood = likelihoods.Normal(story.likelihood.network, learned=True)
        before = {name: p.clone() for name, p in story.named_parameters()}
        pretrain(story, digits().train[:200], epochs=1, progress=False)
        assert moved(before, story) == {name for name in before if "network" in name}

    def test_every_stage_is_fitted_to_the_evaluation_codes_of_the_one_beneath(self, fits):
        story = several()["a corruption within"]
        record = fits(story)
        pretrain(story, self.x, epochs=2, progress=False)
        assert torch.equal(record[0][1][0], self.x)
        h = self.x
        for layer, (_, batch, *_) in zip(stages(story), record, strict=True):
            torch.testing.assert_close(batch[0], h)
            assert not batch[0].requires_grad
            h = layer.eval().encoder.network(h).detach()

    def test_the_story_is_left_in_evaluation_mode(self):
        story = vae()
        pretrain(story.train(), digits().train[:50], epochs=1, progress=False)
        assert not any(module.training for module in story.modules())

    def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator(self):
        start, found = several()["a corruption within"], []
        for seed in (0, 0, 1):
            story = copy.deepcopy(start)
            torch.rand(len(found))
            before = torch.get_rng_state()
            pretrain(story, self.x, epochs=2, batch_size=20, seed=seed, progress=False)
            assert torch.equal(torch.get_rng_state(), before)
            found.append(story.state_dict())
        assert same(found[0], found[1])
        assert not same(found[0], found[2])

    def test_the_options_are_those_of_the_fit(self):
        layers, story = several()["plain"], several()["plain"]
        layers.load_state_dict(story.state_dict())
        options = {"epochs": 3, "batch_size": 7, "lr": 1e-2, "seed": 4, "progress": False}
        pretrain(story, self.x, **options)
        ppvae.fit(stages(layers)[0], self.x, **options)
        assert torch.equal(story.encoder.network[0].weight, layers.encoder.network[0].weight)

    def test_one_datum(self):
        story = several()["plain"]
        assert all(history.loss[-1] < history.loss[0] for history in pretrain(story, self.x[:1], progress=False))


class TestBatches:
    def test_missing_values_are_not_scored(self):
        x = digits().train[:100]
        mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
        start, found = deep(), []
        batches = [(x.where(mask, torch.nan), mask), (x.where(mask, 9.0), mask), (x.where(mask, 0), mask | True)]
        for batch in batches:
            story = copy.deepcopy(start)
            pretrain(story, batch, epochs=2, progress=False)
            found.append(story.state_dict())
        assert same(found[0], found[1])
        assert not same(found[0], found[2])

    def test_of_another_story_the_first_tensor_counts(self):
        class Weighted(nn.Module):
            def __init__(self, story):
                super().__init__()
                self.encoder, self.likelihood = story.encoder, story.likelihood

        x = digits().train[:100]
        start, found = deep(), []
        for batch in (x, (x, torch.rand(100))):
            story = Weighted(copy.deepcopy(start))
            pretrain(story, batch, epochs=1, progress=False)
            found.append(story.state_dict())
        assert same(*found)

    def test_a_library_size_goes_to_the_bottom(self):
        family = networks.MLP([5, 4])
        likelihood = likelihoods.NegativeBinomial(family.decoder(2, (6,), 1), features=6, library=True)
        story = Autoencoder(priors.Flat(2), likelihood, family.encoder((6,), 2))
        x = torch.poisson(torch.full((40, 6), 3.0))
        histories = pretrain(story, (x, torch.ones_like(x), x.sum(-1, keepdim=True)), epochs=5, progress=False)
        assert len(histories) == 3
        assert histories[0].loss[-1] < histories[0].loss[0]

    def test_constant_data(self):
        for value in (0.0, 1.0):
            story = deep(features=6)
            histories = pretrain(story, torch.full((30, 6), value), epochs=3, progress=False)
            assert all(torch.isfinite(torch.tensor(history.loss)).all() for history in histories)
            assert reconstruct(story, torch.full((2, 6), value)).isfinite().all()


def redrawn(layer):
    fresh = copy.deepcopy(layer)
    for module in fresh.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return fresh


def error(story, x):
    return (reconstruct(story, x) - x).square().sum(-1).mean().item()


class TestWhatItIsGoodFor:
    @torch.no_grad()
    def test_every_layer_is_better_than_its_start_and_than_fresh_ones_on_digits_it_has_not_seen(self):
        split = digits()
        start = deep((32, 16), 8)
        story = copy.deepcopy(start)
        with torch.enable_grad():
            pretrain(story, split.train, epochs=10, progress=False)
        h = split.test
        for layer, random in zip(stages(story), stages(start), strict=True):
            others = [random, *(redrawn(layer) for _ in range(3))]
            assert elbo(layer, h) < min(elbo(other, h) for other in others)
            h = encode(layer, h)

    @pytest.mark.parametrize("likelihood", [likelihoods.Normal, likelihoods.Bernoulli])
    def test_a_stack_not_yet_tuned_reconstructs_better_than_one_at_random(self, likelihood):
        split = (
            data.load_dataset("digits", binarisation="threshold") if likelihood is likelihoods.Bernoulli else digits()
        )
        start = deep((32, 16), 8, activation="tanh", likelihood=likelihood)
        story = copy.deepcopy(start)
        pretrain(story, split.train, epochs=15, lr=3e-3, progress=False)
        mean = (split.test - split.train.mean(0)).square().sum(-1).mean().item()
        assert error(story, split.test) < 0.8 * mean < mean < error(start, split.test)

    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_three_layers_then_an_ordinary_fit(self, activation):
        split = digits()
        start = deep((32, 16), 8, activation=activation)
        story = copy.deepcopy(start)
        pretrain(story, split.train, epochs=10, lr=3e-3, progress=False)
        before = error(story, split.test)
        for one in (story, start):
            ppvae.fit(one, split.train, epochs=5, progress=False)
        assert error(story, split.test) < min(before, error(start, split.test))

    @pytest.mark.parametrize("hidden", [(), (24,)])
    def test_linear_layers_come_to_principal_components(self, hidden):
        """No linear autoencoder of one layer has a smaller error than PCA of what it is fitted to."""
        x = digits().train
        story = deep(hidden, 8, activation="identity")
        for lr, epochs in [(2e-2, 40), (2e-3, 15)]:
            pretrain(story, x, epochs=epochs, lr=lr, progress=False)
        for layer in stages(story):
            code = encode(layer, x)
            pca = PCA(code.shape[1], svd_solver="full").fit(x.numpy())
            best = (pca.inverse_transform(pca.transform(x.numpy())) - x.numpy()) ** 2
            best = best.sum(-1).mean()
            assert 0.999 * best < error(layer, x) < 1.05 * best
            x = code
