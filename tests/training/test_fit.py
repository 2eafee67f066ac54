"""fit(): exact where an exact answer is known, reproducible, resumable, and clear about what it refuses."""

import hashlib
import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn

import ppvae
from ppvae import data, networks
from ppvae.compilation.steps import NotCompiled
from ppvae.inference import ciwae, elbo, importance, iwae
from ppvae.models import VAE, Autoencoder, assemble, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian, affine
from ppvae.training.fit import NotFinite, begin, run


def binary_story(seed=0, encoder=lambda: networks.mlp(5, [8], 4)):
    torch.manual_seed(seed)
    return VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(networks.mlp(2, [8], 5)),
        encoders.DiagonalNormal(encoder()),
    )


def binary_data(rows=50):
    generator = torch.Generator().manual_seed(1)
    return torch.bernoulli(torch.rand(rows, 5, generator=generator), generator=generator)


def fit(story, x, **options):
    return ppvae.fit(story, x, **{"epochs": 3, "batch_size": 16, "progress": False, **options})


def fingerprint(story):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in story.state_dict().values())).hexdigest()


def test_a_linear_vae_reaches_the_likelihood_of_probabilistic_pca():
    """Its best ELBO is log p(x): -N/2 (d log 2 pi + sum_k log l_k + (d - k) log s2 + d). Lucas et al. 2019,
    https://arxiv.org/abs/1911.02469"""
    known = LinearGaussian()
    x = known.data(2000)
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    kept, noise = values[:2], values[2:].mean()
    best = -0.5 * (5 * math.log(2 * math.pi) + kept.log().sum() + 3 * noise.log() + 5)
    torch.manual_seed(0)
    loading = 0.5 * torch.randn(5, 2).double()
    story = VAE(
        priors.StandardNormal(2),
        likelihoods.Normal(affine(loading, torch.zeros(5).double()), 1.0, learned=True),
        encoders.DiagonalNormal(affine(torch.randn(4, 5).double() * 0.1, torch.zeros(4).double())),
    ).double()
    training = begin(story, lr=0.02)
    for lr in (0.02, 0.005, 0.001):
        training.optimizer.param_groups[0]["lr"] = lr
        for _ in run(training, x, partial(elbo, particles=4), epochs=60, batch_size=200):
            pass
    with torch.no_grad():
        repeated = torch.stack([elbo(story, x, particles=10) for _ in range(20)])
    error = repeated.std().item() / 20**0.5
    assert error < 0.002
    assert abs(-repeated.mean().item() - best.item()) < 0.01


def test_a_linear_autoencoder_reaches_the_discarded_eigenvalues():
    x = data.load_dataset("digits", scaling="unit").train
    values = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    story = Autoencoder(
        priors.Flat(4),
        likelihoods.Normal(networks.mlp(4, [], 64), variance=0.05),
        networks.mlp(64, [], 4),
    )
    for lr in (2e-2, 2e-3):
        fit(story, x, epochs=100, batch_size=128, lr=lr)
    loss = (x - story.likelihood(story.encoder(x).mean).mean).square().sum(-1).mean().item()
    assert values[4:].sum() * 0.999 < loss < values[4:].sum() * 1.01


def test_the_same_seed_gives_the_same_fit_and_another_seed_another():
    first, second, third = binary_story(), binary_story(), binary_story()
    assert fit(first, binary_data(), seed=3).loss == fit(second, binary_data(), seed=3).loss
    assert fingerprint(first) == fingerprint(second)
    fit(third, binary_data(), seed=4)
    assert fingerprint(third) != fingerprint(first)


def test_a_fit_leaves_the_global_generator_and_parameter_store_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    story = binary_story()
    torch.manual_seed(5)
    fit(story, binary_data(), valid=binary_data(9))
    assert torch.equal(torch.randn(3), expected)
    assert list(pyro.get_param_store()) == []
    assert pyro.settings.get("validate_distributions_pyro") is True


def dropout():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


