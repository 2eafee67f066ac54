"""One contract for every story: it works wherever a VAE does."""

import copy
from functools import partial

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO

import ppvae
from ppvae import networks
from ppvae.experiments.options import names
from ppvae.inference import elbo, enumerated_elbo, importance, iwae, laplace_sampling, log_weights, prior_sampling
from ppvae.inference.program.codes import encode, is_deterministic, reconstruct, sample
from ppvae.models import assemble, encoders, likelihoods, priors, stories


def batch(labels=None):
    """Six data of four features, with labels where the story asks for them."""
    x = torch.randn(6, 4)
    return x if labels is None else (x, torch.tensor(labels))


def made(story, prior=priors.StandardNormal, seed=0, **options):
    torch.manual_seed(seed)
    options = {"shape": (4,), "latent": 2, "network": networks.MLP([8]), **options}
    return assemble(prior, likelihoods.Normal, encoders.DiagonalNormal, story=story, **options)


GIVEN = [0, 1, 2, 2, 1, 0]
layers = {"above": [2], "between": [5]}
STORIES = {  # how it is made, its data, and the size of its code
    "vae": (partial(made, stories.vae), batch, 2),
    "hierarchical": (partial(made, partial(stories.hierarchical, **layers)), batch, 4),
    "hierarchical, three layers": (partial(made, partial(stories.hierarchical, above=[3, 1], between=[5])), batch, 6),
    "hierarchical, one layer": (partial(made, partial(stories.hierarchical, above=[])), batch, 2),
    "ladder": (partial(made, partial(stories.ladder, **layers)), batch, 4),
    "conditional": (partial(made, stories.conditional, classes=3), partial(batch, GIVEN), 2),
    "conditional prior": (
        partial(made, partial(stories.conditional, prior_given_labels=True), classes=3),
        partial(batch, GIVEN),
        2,
    ),
    "conditional on covariates": (
        partial(made, stories.conditional, classes=3),
        lambda: (torch.randn(6, 4), torch.rand(6, 3)),
        2,
    ),
    "semi-supervised": (partial(made, stories.semi_supervised, classes=3), partial(batch, [0, -1, 2, -1, -1, 1]), 5),
    "mixture": (partial(made, stories.mixture, prior=partial(priors.GaussianMixture, components=3)), batch, 5),
    "sequence": (partial(made, partial(stories.sequence, hidden=8), shape=(2, 2)), batch, 2),
    "sequence, of lengths": (
        partial(made, partial(stories.sequence, hidden=8), shape=(2, 2)),
        partial(batch, [1, 2, 2, 1, 2, 1]),
        2,
    ),
    "autoencoder": (partial(made, stories.autoencoder), batch, 2),
    "sparse": (partial(made, stories.sparse), batch, 2),
    "denoising": (partial(made, stories.denoising), batch, 2),
    "contractive": (partial(made, stories.contractive), batch, 2),
    "regularised": (partial(made, stories.regularised), batch, 2),
    "recursive": (partial(made, partial(stories.recursive, hidden=8), shape=(2, 2)), batch, 2),
    "ppca": (partial(made, stories.ppca), batch, 2),
    "factor analysis": (partial(made, stories.factor_analysis), batch, 2),
}


def as_tuple(data):
    return data if isinstance(data, tuple) else (data,)


def pyros_elbo(name):
    """Pyro warns when a story that asks for its labels to be summed over is given to Trace_ELBO."""
    return TraceEnum_ELBO(max_plate_nesting=1) if name in ("semi-supervised", "mixture") else Trace_ELBO()


def doubled(data):
    return tuple(part.double() if part.is_floating_point() else part for part in as_tuple(data))


