"""What a contender's row is made of, against the same things done by hand."""

from functools import partial

import pytest
import torch

import ppvae
from ppvae import data, networks
from ppvae.data.observation import Observation
from ppvae.evaluation import metrics
from ppvae.evaluation.comparison import group_results
from ppvae.evaluation.scoring import score
from ppvae.experiments import lineup
from ppvae.experiments.options import fit_parser, merged
from ppvae.experiments.trust import checked
from ppvae.inference import elbo, prior_sampling
from ppvae.inference.program.codes import encode, prior_variance, reconstruct
from ppvae.inference.program.traces import batch_for
from ppvae.models import assemble, encoders, likelihoods, linear, priors
from ppvae.plots import figures

COMMON = {"latent": 3, "epochs": 2, "batch_size": 500, "lr": 0.01, "network": {"init_args": {"hidden": [8]}}}


def digits(**view):
    return lineup.view_of(merged(fit_parser(), view), 40)


def made(**lines):
    """Contenders from what somebody types."""
    return lineup.contenders(lines, merged(fit_parser(), COMMON))


def written(lines):
    """Contenders of a file with such lines."""
    return lineup.contenders(checked("a.yaml", {"contender": lines})["contender"], merged(fit_parser(), COMMON))


def compete(*contenders, seeds=1):
    return list(lineup.compete(contenders, seeds=seeds, particles=30, test_rows=40, progress=False))


def test_a_row_is_what_its_words_say():
    (contender,) = made(one="--prior GaussianMixture --prior.components 4")
    found = lineup.enter(contender, digits(), seed=3, particles=30, progress=False)
    seen = digits()
    torch.manual_seed(3)
    story = assemble(
        partial(priors.GaussianMixture, components=4),
        partial(likelihoods.Binomial, total_count=16),
        encoders.DiagonalNormal,
        shape=(1, 8, 8),
        latent=3,
        network=networks.MLP([8]),
        input_scale=1 / 16,
    )
    history = ppvae.fit(story, seen.train, objective=elbo, epochs=2, batch_size=500, lr=0.01, seed=3, valid=seen.valid)
    assert found.history.loss == history.loss
    assert found.history.valid == history.valid
    assert torch.equal(found.result.evidence.estimate, score(story, (seen.test,), particles=30, seed=3).estimate)
    assert torch.equal(found.result.naive.estimate, prior_sampling(story, seen.test, particles=30, seed=3).estimate)
    (row,) = group_results([found.result])[0].rows
    naive = found.result.naive.summary()
    assert row.mean["naive_neg_log_p"] == -naive["log_p"]
    assert row.mean["naive_monte_carlo_error"] == naive["monte_carlo_error"]
    measures = found.result.measures
    labelled = (encode(story, seen.train), seen.train_labels, encode(story, seen.test), seen.test_labels)
    assert measures["neighbour"] == metrics.neighbour_accuracy(*labelled)
    assert measures["probe"] == metrics.probe_accuracy(*labelled)
    error = metrics.reconstruction_error(seen.test, reconstruct(story, seen.test), contrast=16)
    assert measures["reconstruction"] == pytest.approx(error)
    assert measures["active_units"] == metrics.active_units(encode(story, seen.test), prior_variance(story, seen.test))
    assert found.result.observation == seen.observation
    assert str(found.result.contract) == str(seen.observation)


def test_seeds_start_from_other_weights_and_contenders_of_one_seed_from_the_same():
    (contender,) = made(one="--scaling unit")
    found = compete(contender, contender, seeds=2)
    losses = [entry.history.loss for entry in found]
    assert losses[0] == losses[2]
    assert losses[1] == losses[3]
    assert losses[0] != losses[1]


def test_the_view_is_resampled_at_every_pass():
    (found,) = compete(*made(one="--binarisation dynamic"))  # grey pixels would be refused
    assert found.result.evidence.measure == "mass"


def test_a_density_of_counts_stands_with_densities_and_apart_from_masses():
    density, mass, scaled = compete(
        *made(one="--likelihood Normal --lr 1e-4", two="", three="--scaling unit --likelihood Normal")
    )
    assert density.result.contract.title == scaled.result.contract.title == "digits, on the raw scale"
    assert density.result.contract.terms == scaled.result.contract.terms
    assert density.result.contract.terms != mass.result.contract.terms


def test_what_cannot_be_made_for_these_data_is_left_out_and_named():
    found = compete(*made(one="--scaling unit --likelihood Binomial", two=""))
    assert isinstance(found[0], lineup.Failed)
    assert str(found[0]).startswith(
        "one, seed 0: the likelihood Binomial could not be made: total_count should be given"
    )
    assert isinstance(found[1], lineup.Fitted)