def test_a_resumed_fit_equals_an_unbroken_one_to_the_last_bit(tmp_path):
    unbroken, stopped = binary_story(encoder=dropout), binary_story(encoder=dropout)
    options = {"data": torch.rand(50, 5), "objective": elbo, "batch_size": 16, "transform": torch.bernoulli}
    whole = list(run(begin(unbroken), epochs=4, **options))
    first = begin(stopped)
    parts = list(run(first, epochs=2, **options))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    continued = binary_story(seed=9, encoder=dropout)
    second = begin(continued, seed=9)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.randn(11)
    parts += list(run(second, epochs=2, **options))
    assert [record.loss for record in parts] == [record.loss for record in whole]
    assert [record.epoch for record in parts] == [1, 2, 3, 4]
    assert fingerprint(continued) == fingerprint(unbroken)


def test_the_history_holds_the_mean_loss_over_uneven_batches():
    """Losses of batches of 16 and 4 count by their rows: here the loss of a datum is the datum, whatever is learnt."""

    def objective(story, batch):
        return batch[0][:, 0].mean() + 0 * sum(p.sum() for p in story.parameters())

    x = binary_data(20)
    history = fit(binary_story(), x, objective=objective, valid=x[:7])
    assert history.loss == pytest.approx([x[:, 0].mean().item()] * 3)
    assert history.valid == pytest.approx([x[:7, 0].mean().item()] * 3)
    assert len(history.epochs) == 3
    assert history.seconds > 0


def test_every_datum_is_seen_once_an_epoch_in_a_new_order():
    seen = []

    def objective(story, batch):
        if story.training:
            seen.append(batch[1].clone())
        return elbo(story, batch)

    class Indexed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = binary_story()

        def model(self, x, index):
            self.inner.model(x)

        def guide(self, x, index):
            self.inner.guide(x)

    fit(Indexed(), (binary_data(20), torch.arange(20)), objective=objective, epochs=2, batch_size=8)
    passes = torch.cat(seen).split(20)
    assert [len(batch) for batch in seen] == [8, 8, 4, 8, 8, 4]
    assert all(sorted(order.tolist()) == list(range(20)) for order in passes)
    assert passes[0].tolist() != passes[1].tolist()


def test_binarisation_is_fresh_at_every_pass():
    grey = data.load_dataset("digits", binarisation="dynamic")
    seen = []

    def objective(story, batch):
        seen.append(batch[0])
        return elbo(story, batch)

    story = assemble(priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal, shape=(64,), latent=2)
    fit(story, grey.train[:10], objective=objective, transform=grey.resample, epochs=2, batch_size=10)
    assert all(set(batch.unique().tolist()) == {0.0, 1.0} for batch in seen)
    assert seen[0].sum() != seen[1].sum()


class Own(nn.Module):
    """Anyone's story: its parameters are its own, and nothing is registered."""

    def __init__(self):
        super().__init__()
        self.decode, self.encode = nn.Linear(1, 5), nn.Linear(5, 2)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=self.decode(z.unsqueeze(-1))).to_event(1), obs=x)

    def guide(self, x):
        loc, log_scale = self.encode(x).unbind(-1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


class OwnPyroModule(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(5))
        self.scale = PyroParam(torch.ones(5), constraint=dist.constraints.positive)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x, self.scale).to_event(1))


@pytest.mark.parametrize("make", [binary_story, Own, OwnPyroModule])
@pytest.mark.parametrize("objective", [elbo, partial(iwae, particles=3)])
def test_every_parameter_of_anyones_story_moves(make, objective):
    story = make()
    before = {name: parameter.clone() for name, parameter in story.named_parameters()}
    history = fit(story, binary_data(), objective=objective, epochs=20, lr=1e-2)
    assert all(not torch.equal(before[name], parameter) for name, parameter in story.named_parameters())
    assert history.loss[-1] < history.loss[0]


def test_frozen_parameters_stay():
    story = binary_story()
    story.likelihood.requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in story.named_parameters()}
    fit(story, binary_data())
    moved = {name for name, parameter in story.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved == {name for name in before if name.startswith("encoder")}


def test_a_parameter_that_no_fit_would_move_is_refused():
    class Stray(Own):
        def guide(self, x):
            scale = pyro.param("scale", torch.tensor(1.0))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(self.encode(x)[:, 0], scale))

    with pytest.raises(ValueError, match=r"belong to the story.*scale does not.*nn.Parameter"):
        fit(Stray(), binary_data())


