"""One contract for every part: shapes, gradients, densities that integrate to one, samples that match, use anywhere."""

import copy
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import ENCODERS, LIKELIHOODS, PARTS, PRIORS, data_of, story_of
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import ppvae
from ppvae import networks
from ppvae.inference import elbo, iwae, log_weights
from ppvae.models import Autoencoder, assemble, encoders, likelihoods, priors


def test_no_part_is_left_out():
    assert set(priors.__all__) == {*(name.split()[0] for name in PRIORS), "Flat"}
    assert set(likelihoods.__all__) == {name.split()[0] for name in LIKELIHOODS}
    assert set(encoders.__all__) == {name.split()[0] for name in ENCODERS}


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " ".join(parts.values()))
class TestStories:
    def test_log_weights_have_one_value_per_particle_and_datum(self, parts):
        log_w = log_weights(story_of(**parts), data_of(**parts), particles=3)
        assert log_w.shape == (3, 6)
        assert log_w.isfinite().all()

    @pytest.mark.parametrize("objective", [elbo, partial(iwae, particles=3)])
    def test_the_gradient_reaches_every_parameter(self, parts, objective):
        story = story_of(**parts)
        objective(story, data_of(**parts)[:5]).backward()  # an odd number of signs has no sum of 0: a Laplace's slopes
        for name, parameter in story.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name

    def test_fit_lowers_the_loss(self, parts):
        """Before and after with the same noise.

        Over 12 seeds of the least certain parts the gain was at least 12 times its standard deviation over the noise,
        but for Poisson's counts of large rates, which vary as the loss before does: over 40 seeds and 10 noises each
        none of theirs was below 1.8 nats.
        """
        story, x = story_of(**parts).eval(), data_of(**parts).repeat(20, 1)

        def loss():
            torch.manual_seed(1)
            return elbo(story, x.repeat(10, 1)).item()

        before = loss()
        ppvae.fit(story, x, epochs=40, lr=2e-2, progress=False)
        assert loss() < before

    def test_plain_svi_trains_every_parameter(self, parts):
        """With Pyro's own tools, never a silent no-op."""
        story, x = story_of(**parts), data_of(**parts)
        before = {name: parameter.clone() for name, parameter in story.named_parameters()}
        svi = SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(60)]
        for name, parameter in story.named_parameters():
            assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
        assert sum(losses[-10:]) < sum(losses[:10])

    def test_save_and_load(self, parts, tmp_path):
        story, x = story_of(**parts), data_of(**parts)
        ppvae.fit(story, x, epochs=2, progress=False)
        torch.save(story.state_dict(), tmp_path / "weights.pt")
        again = story_of(
            **parts, seed=1
        ).eval()  # as fit leaves a story; what is drawn elsewhere than in the weights differs
        again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        torch.manual_seed(1)
        expected = log_weights(story, x)
        torch.manual_seed(1)
        assert torch.equal(log_weights(again, x), expected)

    def test_float64_all_the_way(self, parts):
        assert log_weights(story_of(**parts).double(), data_of(**parts).double()).dtype == torch.float64

    def test_generation_is_the_model_without_its_observation(self, parts):
        draws = pyro.poutine.uncondition(story_of(**parts).model)(torch.empty(9, 2))
        assert draws.shape == (9, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: likelihoods.Binomial(nn.Identity(), 0), "total_count should be at least 1, got 0"),
        (lambda: likelihoods.Normal(nn.Identity(), 0.0), "variance should be positive and finite, got 0"),
        (lambda: likelihoods.Normal(nn.Identity(), math.nan), "variance should be positive"),
        (lambda: priors.GaussianMixture(2, 0), "components should be at least 1"),
        (lambda: priors.Flat(0), "latent should be at least 1"),
        (lambda: networks.mlp(2, [0], 3), "at least 1 unit"),
    ],
)
def test_arguments_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


class UsersPrior(nn.Module):
    """A prior of a user's own, in no registry, with a parameter."""

    def __init__(self, latent):
        super().__init__()
        self.loc = nn.Parameter(torch.ones(latent))

    def forward(self):
        return dist.StudentT(5.0, self.loc, 1.0).to_event(1)


def test_a_users_own_prior_works_everywhere():
    torch.manual_seed(0)
    story = assemble(
        UsersPrior, likelihoods.Normal, encoders.DiagonalNormal, shape=(2,), latent=2, network=networks.MLP([8])
    )
    x = 2 + torch.randn(50, 2)
    ppvae.fit(story, x, epochs=5, lr=1e-2, progress=False)
    assert (story.prior.loc != 1).all()
    evidence = ppvae.inference.importance(story, x[:5], particles=100)
    assert evidence.estimate.isfinite().all()
    assert ppvae.inference.prior_sampling(story, x[:5], particles=100).estimate.isfinite().all()
    before = story.prior.loc.clone()
    SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    assert (story.prior.loc != before).all()


def moved(story, before):
    return [not torch.equal(old, new) for old, new in zip(before, story.parameters(), strict=True)]


def test_two_stories_in_one_process_leave_each_other_alone():
    first, second = story_of(), story_of()
    third = copy.deepcopy(first)
    x = torch.randn(6, 2)
    saved = [[p.clone() for p in story.parameters()] for story in (first, second, third)]
    optimise = {
        id(story): SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        for story in (first, second, third)
    }
    optimise[id(first)].step(x)
    trainable = [p.requires_grad for p in first.parameters()]
    assert moved(first, saved[0]) == trainable
    assert not any(moved(second, saved[1]))
    assert not any(moved(third, saved[2]))
    optimise[id(third)].step(x)
    assert moved(third, saved[2]) == trainable
    assert not any(moved(second, saved[1]))