def test_a_point_mass_has_evidence_by_a_density_of_its_codes_and_a_flat_prior_without_one_has_none():
    for entry in compete(*made(one="--encoder PointMass", two="--encoder PointMass --prior Flat", three="--story pca")):
        assert isinstance(entry.story.prior, priors.ExPost)
        assert entry.result.evidence.estimate.isfinite().all()
        assert entry.result.evidence.elbo.isnan().all()
        assert entry.result.naive.estimate.isfinite().all()
        (row,) = group_results([entry.result])[0].rows
        assert torch.tensor(row.mean["neg_elbo"]).isnan()
    (flat,) = compete(*made(one="--prior Flat"))
    assert flat.result.evidence is None
    assert torch.tensor(flat.result.measures["precision"]).isnan()


def test_wrong_words_name_the_contender():
    with pytest.raises(ValueError, match="contender 'mine': unknown prior 'Gausian'"):
        made(mine="--prior Gausian")
    with pytest.raises(ValueError, match="should be int, got many"):
        made(mine="--prior GaussianMixture --prior.components many")


def test_a_configuration_is_what_the_same_words_are():
    words = {
        "one": "--prior GaussianMixture --prior.components 4 --lr 0.1",
        "two": "--objective iwae --objective.particles 5 --network.hidden [3]",
        "three": "--network Convolutional --scaling unit --likelihood Normal --likelihood.learned true",
        "four": "--label null --latent 5",
        "five": "",
    }
    options = {
        "one": {"prior": {"class_path": "GaussianMixture", "init_args": {"components": 4}}, "lr": 0.1},
        "two": {"objective": "iwae", "objective_args": {"particles": 5}, "network": {"hidden": [3]}},
        "three": {
            "network": "Convolutional",
            "scaling": "unit",
            "likelihood": {"class_path": "Normal", "init_args": {"learned": True}},
        },
        "four": {"label": None, "latent": 5},
        "five": None,
    }
    assert written(options) == made(**words)
    assert [contender.options.epochs for contender in written(options)] == [2] * 5  # what all share
    assert [contender.options.latent for contender in written(options)] == [3, 3, 3, 5, 3]


def test_a_contender_changes_what_all_share_for_itself_alone():
    lines = {"one": {"network": {"hidden": [3]}, "objective_args": {}}, "two": {}}
    before = str(lines)
    one, two = lineup.contenders(lines, merged(fit_parser(), COMMON))
    assert (one.options.network.init_args.hidden, two.options.network.init_args.hidden) == ([3], [8])
    assert str(lines) == before


def test_a_wrong_option_names_the_contender():
    with pytest.raises(ValueError, match=r"^contender 'mine': --latent should be int, got many$"):
        written({"plain": {}, "mine": {"latent": "many"}})
    with pytest.raises(ValueError, match=r"^a\.yaml: contender 'mine': unknown prior 'Gausian'"):
        written({"mine": {"prior": "Gausian"}})
    with pytest.raises(
        ValueError, match=r"^contender 'mine': --prior\.components of GaussianMixture should be int, got x"
    ):
        written({"mine": {"prior": {"class_path": "GaussianMixture", "init_args": {"components": "x"}}}})
    with pytest.raises(
        ValueError, match=r"^contender 'mine': --prior GaussianMixture takes components \(int\), got n$"
    ):
        written({"mine": {"prior": {"class_path": "GaussianMixture", "init_args": {"n": 3}}}})
    with pytest.raises(ValueError, match=r"^contender 'mine': .*nonsense"):
        written({"mine": {"nonsense": 3}})


def test_a_line_up_of_ones_own_is_a_file_of_names_and_options(tmp_path):
    (tmp_path / "mine.yaml").write_text("plain:\nmixed: {prior: GaussianMixture}\n3: {latent: 3}\n")
    seen = data.load_dataset("digits").observation
    assert lineup.lineup(str(tmp_path / "mine.yaml"), seen) == {
        "plain": {},
        "mixed": {"prior": {"class_path": "ppvae.models.priors.GaussianMixture"}},
        "3": {"latent": 3},
    }
    (tmp_path / "bad.yaml").write_text("- a\n- b\n")
    with pytest.raises(ValueError, match=r"bad\.yaml should hold contenders as `name: {options of ppvae fit}`"):
        lineup.lineup(str(tmp_path / "bad.yaml"), seen)
    with pytest.raises(ValueError, match="unknown line-up 'prior': it should be one of priors, "):
        lineup.lineup("prior", seen)


def test_every_line_up_of_the_package_can_be_parsed():
    for name in lineup.names():
        lines = lineup.lineup(name, data.load_dataset("digits").observation)
        assert len(lineup.contenders(lines, fit_parser().get_defaults())) == len(lines) >= 8