def test_a_bad_datum_is_found_wherever_it_is_before_the_first_step():
    story, x = binary_story(), binary_data(3000)
    before = fingerprint(story)
    x[2017, 3] = 0.5
    with pytest.raises(ValueError, match=r"got 0\.5 in row 2017"):
        fit(story, x)
    assert fingerprint(story) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs should be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size should be at least 1, got 0"),
        ({"lr": -1.0}, "lr should be positive"),
        ({"lr": math.nan}, "lr should be positive"),
        ({"objective": partial(iwae, particles=0)}, "particles should be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        fit(binary_story(), binary_data(), **options)


def test_what_is_no_story_is_refused():
    for thing in (object(), nn.Linear(1, 1), binary_story, Own):
        with pytest.raises(ValueError, match="object with model and guide"):
            fit(thing, binary_data())
    with pytest.raises(ValueError, match="something to learn"):
        fit(binary_story().requires_grad_(False), binary_data())


def failing_story(likelihood):
    torch.manual_seed(0)
    return VAE(priors.StandardNormal(2), likelihood, encoders.DiagonalNormal(networks.mlp(5, [8], 4)))


def test_a_nan_loss_names_epoch_and_site_and_keeps_the_last_good_parameters():
    class Fragile(likelihoods.Normal):
        """Its mean overflows once its network has grown: the fit itself breaks it, the same way each time."""

        def forward(self, z):
            grown = self.network.bias.detach().abs().max() > 0.5
            return dist.Normal(self.network(z) * (torch.nan if grown else 1.0), 1.0).to_event(1)

    story = failing_story(Fragile(nn.Linear(2, 5)))
    nn.init.zeros_(story.likelihood.network.bias)
    records = []

    def collect():
        for record in run(begin(story, lr=1e-2), 3 + torch.randn(64, 5), elbo, 100, 16, compile="never"):
            records.append(record)

    with pytest.raises(NotFinite, match=r"loss is nan at site 'x' of the model \(Normal\) in epoch \d+, step \d+"):
        collect()
    assert len(records) > 2
    assert all(math.isfinite(record.loss) for record in records)
    assert all(parameter.isfinite().all() for parameter in story.parameters())
    # the step before broke nothing, and the very next one would have
    assert 0.5 - 0.05 < story.likelihood.network.bias.abs().max() < 0.5 + 0.05


@pytest.mark.parametrize("compile", ["never", "always"])
def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_parameters(compile):
    class Cliff(likelihoods.Normal):
        def forward(self, z):
            bias, loc = self.network.bias, self.network(z)
            steep = torch.where(bias.max().detach() > 0.1, 3e38, 0.0)
            return dist.Normal(loc + steep * (bias - bias.detach()), 1.0).to_event(1)  # a slope, and no height

    story = failing_story(Cliff(nn.Linear(2, 5)))
    nn.init.zeros_(story.likelihood.network.bias)
    with pytest.raises(NotFinite, match=r"gradient of likelihood\.network\.bias is not finite in epoch"):
        fit(story, 3 + torch.randn(64, 5), lr=1e-2, epochs=100, compile=compile)
    assert all(parameter.isfinite().all() for parameter in story.parameters())


def test_a_plain_object_that_holds_its_networks_is_fitted_and_stopped_and_resumed():
    class Plain:
        def __init__(self):
            torch.manual_seed(0)
            self.inner = Own()

        def model(self, x):
            self.inner.model(x)

        def guide(self, x):
            self.inner.guide(x)

    story = Plain()
    before = [p.clone() for p in story.inner.parameters()]
    fit(story, binary_data(), lr=1e-2)
    assert all(not torch.equal(a, b) for a, b in zip(before, story.inner.parameters(), strict=True))
    assert not story.inner.training


def test_a_fit_trains_in_training_mode_and_leaves_the_story_in_evaluation_mode():
    modes = []

    def objective(story, batch):
        modes.append(story.training)
        return elbo(story, batch)

    story = binary_story(encoder=dropout)
    fit(story, binary_data(20), objective=objective, epochs=2, batch_size=20, valid=binary_data(5))
    assert modes == [True, False, True, False]
    assert not any(module.training for module in story.modules())


def test_a_guide_that_knows_its_data_by_their_place_is_refused():
    """Batches are shuffled: its parameters would belong to other data."""

    class Local(Own):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(50))

        def guide(self, x):
            with pyro.plate("data", 50, dim=-1):
                pyro.sample("z", dist.Normal(self.loc, 1.0))

    with pytest.raises(ValueError, match="one place a datum"):
        fit(Local(), binary_data(50), batch_size=50)


