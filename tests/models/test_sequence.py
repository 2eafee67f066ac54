"""The sequence story: masses that sum to one, teacher forcing and draws against the same by hand, padding, evidence."""

import math
from functools import partial
from itertools import product

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import ppvae
from ppvae import networks
from ppvae.inference import importance, iwae, log_weights
from ppvae.inference.program.codes import encode, reconstruct, sample
from ppvae.models import assemble, encoders, likelihoods, priors, stories

TOKENS = {"shape": (3, 1), "maximum": 2, "likelihood": likelihoods.Categorical, "embedding": 4}
FRAMES = {"shape": (4, 2), "likelihood": partial(likelihoods.Normal, learned=True)}
BITS = {"shape": (3, 2), "likelihood": likelihoods.Bernoulli}
KINDS = {"tokens": TOKENS, "frames": FRAMES, "bits": BITS}


def story_of(shape, likelihood, maximum=None, latent=2, prior=priors.StandardNormal, input_scale=1.0, **options):
    torch.manual_seed(0)
    return assemble(
        prior,
        likelihood,
        encoders.DiagonalNormal,
        shape=shape,
        latent=latent,
        story=partial(stories.sequence, hidden=5, **options),
        network=networks.MLP([6]),
        maximum=maximum,
        input_scale=input_scale,
    )


def data_of(kind, rows=6):
    if kind == "tokens":
        return torch.randint(0, 3, (rows, 3)).float()
    return torch.randn(rows, 8) if kind == "frames" else torch.randint(0, 2, (rows, 6)).float()


def all_rows(names, steps):
    return torch.tensor(list(product(range(names), repeat=steps))).float()