def test_the_model_of_one_story_and_the_guide_of_another_train_together():
    """Two names in one trace: neither hides the other from Pyro's optimiser."""
    first, second, x = story_of(), story_of(), torch.randn(6, 2)
    before = [[p.clone() for p in story.parameters()] for story in (first, second)]
    svi = SVI(first.model, second.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(x)
    names = [name for name, p in first.named_parameters()]
    assert {n for n, m in zip(names, moved(first, before[0]), strict=True) if m} == {
        n for n in names if n.startswith("likelihood.network")
    }
    assert {n for n, m in zip(names, moved(second, before[1]), strict=True) if m} == {
        n for n in names if n.startswith("encoder")
    }


def test_a_story_made_where_a_dead_one_lay_has_its_own_parameters():
    x = torch.randn(6, 2)
    for _ in range(5):
        story = story_of()
        before = [p.clone() for p in story.parameters()]
        SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
        assert any(moved(story, before))
        del story


def test_a_part_swapped_after_a_fit_is_trained_too():
    story, x = story_of(), torch.randn(6, 2)
    SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    story.prior = UsersPrior(2)
    story.likelihood = likelihoods.Normal(networks.mlp(2, [8], 2))
    before = [p.clone() for p in story.likelihood.network.parameters()]
    SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    assert all(not torch.equal(a, b) for a, b in zip(before, story.likelihood.network.parameters(), strict=True))


@pytest.mark.parametrize("draws", [100, pytest.param(400, marks=pytest.mark.soak)])
def test_nuts_runs_on_a_story_and_finds_its_posterior(draws):
    from pyro.infer import MCMC, NUTS

    from ppvae.selfcheck.analytic import LinearGaussian

    known = LinearGaussian()
    story, x = known.story(), known.data(3)
    mcmc = MCMC(NUTS(story.model), num_samples=draws, warmup_steps=50, disable_progbar=True)
    torch.manual_seed(0)
    mcmc.run(x)
    z = mcmc.get_samples()["z"]  # (samples, batch, latent)
    scale = known.posterior_covariance.diagonal().sqrt()
    error = scale / math.sqrt(draws / 4)  # autocorrelation: count at least a quarter of the draws
    assert ((z.mean(0) - known.posterior_mean(x)).abs() < 4 * error).all()
    assert ((z.std(0) / scale - 1).abs() < 4 / math.sqrt(2 * draws / 4)).all()


def test_an_autoencoder_is_map_with_a_proper_prior_and_maximum_likelihood_with_a_flat_one():
    x, network = torch.randn(6, 2), networks.mlp(2, [4], 2)
    likelihood = likelihoods.Normal(networks.mlp(2, [4], 2), variance=0.2)
    code = network(x)
    squared = (x - likelihood.network(code)).square().sum(-1)
    log_likelihood = -squared / 0.4 - math.log(2 * math.pi * 0.2)
    log_prior = -code.square().sum(-1) / 2 - math.log(2 * math.pi)
    flat = log_weights(Autoencoder(priors.Flat(2), likelihood, network), x)[0]
    proper = log_weights(Autoencoder(priors.StandardNormal(2), likelihood, network), x)[0]
    torch.testing.assert_close(flat, log_likelihood)
    torch.testing.assert_close(proper, log_likelihood + log_prior)


class UsersStory(nn.Module):
    """A story of a user's own, as Pyro's tutorials write it: nothing of ours in it."""

    def __init__(self):
        super().__init__()
        self.prior, self.decode, self.encode = UsersPrior(2), nn.Linear(2, 3), nn.Linear(3, 4)

    def model(self, x):
        pyro.module("users", self)
        with pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("code", self.prior())
            pyro.sample("seen", dist.Normal(self.decode(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("users", self)
        loc, log_scale = self.encode(x).chunk(2, -1)
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("code", dist.Normal(loc, log_scale.exp()).to_event(1))


def test_a_users_own_story_works_everywhere():
    torch.manual_seed(0)
    story, x = UsersStory(), torch.randn(40, 3)
    before = [p.clone() for p in story.parameters()]
    SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    assert all(moved(story, before))
    before = [p.clone() for p in story.parameters()]
    ppvae.fit(story, x, epochs=300, lr=1e-2, progress=False)
    assert all(moved(story, before))
    assert log_weights(story, x, particles=5).shape == (5, 40)
    with torch.no_grad():
        story.encode.bias[2:] += 0.7  # twice as wide as the posterior or so: no weight is large
    near = x[:4].clamp(-1, 1)  # where draws from the prior come too
    evidence = ppvae.inference.importance(story, near, particles=2000)
    naive = ppvae.inference.prior_sampling(story, near, particles=20_000)
    error = (evidence.standard_error**2 + naive.standard_error**2).sqrt()
    assert evidence.pareto_k.max() < 0  # -0.72 over 25 seeds, standard deviation 0.05
    assert ((evidence.estimate - naive.estimate).abs() < 5 * error).all()  # two ways to one figure, for four rows
    assert error.max() < 0.1  # the larger of the two at most 0.034 over 25 seeds, half of them above 0.029
