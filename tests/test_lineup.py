"""What a contender's row is made of, against the same things done by hand."""

from functools import partial

import pytest
import torch

import ppvae
from ppvae import data, lineup, metrics
from ppvae.inference import elbo, importance, prior_sampling
from ppvae.inference.comparison import group_results
from ppvae.inference.programs import codes, reconstruct
from ppvae.models import likelihoods, priors

OPTIONS = {"latent": 3, "epochs": 2, "batch_size": 500, "lr": 0.01, "particles": 30, "progress": False}


def digits(rows=40, **view):
    return lineup.view_of("digits", "data", None, rows, **view)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr("ppvae.lineup.HIDDEN", [8])


def test_a_row_is_what_its_names_say():
    build = lineup.vae(priors.StandardNormal, partial(likelihoods.Binomial, total_count=16))
    found = lineup.enter(lineup.Contender("one", build), digits(), seed=3, **OPTIONS)
    seen = digits()
    torch.manual_seed(3)
    story = build(seen, 3)
    history = ppvae.fit(story, seen.train, objective=elbo, epochs=2, batch_size=500, lr=0.01, seed=3, valid=seen.valid)
    assert found.history.loss == history.loss
    assert found.history.valid == history.valid
    assert torch.equal(found.result.evidence.estimate, importance(story, seen.test, 30, seed=3).estimate)
    assert torch.equal(found.result.naive.estimate, prior_sampling(story, seen.test, 30, seed=3).estimate)
    (row,) = group_results([found.result])[0].rows
    naive = found.result.naive.summary()
    assert row.mean["naive_neg_log_p"] == -naive["log_p"]
    assert row.mean["naive_monte_carlo_error"] == naive["monte_carlo_error"]
    measures = found.result.measures
    labelled = (codes(story, seen.train), seen.train_labels, codes(story, seen.test), seen.test_labels)
    assert measures["neighbour"] == metrics.neighbour_accuracy(*labelled)
    assert measures["probe"] == metrics.probe_accuracy(*labelled)
    error = metrics.reconstruction_error(seen.test, reconstruct(story, seen.test), contrast=16)
    assert measures["reconstruction"] == pytest.approx(error)
    assert measures["active_units"] == metrics.active_units(codes(story, seen.test))
    assert found.result.group == str(seen.observation)


def test_seeds_start_from_other_weights_and_contenders_of_one_seed_from_the_same():
    contender = lineup.Contender("one", lineup.vae(priors.StandardNormal, likelihoods.Normal), {"scaling": "unit"})
    found = list(lineup.compete([contender, contender], digits, seeds=2, **OPTIONS))
    losses = [entry.history.loss for entry in found]
    assert losses[0] == losses[2]
    assert losses[1] == losses[3]
    assert losses[0] != losses[1]


def test_the_view_is_resampled_at_every_pass():
    contender = lineup.Contender(
        "one", lineup.vae(priors.StandardNormal, likelihoods.Bernoulli), {"binarisation": "dynamic"}
    )
    (found,) = lineup.compete([contender], digits, seeds=1, **OPTIONS)  # grey pixels would be refused
    assert found.result.evidence.measure == "mass"


def test_a_density_of_counts_stands_in_a_group_of_its_own():
    contender = lineup.Contender("one", lineup.vae(priors.StandardNormal, likelihoods.Normal))
    (found,) = lineup.compete([contender], digits, seeds=1, **(OPTIONS | {"lr": 1e-4}))
    assert found.result.group.endswith("scored as a density")


def test_the_line_up_of_the_digits():
    contenders = {c.name: c for c in lineup.lineup(data.load("digits").observation)}
    assert len(contenders) == 15
    fixed, learned = contenders["N(0, I), Normal(c = 0.05), ELBO"], contenders["N(0, I), Normal(c learned), ELBO"]
    seen = digits(scaling="unit")
    assert not fixed.build(seen, 2).likelihood.log_scale.requires_grad
    assert learned.build(seen, 2).likelihood.log_scale.requires_grad
    assert all((c.objective is lineup.IWAE) == name.endswith("IWAE") for name, c in contenders.items())
    assert lineup.IWAE.keywords == {"particles": 20}
    mixtures = {name for name, c in contenders.items() if c.evidence and "GaussianMixture" in str(c.build(seen, 2))}
    assert mixtures == {name for name in contenders if name.startswith("mixture")}
    assert {name for name, c in contenders.items() if not c.evidence} == {
        "PCA",
        "linear autoencoder",
        "deep autoencoder",
        "autoencoder, N(0, I) on z (MAP)",
    }


@pytest.mark.parametrize(("kind", "maximum", "scaling"), [("binary", 1, "none"), ("real", None, "none")])
def test_other_kinds_of_data_have_a_line_up_too(kind, maximum, scaling):
    observation = data.Observation("a", kind, (4,), maximum=maximum, scaling=scaling)
    names = [contender.name for contender in lineup.lineup(observation)]
    assert any("Bernoulli" in name for name in names) == (kind == "binary")
    assert not any("Binomial" in name for name in names)
    assert "PCA" in names