def sharpened(module):
    """Weights large enough for every step to depend on those before it and on z."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "log_scale" not in name:
                parameter.mul_(3)
    return module


@pytest.mark.parametrize("kind", KINDS)
class TestContract:
    def test_log_weights_have_one_value_per_particle_and_datum(self, kind):
        story, x = story_of(**KINDS[kind]), data_of(kind)
        for data in (x, (x, torch.tensor([1, 2, 3, 1, 2, 3]))):
            log_w = log_weights(story, data, particles=3)
            assert log_w.shape == (3, 6)
            assert log_w.isfinite().all()

    def test_the_gradient_reaches_every_parameter(self, kind):
        story = story_of(**KINDS[kind])
        iwae(story, (data_of(kind), torch.tensor([1, 2, 3, 1, 2, 3])), particles=2).backward()
        for name, parameter in story.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name

    def test_fit_takes_rows_and_rows_with_lengths(self, kind):
        x = data_of(kind)
        for data in (x, (x, torch.tensor([1, 2, 3, 1, 2, 3]))):
            history = ppvae.fit(story_of(**KINDS[kind]), data, epochs=25, lr=3e-2, progress=False)
            assert history.loss[-1] < history.loss[0]

    def test_plain_svi_trains_every_parameter(self, kind):
        story, x = story_of(**KINDS[kind]), data_of(kind)
        before = {name: parameter.clone() for name, parameter in story.named_parameters()}
        svi = SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        svi.step(x, torch.tensor([1, 2, 3, 1, 2, 3]))
        for name, parameter in story.named_parameters():
            assert torch.equal(parameter, before[name]) != parameter.requires_grad, name

    def test_float64_all_the_way(self, kind):
        assert log_weights(story_of(**KINDS[kind]).double(), data_of(kind).double()).dtype == torch.float64

    def test_generation_is_the_model_without_its_observation(self, kind):
        story, x = story_of(**KINDS[kind]), data_of(kind)
        free = pyro.poutine.uncondition(story.model)
        assert free(torch.empty_like(x)).shape == x.shape
        padded = free(torch.empty_like(x), torch.tensor([1, 2, 3, 1, 2, 3]))
        assert (padded[0, x.shape[1] // story.likelihood.steps :] == 0).all()
        assert log_weights(story, free(torch.empty_like(x))).isfinite().all()

    def test_codes_reconstructions_and_means_have_the_shapes_of_their_data(self, kind):
        story, x = story_of(**KINDS[kind]), data_of(kind)
        lengths = torch.tensor([1, 2, 3, 1, 2, 3])
        assert encode(story, (x, lengths)).shape == (6, 2)
        assert reconstruct(story, (x, lengths)).shape == x.shape
        assert sample(story, x, means=True).shape == x.shape

    def test_density_of_all_steps_at_once_is_that_of_one_after_another(self, kind):
        story, x = sharpened(story_of(**KINDS[kind])), data_of(kind)
        z, likelihood = torch.randn(6, 2), story.likelihood
        past, state, expected = None, None, torch.zeros(6)
        for x_t in x.unflatten(-1, (likelihood.steps, -1)).split(1, dim=-2):
            step, state = likelihood.conditional(z, past, state)
            expected = expected + step.log_prob(x_t).squeeze(-1)
            past = x_t
        torch.testing.assert_close(likelihood(z).log_prob(x), expected)

    def test_any_leading_dimensions(self, kind):
        likelihood, x = story_of(**KINDS[kind]).likelihood, data_of(kind)
        z = torch.randn(4, 6, 2)
        lengths = torch.tensor([1, 2, 3, 1, 2, 3])
        together = likelihood(z, lengths)
        assert (together.batch_shape, together.event_shape) == ((4, 6), x.shape[1:])
        assert together.sample((2,)).shape == (2, 4, 6, *x.shape[1:])
        torch.testing.assert_close(together.log_prob(x)[2, 1], likelihood(z[2, 1], lengths[1]).log_prob(x[1]))
        alone = likelihood(z[0, 0])
        torch.testing.assert_close(alone.log_prob(x[0]), likelihood(z).log_prob(x)[0, 0])
        expanded = alone.expand((3, 6))
        torch.testing.assert_close(expanded.log_prob(x)[1], alone.log_prob(x))
        assert expanded.sample().shape == (3, *x.shape)


class TestMass:
    @pytest.mark.parametrize("kind", ["tokens", "bits"])
    def test_sums_to_one_over_all_sequences(self, kind):
        story = sharpened(story_of(**KINDS[kind])).double()
        rows = all_rows(3, 3) if kind == "tokens" else all_rows(2, 6)
        z = torch.randn(4, 1, 2).double()
        mass = story.likelihood(z).log_prob(rows.double()).exp()
        torch.testing.assert_close(mass.sum(-1), torch.ones(4).double())
        assert (mass.amax(-1) > 2 * mass.mean(-1)).all()  # and is not the same for all

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_sums_to_one_over_all_sequences_of_a_length(self, length):
        story = sharpened(story_of(**TOKENS)).double()
        rows = torch.cat([all_rows(3, length), torch.full((3**length, 3 - length), 77.0)], dim=-1)
        mass = story.likelihood(torch.randn(4, 1, 2).double(), torch.tensor(length)).log_prob(rows.double()).exp()
        torch.testing.assert_close(mass.sum(-1), torch.ones(4).double())

    def test_draws_have_the_mass_that_the_density_says(self):
        story = sharpened(story_of(**TOKENS)).double()
        likelihood, rows = story.likelihood(torch.randn(2).double()), all_rows(3, 3).double()
        mass, draws = likelihood.log_prob(rows).exp(), likelihood.sample((20_000,))
        share = (draws.unsqueeze(1) == rows).all(-1).double().mean(0)
        error = (mass * (1 - mass) / len(draws)).sqrt()
        assert ((share - mass).abs() < 4 * error + 1e-12).all()
        assert (mass > 0.02).sum() > 2

    def test_frames_are_drawn_from_the_densities_of_their_steps(self):
        """(x_t - m_t) / s of draws, with m_t by teacher forcing on the draws: standard Normal and uncorrelated."""
        story = sharpened(story_of(**FRAMES)).double()
        z = torch.randn(1, 2).double().expand(20_000, 2)
        x = story.likelihood(z).sample().view(-1, 4, 2)
        steps, _ = story.likelihood.conditional(z, x[:, :-1], None)
        residual = ((x - steps.mean) / steps.variance.sqrt()).flatten(1)
        error = 1 / math.sqrt(len(residual))
        assert (residual.mean(0).abs() < 4 * error).all()
        off = residual.T @ residual / len(residual) - torch.eye(8)
        assert (off.abs() < 4 * error * (1 + 0.5 * torch.eye(8))).all()


def test_a_step_reads_the_steps_before_it_and_z_by_hand():
    likelihood = sharpened(story_of(**TOKENS)).likelihood
    lstm, (x, z) = likelihood.lstm, (data_of("tokens"), torch.randn(6, 2))
    h, c = likelihood.state(z).chunk(2, -1)
    read, log_prob = likelihood.start.expand(6, -1), torch.zeros(6)
    for t in range(3):
        gates = torch.cat([read, z], -1) @ lstm.weight_ih_l0.T + h @ lstm.weight_hh_l0.T
        i, f, g, o = (gates + lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        logits = likelihood.emission.network(h)  # one logit for every token
        log_prob = log_prob + logits.log_softmax(-1).gather(-1, x[:, t : t + 1].long()).squeeze(-1)
        read = likelihood.inputs.vectors.weight[x[:, t].long()]
    torch.testing.assert_close(likelihood(z).log_prob(x), log_prob)


class TestPadding:
    lengths = torch.tensor([1, 2, 4, 3])

    def padded(self, kind, filling):
        torch.manual_seed(1)
        x = torch.randn(4, 4, 2) if kind == "frames" else torch.randint(0, 3, (4, 4, 1)).float()
        behind = torch.arange(4) >= self.lengths.unsqueeze(-1)
        return x.masked_fill(behind.unsqueeze(-1), filling).flatten(1)

    def loss(self, kind, filling):
        story = story_of(**(KINDS[kind] | {"shape": (4, 2 if kind == "frames" else 1)}))
        torch.manual_seed(2)
        log_w = log_weights(story, (self.padded(kind, filling), self.lengths), particles=2)
        log_w.sum().backward()
        return log_w, [p.grad for p in story.parameters() if p.requires_grad]

    @pytest.mark.parametrize(
        ("kind", "filling"), [("frames", 1e6), ("frames", math.nan), ("tokens", 999), ("tokens", -1)]
    )
    def test_what_stands_behind_the_last_step_changes_nothing(self, kind, filling):
        with pyro.validation_enabled(True):
            log_w, gradients = self.loss(kind, filling)
        expected, expected_gradients = self.loss(kind, 0)
        assert torch.equal(log_w, expected)
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))

    def test_a_padded_row_has_the_density_and_the_code_of_the_short_one(self):
        story, x = story_of(**(FRAMES | {"shape": (4, 2)})), self.padded("frames", 0)
        short = story_of(**(FRAMES | {"shape": (2, 2)}))
        short.load_state_dict(story.state_dict())
        z, lengths = torch.randn(4, 2), torch.tensor([2, 2, 2, 2])
        torch.testing.assert_close(story.likelihood(z, lengths).log_prob(x), short.likelihood(z).log_prob(x[:, :4]))
        torch.testing.assert_close(encode(story, (x, lengths)), encode(short, x[:, :4]))

    def test_full_length_is_no_length(self):
        story, x = story_of(**FRAMES), data_of("frames")
        torch.manual_seed(0)
        expected = log_weights(story, x)
        torch.manual_seed(0)
        torch.testing.assert_close(log_weights(story, (x, torch.full((6,), 4))), expected)

    @pytest.mark.parametrize(("kind", "filling"), [("frames", math.nan), ("frames", 1e6), ("tokens", 999)])
    def test_it_is_neither_refused_nor_a_seed(self, kind, filling):
        story = story_of(**(KINDS[kind] | {"shape": (4, 2 if kind == "frames" else 1)}))
        expected, found = (
            importance(story, (self.padded(kind, value), self.lengths), particles=30, progress=False)
            for value in (0, filling)
        )
        assert torch.equal(found.estimate, expected.estimate)
        assert torch.equal(found.pareto_k, expected.pareto_k)
        assert ppvae.fit(story, (self.padded(kind, filling), self.lengths), epochs=1, progress=False).loss[0] < math.inf

    def test_a_variance_that_is_fitted_is_that_of_the_steps_there_are(self):
        story = story_of(shape=(5, 2), likelihood=likelihoods.OptimalNormal)
        x, z = torch.randn(3, 10), torch.randn(3, 2)
        story.likelihood(z, torch.ones(3, dtype=torch.long)).log_prob(x)  # in training
        first, _ = story.likelihood.conditional(z, None, None)
        square = (x[:, :2] - first.mean.squeeze(-2)).square()
        torch.testing.assert_close(story.likelihood.emission.variance, square.mean())


class TestMean:
    def test_of_frames_is_the_rollout_that_is_fed_its_means(self):
        likelihood, z = sharpened(story_of(**FRAMES)).likelihood, torch.randn(6, 2)
        mean = likelihood(z).mean
        forced, _ = likelihood.conditional(z, mean.view(6, 4, 2)[:, :-1], None)
        torch.testing.assert_close(forced.mean.flatten(1), mean)

    def test_of_tokens_is_greedy(self):
        likelihood, z = sharpened(story_of(**TOKENS)).likelihood, torch.randn(6, 2)
        greedy = likelihood(z).mean
        forced, _ = likelihood.conditional(z, greedy.view(6, 3, 1)[:, :-1], None)
        mass = forced.base_dist.probs  # (6, 3, 1, tokens)
        assert torch.equal(mass.argmax(-1).float().flatten(1), greedy)


def test_a_toy_grammar_is_learnt_to_its_entropy():
    """Four sentences, equally likely, each told from the others before its end: -log p is log 4 nats."""
    sentences = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [2, 2, 0, 0], [1, 2, 0, 0]]).float()
    x, lengths = sentences.repeat(32, 1), torch.tensor([4, 4, 2, 2]).repeat(32)
    story = story_of(**(TOKENS | {"shape": (4, 1)}))
    history = ppvae.fit(story, (x, lengths), epochs=60, batch_size=32, lr=3e-2, progress=False)
    assert history.loss[0] > 2
    assert math.log(4) - 0.02 < history.loss[-1] < math.log(4) + 0.1


@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 1, 2])])
def test_importance_finds_the_evidence_that_quadrature_does(lengths):
    story = story_of(**TOKENS, latent=1).double()
    sharpened(story.likelihood)
    x = torch.tensor([[0.0, 1.0, 2.0], [2.0, 2.0, 2.0], [1.0, 0.0, 1.0]]).double()
    z = torch.linspace(-8, 8, 4001).double().view(-1, 1, 1)
    log_joint = story.likelihood(z, lengths).log_prob(x) + torch.distributions.Normal(0.0, 1.0).log_prob(z).squeeze(-1)
    expected = log_joint.logsumexp(0) + math.log(16 / 4000)
    torch.manual_seed(0)
    evidence = importance(story, x if lengths is None else (x, lengths), particles=5000)
    assert ((evidence.estimate - expected).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.1


@pytest.mark.parametrize(
    "prior", [partial(priors.GaussianMixture, components=3), partial(priors.VampPrior, components=3)]
)
def test_any_prior_serves(prior):
    story = story_of(**FRAMES, prior=prior)
    log_weights(story, (data_of("frames"), torch.tensor([1, 2, 3, 4, 2, 3]))).sum().backward()
    for name, parameter in story.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


def test_the_networks_see_scaled_frames():
    plain, scaled, x, z = story_of(**FRAMES), story_of(**FRAMES, input_scale=0.25), data_of("frames"), torch.randn(6, 2)
    torch.testing.assert_close(encode(scaled, 4 * x), encode(plain, x))
    past = x.view(6, 4, 2)[:, :-1]
    (expected, _), (steps, _) = (
        plain.likelihood.conditional(z, past, None),
        scaled.likelihood.conditional(z, 4 * past, None),
    )
    torch.testing.assert_close(steps.mean, expected.mean)


def test_the_output_may_start_at_the_mean_of_the_steps():
    x = 3 + data_of("frames")
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    options = {"shape": (4, 2), "latent": 2, "story": stories.sequence, "x": x, "output_bias": True}
    story = assemble(*parts, network=networks.MLP([]), **options)
    torch.testing.assert_close(story.likelihood.emission(torch.zeros(128)).mean, x.view(-1, 2).mean(0))


@pytest.mark.parametrize(
    ("likelihood", "maximum", "measure"),
    [
        (likelihoods.Categorical, 2, "mass"),
        (likelihoods.Binomial, 2, "mass"),
        (likelihoods.Bernoulli, None, "mass"),
        (likelihoods.Normal, None, "density"),
    ],
)
def test_a_sequence_has_a_mass_where_its_steps_have_one(likelihood, maximum, measure):
    story, x = story_of((3, 2), likelihood, maximum), torch.randint(0, 2, (2, 6)).float()
    for data in (x, (x, torch.tensor([1, 3]))):
        assert importance(story, data, particles=2, progress=False).measure == measure


def test_words_are_dropped_in_training_only():
    x = data_of("tokens")
    story = sharpened(story_of(**TOKENS, word_dropout=1.0))
    z, other = torch.randn(6, 2), x.clone()
    other[:, 0] = 2 - x[:, 0]
    steps = [story.likelihood.conditional(z, rows.view(6, 3, 1)[:, :-1], None)[0].mean for rows in (x, other)]
    assert torch.equal(*steps)  # nothing of the past is shown
    story.eval()
    steps = [story.likelihood.conditional(z, rows.view(6, 3, 1)[:, :-1], None)[0].mean for rows in (x, other)]
    assert torch.equal(steps[0][:, 0], steps[1][:, 0])
    assert not torch.isclose(steps[0][:, 1:], steps[1][:, 1:]).all()
    torch.testing.assert_close(story.likelihood(z).log_prob(x), story.likelihood(z).log_prob(x))
    half = story_of(**TOKENS, word_dropout=0.5).likelihood
    kept = (half._dropped(torch.ones(10_000, 3, 4)) == 1).all(-1).float().mean()
    assert abs(kept.item() - 0.5) < 4 * 0.5 / math.sqrt(30_000)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: story_of(**(FRAMES | {"shape": (8,)})), r"sequence story takes data of shape \(steps, features\)"),
        (lambda: story_of(**FRAMES, embedding=4), "embedding is of names"),
        (lambda: story_of(**FRAMES, word_dropout=1.5), r"word_dropout should be from 0 to 1, got 1\.5"),
        (
            lambda: log_weights(story_of(**FRAMES), (torch.zeros(2, 8), torch.tensor([1, 5]))),
            "from 1 to 4, got 5 in row 1",
        ),
        (
            lambda: log_weights(story_of(**FRAMES), (torch.zeros(2, 8), torch.tensor([0, 1]))),
            "from 1 to 4, got 0 in row 0",
        ),
        (
            lambda: log_weights(story_of(**FRAMES), (torch.zeros(2, 6), torch.tensor([1, 2]))),
            r"padded rows should have shape \(2, 8\), got \(2, 6\)",
        ),
        (
            lambda: log_weights(story_of(**FRAMES), (torch.zeros(2, 8), torch.ones(2))),
            "lengths should be whole numbers",
        ),
        (lambda: ppvae.fit(story_of(**TOKENS), torch.full((4, 3), 3.0), progress=False), "site 'x' observes values"),
        (lambda: ppvae.fit(story_of(**BITS), torch.full((4, 6), 0.5), progress=False), "site 'x' observes values"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value).split("Trace Shapes")[0].strip()  # which Pyro adds to what a program raises