@pytest.mark.parametrize("name", STORIES)
class TestStories:
    def make(self, name):
        make, data, _ = STORIES[name]
        return make(), data()

    def test_log_weights_have_one_value_per_particle_and_datum(self, name):
        log_w = log_weights(*self.make(name), particles=3)
        assert log_w.shape == (3, 6)
        assert log_w.isfinite().all()

    def test_a_datum_has_weights_of_its_own(self, name):
        story, data = self.make(name)
        others = tuple(torch.cat([part[:1], part[1:].flip(0)]) for part in as_tuple(data))
        torch.manual_seed(0)
        first = log_weights(story, data)[:, 0]
        torch.manual_seed(0)
        torch.testing.assert_close(log_weights(story, others)[:, 0], first)

    @pytest.mark.parametrize(
        "objective",
        [
            partial(elbo, particles=3),
            partial(iwae, particles=3),
            enumerated_elbo,
            partial(enumerated_elbo, particles=3),
        ],
        ids=["elbo", "iwae", "enumerated", "enumerated, three particles"],
    )
    def test_the_gradient_reaches_every_parameter(self, name, objective):
        story, data = self.make(name)
        objective(story, data).backward()
        for parameter_name, parameter in story.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, parameter_name

    @pytest.mark.parametrize("objective", [elbo, enumerated_elbo])
    def test_fit_lowers_the_loss(self, name, objective):
        story, data = self.make(name)
        history = ppvae.fit(story, data, objective=objective, valid=data, epochs=40, lr=1e-2, progress=False)
        assert sum(history.loss[-5:]) < sum(history.loss[:5])
        assert history.valid[-1] < history.valid[0]
        assert len(pyro.get_param_store()) == 0

    def test_plain_svi_trains_every_parameter(self, name):
        story, data = self.make(name)
        before = {key: parameter.clone() for key, parameter in story.named_parameters()}
        svi = SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), pyros_elbo(name))
        losses = [svi.step(*as_tuple(data)) for _ in range(60)]
        for key, parameter in story.named_parameters():
            assert torch.equal(parameter, before[key]) != parameter.requires_grad, key
        assert sum(losses[-10:]) < sum(losses[:10])

    def test_save_and_load(self, name, tmp_path):
        story, data = self.make(name)
        ppvae.fit(story, data, epochs=2, progress=False)
        torch.save(story.state_dict(), tmp_path / "weights.pt")
        again = STORIES[name][0](seed=1)  # what is drawn elsewhere than in the weights differs
        again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        again.eval()  # as a fit leaves it
        torch.manual_seed(1)
        expected = log_weights(story, data)
        torch.manual_seed(1)
        assert torch.equal(log_weights(again, data), expected)

    def test_a_deep_copy_is_a_story_of_its_own(self, name):
        story, data = self.make(name)
        other = copy.deepcopy(story)
        before = copy.deepcopy(story.state_dict())
        SVI(other.model, other.guide, pyro.optim.Adam({"lr": 1e-2}), pyros_elbo(name)).step(*as_tuple(data))
        assert all(torch.equal(value, before[key]) for key, value in story.state_dict().items())
        assert any(not torch.equal(value, before[key]) for key, value in other.state_dict().items())

    def test_float64_all_the_way(self, name):
        story, data = self.make(name)
        assert log_weights(story.double(), doubled(data)).dtype == torch.float64
        assert enumerated_elbo(story, doubled(data)).dtype == torch.float64

    def test_generation_is_the_model_without_its_observation(self, name):
        story, data = self.make(name)
        draws = pyro.poutine.uncondition(story.model)(*as_tuple(data))
        assert draws.shape == (6, 4)
        assert not torch.equal(draws, as_tuple(data)[0])

    def test_evidence_by_both_ways(self, name):
        story, data = self.make(name)
        ppvae.fit(story, data, objective=partial(iwae, particles=20), epochs=30, lr=1e-2, progress=False)
        estimate = laplace_sampling if is_deterministic(story, data) else importance
        evidence = estimate(story, data, particles=4000, progress=False)
        naive = prior_sampling(story, data, particles=40_000, progress=False)
        close = (evidence.pareto_k < 0.6) & (naive.pareto_k < 0.6)
        assert close.any()
        error = 6 * (evidence.standard_error**2 + naive.standard_error**2).sqrt() + 1e-6
        assert (evidence.estimate - naive.estimate < error)[close].all()
        assert evidence.held or (naive.estimate - evidence.estimate < error)[close].all()  # of one tree: less
        assert evidence.measure == "density"

    def test_codes_reconstructions_and_generated_means(self, name):
        story, data = self.make(name)
        assert encode(story, data).shape == (6, STORIES[name][2])
        assert reconstruct(story, data).shape == (6, 4)
        assert sample(story, data, means=True).shape == (6, 4)


def test_no_story_is_left_out():
    """One function a story; those of closed form alone are tested where they are."""
    made = {name for name in names(stories) if not name.startswith("_")}
    tested = {name.split(",")[0].replace("-", "_").replace(" ", "_") for name in STORIES}
    assert made - {"pca"} <= tested


@pytest.mark.parametrize("name", ["conditional", "semi_supervised"])
def test_a_story_of_labels_asks_for_them(name):
    with pytest.raises(ValueError, match="needs labels"):
        made(getattr(stories, name))


@pytest.mark.parametrize(
    "story",
    [
        partial(stories.hierarchical, above=[3, 2]),
        partial(stories.ladder, above=[3, 2]),
        partial(stories.conditional),
        partial(stories.semi_supervised),
        partial(stories.mixture),
    ],
)
def test_a_prior_made_of_the_encoder_fits_every_story(story):
    x = torch.randn(6, 4)
    story = made(story, prior=partial(priors.VampPrior, components=3), classes=3, x=x)
    data = (x, torch.tensor(GIVEN)) if "labels" in story.model.__code__.co_varnames else x
    assert log_weights(story, data, particles=3).isfinite().all()
    elbo(story, data).backward()
    assert story.prior.inputs.grad.abs().sum() > 0


@pytest.mark.parametrize("story", [stories.conditional, stories.semi_supervised])
@pytest.mark.parametrize("network", [networks.Convolutional(), networks.MLP([8])])
def test_labels_stand_beside_images_of_any_family(story, network):
    torch.manual_seed(0)
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    story = assemble(*parts, shape=(1, 8, 8), latent=2, network=network, input_scale=1 / 16, classes=3, story=story)
    x = 16 * torch.rand(1, 64).expand(3, 64)
    with torch.no_grad():
        means = encode(story, (x, torch.arange(3)))
        assert (means[0] - means[1]).abs().max() > 1e-4  # the label is seen
        assert (reconstruct(story, (x, torch.arange(3))).std(dim=0) > 0).all()
    assert story.encoder.network[0].factor.tolist() == [1 / 16] * 64 + [1] * 3  # x is scaled, its label is not
    elbo(story, (x, torch.arange(3))).backward()
    assert all(p.grad.abs().sum() > 0 for p in story.parameters() if p.requires_grad and p.dim() > 0)