@pytest.mark.parametrize("thing", [[[1.0]], "digits", {"x": torch.zeros(2)}])
def test_what_is_no_data_is_refused(thing):
    with pytest.raises(ValueError, match="tensor or a tuple of tensors"):
        fit(binary_story(), thing)


def test_a_latent_size_that_would_broadcast_is_refused():
    story = binary_story()
    story.prior = priors.StandardNormal(1)
    with pytest.raises(ValueError, match=r"'z' has event_shape \(1,\) in the model, and the guide draws \(2,\)"):
        fit(story, binary_data())


def watched(betas):
    """The ELBO, which notes the beta of every training step."""

    def objective(story, batch, beta=1.0):
        if story.training:
            betas.append(beta)
        else:
            assert beta == 0.8  # a validation loss is of what was asked for
        return elbo(story, batch, beta=beta)

    return partial(objective, beta=0.8)


def test_beta_rises_by_steps_to_its_value_and_stays_there():
    betas = []
    fit(binary_story(), binary_data(), objective=watched(betas), epochs=3, warm_up=2, valid=binary_data(5))
    assert all(isinstance(beta, torch.Tensor) and beta.shape == () for beta in betas)
    torch.testing.assert_close(torch.stack(betas[:8]), 0.8 * torch.arange(8) / 8)  # four batches an epoch
    assert all(beta.item() == pytest.approx(0.8) for beta in betas[8:])
    assert len(betas) == 12


def test_a_warm_up_changes_the_fit_and_without_one_beta_is_as_given():
    plain, warm, betas = binary_story(), binary_story(), []
    fit(plain, binary_data(), objective=watched(betas))
    assert betas == [0.8] * 12
    fit(warm, binary_data(), objective=watched([]), warm_up=3)
    assert fingerprint(plain) != fingerprint(warm)


def test_a_warm_up_that_was_stopped_goes_on_where_it_was(tmp_path):
    unbroken, stopped = binary_story(), binary_story()
    whole = list(run(begin(unbroken), binary_data(), elbo, 4, 16, warm_up=3))
    first = begin(stopped)
    parts = list(itertools.islice(run(first, binary_data(), elbo, 4, 16, warm_up=3), 2))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    continued = binary_story(seed=9)
    second = begin(continued, seed=9)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    parts += run(second, binary_data(), elbo, 2, 16, warm_up=3)
    assert [record.loss for record in parts] == [record.loss for record in whole]
    assert fingerprint(continued) == fingerprint(unbroken)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warm_up": -1}, "warm_up should be at least 0, got -1"),
        ({"warm_up": 30, "epochs": 10}, "no longer than the run, got warm_up 30 in 10 epochs: .* at most 10"),
        ({"warm_up": 2, "objective": partial(iwae, particles=3)}, "with a beta to raise, got iwae: such as elbo"),
        ({"warm_up": 2, "objective": ciwae}, "weight of a KL, got ciwae"),
    ],
)
def test_a_warm_up_that_could_not_be_is_refused(options, words):
    before = fingerprint(binary_story())
    story = binary_story()
    with pytest.raises(ValueError, match=words):
        fit(story, binary_data(), **options)
    assert fingerprint(story) == before


def replayed(story, **options):
    """A training whose steps are replayed from the first on."""
    training = begin(story, **options)
    training.way = "replayed"
    return training