def test_the_line_up_of_the_digits():
    lines = lineup.lineup("overview", data.load_dataset("digits").observation)
    contenders = {c.name: c.options for c in lineup.contenders(lines, fit_parser().get_defaults())}
    assert len(contenders) == 15
    assert contenders["N(0, I), Normal(c = 0.05), ELBO"].likelihood.init_args.learned is False
    assert contenders["N(0, I), Normal(c learned), ELBO"].likelihood.init_args.learned is True
    for name, options in contenders.items():
        assert (options.objective == "iwae") == name.endswith("IWAE")
        assert ("GaussianMixture" in options.prior.class_path) == name.startswith("mixture")
        assert (options.latent == 2) == name.endswith("z = 2")
    assert contenders["N(0, I), Bernoulli, IWAE"].objective_args == {"particles": 20}
    assert not any(
        name.endswith("z = 2") for name in lineup.lineup("overview", data.load_dataset("digits").observation, latent=2)
    )


@pytest.mark.parametrize(("kind", "maximum", "scaling"), [("binary", 1, "none"), ("real", None, "none")])
def test_other_kinds_of_data_have_a_line_up_too(kind, maximum, scaling):
    observation = Observation("a", kind, (4,), maximum=maximum, scaling=scaling)
    names = list(lineup.lineup("overview", observation))
    assert any("Bernoulli" in name for name in names) == (kind == "binary")
    assert not any("Binomial" in name for name in names)
    assert "PCA" in names


def test_a_contender_sees_the_data_in_its_own_way_and_no_other_data():
    found = compete(*made(one="--story semi_supervised --labelled 50", two="--story semi_supervised"))
    assert "50 labels told" in found[0].result.contract.title
    assert "labels told" not in found[1].result.contract.title
    assert "p(x, labels)" in found[1].result.contract.title
    assert not torch.equal(found[0].result.evidence.estimate, found[1].result.evidence.estimate)
    with pytest.raises(ValueError, match="contender 'one': --data belongs to the comparison, not to one contender"):
        made(one="--data other.npz")


def test_a_code_that_was_told_its_label_has_no_accuracy():
    told, given = compete(*made(one="--story semi_supervised", two="--story conditional"))
    assert 0 < told.result.measures["neighbour"] < 1
    assert torch.tensor(given.result.measures["neighbour"]).isnan()


def test_what_is_solved_or_started_from_data_sees_them_drawn():
    (found,) = compete(*made(one="--binarisation dynamic --story ppca"))
    seen = digits(binarisation="dynamic")
    assert set(seen.drawn().train.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(seen.drawn().train, seen.drawn().train)
    expected = linear.fit_ppca(seen.drawn().train, 3)
    torch.testing.assert_close(found.story.log_evidence(seen.test), expected.log_evidence(seen.test))


@pytest.mark.parametrize("story", ["hierarchical", "ladder", "semi_supervised", "vae"])
def test_an_ex_post_prior_is_fitted_to_the_codes_that_it_is_of(story):
    (found,) = compete(*made(one=f"--story {story} --prior ExPost"))
    assert found.result.evidence.estimate.isfinite().all()
    assert (found.story.prior.loc != 0).all()


def test_the_plane_is_decoded_of_a_story_whose_z_has_that_prior():
    def drawn(*words):
        found = compete(*made(**{str(place): word for place, word in enumerate(words)}))
        return set(figures.of_comparison(found, group_results([entry.result for entry in found])))

    assert "decoded-grid" in drawn("--latent 2")
    others = drawn("--latent 2 --story hierarchical", "--latent 2 --story conditional", "--latent 2 --prior Laplace")
    assert others == drawn("--latent 2") - {"decoded-grid"}


def test_a_contender_may_be_pretrained():
    words = "--story autoencoder --prior Flat --scaling unit --network.hidden [8]"
    plain, pretrained = compete(*made(one=words, two=f"{words} --pretrain 3"))
    assert pretrained.history.loss[0] < plain.history.loss[0]


def test_an_ex_post_prior_is_of_many_draws_for_a_datum():
    """The mean and the covariance of ten draws for each of a thousand codes, not of the codes."""
    (found,) = compete(*made(one="--prior ExPost --prior.components 1"))
    seen = batch_for(found.story, **digits().tensors("train"))
    q = found.story.encoder(*seen)
    spread = torch.cov(q.mean.T).diagonal() + q.variance.mean(0)
    covariance = found.story.prior().component_distribution.covariance_matrix[0]
    draws = 10_000 // len(seen[0]) * len(seen[0])
    torch.testing.assert_close(covariance.diagonal(), spread, rtol=4 * (2 / draws) ** 0.5, atol=0)
