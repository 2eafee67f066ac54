"""Blocks of particles: their sizes, the memory that bounds them, and that figures do not depend on how they are run."""

import pytest
import torch
from torch import nn

from ppvae import networks
from ppvae.compilation import steps
from ppvae.inference import importance, prior_sampling, refined_sampling
from ppvae.inference.evidence import blocks
from ppvae.inference.evidence.blocks import Budget, estimate, rounded, sizes
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.weights import log_weights
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian


def test_sizes_cover_the_particles_and_are_few():
    for particles in (1, 100, 4096, 4097, 5000, 100_000):
        found = sizes(particles, 4096)
        assert sum(found) == particles
        assert max(found) <= 4096
        assert len(set(found)) <= 2
        assert min(found) > 0
    assert [rounded(count, 10**6) for count in (2, 100, 129, 1024, 1025, 5000)] == [2, 128, 256, 1024, 2048, 5120]
    assert rounded(900, 700) == 700


def small_story(hidden=8):
    torch.manual_seed(0)
    decoder, encoder = networks.mlp(2, [hidden], 5), networks.mlp(5, [8], 4)
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), encoders.DiagonalNormal(encoder))


def test_a_block_takes_no_more_memory_than_it_may(monkeypatch):
    """And a smaller one is another set of draws with the same law."""
    story, x = small_story(hidden=2000), torch.bernoulli(torch.full((2, 5), 0.4))
    asked = []

    def weigh(story, datum, particles):
        asked.append(particles)
        return log_weights(story, datum, particles=particles)

    options = (prepared(story, (x,)), weigh, Budget(4000), 0, False, "by hand")
    whole = estimate(*options)
    assert asked[2:] == [4000, 4000]  # after two of a few, by which the memory is told
    monkeypatch.setattr(blocks, "MEMORY", 2**23)
    asked.clear()
    parts = estimate(*options)
    assert max(asked) * 2000 * 4 * 2 <= 2**23  # the hidden layer, before and after its activation
    assert len(asked) > 10
    error = (whole.standard_error.square() + parts.standard_error.square()).sqrt()
    assert ((whole.estimate - parts.estimate).abs() < 4.5 * error).all()


@pytest.mark.parametrize("way", ["replayed", "compiled"])
def test_figures_are_those_of_ordinary_python(way, monkeypatch):
    """To the rounding of the arithmetic, for every way to weigh."""
    known = LinearGaussian()
    x, story = known.data(2), known.story(widen=1.3)

    estimators = {
        "importance": lambda: importance(story, x, particles=300, progress=False),
        "defensive": lambda: importance(story, x, particles=300, defensive=0.2, progress=False),
        "to a target": lambda: importance(story, x, particles=100, target_error=0.05, progress=False),
        "prior_sampling": lambda: prior_sampling(story, x, particles=300, progress=False),
        "refined_sampling": lambda: refined_sampling(
            story, x, particles=300, num_steps=5, guide_share=0.3, progress=False
        ),
    }
    chosen = estimators if way == "replayed" else {"importance": estimators["importance"]}
    plain = {name: estimator() for name, estimator in chosen.items()}
    ran, settled = [], steps.Steps.__init__

    def init(self, *args, **options):
        settled(self, *args, **options)
        self.way = way

    graph = steps.Gradients.__call__

    def called(self, *tensors, **options):
        ran.append(way)
        return graph(self, *tensors, **options)

    monkeypatch.setattr(steps.Steps, "__init__", init)
    monkeypatch.setattr(steps.Gradients, "__call__", called)
    for name, estimator in chosen.items():
        before = len(ran)
        found = estimator()
        assert len(ran) >= before + len(x), name
        for column in ("estimate", "standard_error", "elbo", "particles"):
            torch.testing.assert_close(getattr(found, column), getattr(plain[name], column), rtol=1e-10, atol=1e-10)


def test_what_cannot_be_traced_is_weighed_as_it_is(monkeypatch):
    monkeypatch.setattr(steps, "SHORT", 0.0)

    class Deciding(nn.Linear):
        def forward(self, z):
            out = super().forward(z)
            return out if out.sum() > 0 else out + 0.0

    story = VAE(
        priors.StandardNormal(2), likelihoods.Bernoulli(Deciding(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4))
    )
    x = torch.bernoulli(torch.full((20, 5), 0.4))
    found = importance(story, x, particles=50, progress=False)  # neither an error nor a word
    assert found.estimate.isfinite().all()
    torch.testing.assert_close(
        found.rows(slice(3, 4)).estimate, importance(story, x[3:4], particles=50, progress=False).estimate
    )


def test_the_final_draws_are_not_the_pilots():
    """Draws that decided how many there should be, used again, would bias the figure: every block has new ones."""
    drawn = []

    def weigh(story, datum, particles):
        drawn.append(torch.randn(particles, 1).double())
        return drawn[-1]

    estimate(prepared(small_story(), torch.ones(1, 5)), weigh, Budget(128, target_error=1.0), 0, False, "by hand")
    pilot, final = drawn[2:]  # after two of a few, by which the memory is told
    assert len(pilot) == len(final) == 128
    assert not torch.isin(pilot, final).any()


def test_two_pilots_of_one_size_draw_anew(monkeypatch):
    """And no stream of a datum is begun twice."""
    begun, begin = [], blocks.begin_stream
    monkeypatch.setattr(blocks, "begin_stream", lambda key, label: begun.append((key, label)) or begin(key, label))
    known = LinearGaussian()
    options = {"target_error": 0.03, "max_particles": 5000, "progress": False}
    importance(known.story(widen=2.0), known.data(2), particles=4, **options)
    assert sum("pilot 1 " in label for _, label in begun) >= 2  # there were several pilots
    assert len(set(begun)) == len(begun)