def test_a_replayed_fit_is_the_eager_one():
    """With dropout, batch normalisation, fresh binarisation, a warm-up, a smaller last batch and a clipped gradient."""
    grey = torch.rand(50, 5)
    options = {"epochs": 4, "batch_size": 16, "transform": torch.bernoulli, "warm_up": 2, "clip": 1.0}
    stories = [binary_story(encoder=dropout) for _ in range(2)]
    curves = [
        [record.loss for record in run(training, grey, elbo, **options)]
        for training in (begin(stories[0]), replayed(stories[1]))
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    for one, two in zip(stories[0].state_dict().values(), stories[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_compiled_fit_ends_where_the_eager_one_does():
    """The same draws, clipping, schedule and smaller last batch: the same parameters but for rounding, and evidence of
    held-out data as close as that."""
    x, ends = binary_data(200).double(), []
    for compile in ("never", "always"):
        story = binary_story().double()
        options = {"epochs": 20, "batch_size": 48, "clip": 1.0, "schedule": "cosine"}
        fit(story, x[:160], compile=compile, **options)
        ends.append((list(story.parameters()), importance(story, x[160:], particles=100, progress=False)))
    (eager, before), (compiled, after) = ends
    for one, other in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    assert ((before.estimate - after.estimate).abs() < 1e-3 * before.standard_error).all()


@pytest.mark.parametrize("way", ["replayed", "compiled"])
def test_a_stopped_fit_goes_on_in_the_way_that_was_chosen_to_the_last_bit(way):
    options = {"data": binary_data(), "objective": elbo, "batch_size": 16}
    unbroken, stopped, continued = (binary_story(seed, encoder=dropout) for seed in (0, 0, 9))
    steady, first, second = begin(unbroken), begin(stopped), begin(continued)
    steady.way = first.way = way
    whole = list(run(steady, epochs=4, **options))
    parts = list(run(first, epochs=2, **options))
    second.load_state_dict(first.state_dict())
    assert second.way == way
    parts += list(run(second, epochs=2, **options))
    assert [record.loss for record in parts] == [record.loss for record in whole]
    assert fingerprint(continued) == fingerprint(unbroken)


def test_a_number_that_is_changed_between_epochs_counts_in_a_replayed_fit():
    story = binary_story(encoder=lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.0)))
    seen = []

    def objective(story, batch):
        seen.append(story.encoder.network[1].p)
        return elbo(story, batch)

    for _ in run(replayed(story), binary_data(32), objective, epochs=2, batch_size=32):
        story.encoder.network[1].p = 0.5
    assert seen == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]  # two traces each, and a check


def test_a_loss_that_decides_by_its_values_is_fitted_eagerly_after_a_warning():
    def objective(story, batch):
        loss = elbo(story, batch)
        return loss if loss > 0 else -loss

    one, two = binary_story(), binary_story()
    with pytest.warns(NotCompiled, match=r"test_fit\.py:\d+"):
        fit(one, binary_data(), objective=objective, compile="always")
    fit(two, binary_data(), objective=objective, compile="never")
    assert fingerprint(one) == fingerprint(two)


def test_a_clipped_gradient_has_no_more_than_that_norm():
    moved = []
    for clip in (None, 1e-3):
        story = binary_story()
        before = torch.cat([p.detach().flatten() for p in story.parameters()])
        training = begin(story, lr=1.0, optimizer=torch.optim.SGD)
        list(run(training, binary_data(16), elbo, epochs=1, batch_size=16, clip=clip))
        moved.append((torch.cat([p.detach().flatten() for p in story.parameters()]) - before).norm().item())
    assert moved[0] > 1e-2
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_cosine_schedule_ends_near_zero_for_every_group_and_a_constant_one_touches_nothing():
    story = binary_story()

    def groups(parameters, lr):
        one, two = list(story.encoder.parameters()), list(story.likelihood.parameters())
        assert len(one) + len(two) == len(parameters)
        return torch.optim.Adam([{"params": one}, {"params": two, "lr": 1e-4}], lr)

    training = begin(story, lr=1e-2, optimizer=groups)
    rates = []
    for _ in run(training, binary_data(), elbo, epochs=4, batch_size=16, schedule="cosine"):
        rates.append([group["lr"] for group in training.optimizer.param_groups])
    shares = [
        0.5 * (1 + math.cos(math.pi * (4 * epoch - 1) / 16)) for epoch in range(1, 5)
    ]  # of each epoch's last step
    assert rates == [pytest.approx([1e-2 * share, 1e-4 * share]) for share in shares]
    training.optimizer.param_groups[0]["lr"] = 0.3
    list(run(training, binary_data(), elbo, epochs=1, batch_size=16))
    assert training.optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip": 0.0}, "clip should be positive and finite, got 0.0"),
        ({"compile": "maybe"}, "compile should be auto, always, never, got maybe"),
        ({"schedule": "linear"}, "schedule should be constant or cosine, got linear"),
    ],
)
def test_options_of_the_step_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        fit(binary_story(), binary_data(), **options)
