"""Deterministic autoencoders: their penalties against closed forms, their ELBO as log p(x, z), their evidence, PCA."""

from functools import partial

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA as ReferencePCA
from torch import nn

import ppvae
from ppvae import data, networks
from ppvae.inference import elbo, importance, laplace_sampling, log_joint, log_weights
from ppvae.inference.program.codes import decode, drawn_codes, encode, is_deterministic, reconstruct
from ppvae.models import Autoencoder, assemble, encoders, fit_pca, likelihoods, priors, stories
from ppvae.models.autoencoders import Contraction, KLSparsity, WeightDecay

SHAPE = (1, 4, 4)
FEATURES = 16
BASELINES = {  # every autoencoder that is a point mass, by its story and network
    "undercomplete": {},
    "linear": {"network": networks.MLP([])},
    "deep": {"network": networks.MLP([16, 12], "tanh")},
    "MAP": {"prior": priors.StandardNormal},
    "sparse, KL": {"story": stories.sparse},
    "sparse, L1": {"prior": partial(priors.Laplace, scale=0.5)},
    "masking": {"story": stories.denoising},
    "gaussian": {"story": partial(stories.denoising, corruption="gaussian")},
    "salt and pepper": {"story": partial(stories.denoising, corruption="salt_and_pepper")},
    "contractive, one layer": {"story": stories.contractive, "network": networks.MLP([])},
    "contractive, deep": {"story": stories.contractive},
    "convolutional": {"network": networks.Convolutional([4, 8])},
    "LSTM": {"network": networks.LSTM(8)},
    "recursive": {"network": networks.Recursive(8)},
    "regularised": {"story": stories.regularised, "prior": priors.StandardNormal},
}


def made(name="undercomplete", seed=0, latent=2, likelihood=likelihoods.Normal, **options):
    options = (
        {"story": stories.autoencoder, "network": networks.MLP([16], "tanh"), "prior": priors.Flat}
        | BASELINES[name]
        | options
    )
    torch.manual_seed(seed)
    prior = options.pop("prior")
    return assemble(prior, likelihood, encoders.DiagonalNormal, shape=SHAPE, latent=latent, **options)


def rows(number=6, seed=1):
    return torch.rand(number, FEATURES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", BASELINES)
def test_the_elbo_is_log_p_of_x_and_the_code(name):
    story, x = made(name).eval(), rows()
    z = encode(story, x)
    by_hand = story.likelihood(z).log_prob(x) + story.prior().log_prob(z)
    torch.testing.assert_close(log_weights(story, x, particles=3), by_hand.expand(3, 6))
    torch.testing.assert_close(log_joint(story, x, {"z": z.unsqueeze(0)})[0], by_hand)
    torch.manual_seed(5)
    penalty = 0.0 if story.penalty is None else story.penalty(story, x, z).mean()
    torch.manual_seed(5)
    loss = elbo(story, x)
    torch.testing.assert_close(loss, penalty - by_hand.mean())
    torch.manual_seed(5)
    torch.testing.assert_close(torch.tensor(Trace_ELBO().loss(story.model, story.guide, x) / 6), loss)


@pytest.mark.parametrize("name", BASELINES)
def test_it_is_fitted_sampled_and_has_evidence(name):
    story, x = made(name), rows(40)
    before = elbo(story.eval(), x).item()
    history = ppvae.fit(story, x, epochs=30, batch_size=20, lr=1e-2, valid=x[:1], progress=False)
    assert is_deterministic(story, x)
    assert elbo(story, x).item() < before
    assert np.isfinite(history.loss).all()
    assert reconstruct(story, x).shape == x.shape
    torch.testing.assert_close(decode(story, x, z=encode(story, x)), reconstruct(story, x))
    story.prior = priors.ex_post(encode(story, x), components=2)
    evidence = laplace_sampling(story, x[:5], particles=200, progress=False)
    assert evidence.estimate.isfinite().all()
    with pytest.raises(ValueError, match="point mass"):
        importance(story, x[:5])


@pytest.mark.parametrize("latent", [2, 30])  # 30: wider than the 16 features
@pytest.mark.parametrize("name", ["undercomplete", "sparse, KL", "masking", "contractive, deep", "regularised"])
def test_one_datum_constant_pixels_and_over_complete_codes(name, latent):
    x = rows(9)
    x[:, 3] = 0.0
    x[:, 4] = 1.0
    story = made(name, latent=latent, x=x)
    ppvae.fit(story, x, epochs=3, batch_size=4, valid=x[:1], progress=False)  # the last batch is one datum
    ppvae.fit(story, x[:1], epochs=2, progress=False)
    assert encode(story, x[:1]).shape == (1, latent)
    assert elbo(story, x[:1]).isfinite()
    story.prior = priors.ex_post(encode(story, x), components=1)
    assert laplace_sampling(story, x[:2], particles=50, progress=False).estimate.isfinite().all()


def test_lengths_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"mask should have the shape of x, \(6, 16\), got \(6,\).* `sequence`"):
        ppvae.fit(made("LSTM"), (rows(), torch.full((6,), 2)), progress=False)


def test_an_lstm_autoencoder_of_sequences_of_different_lengths():
    parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
    story = assemble(
        *parts, shape=(5, 2), latent=3, network=networks.MLP([]), story=partial(stories.sequence, hidden=8)
    )
    x, lengths = torch.randn(7, 10), torch.tensor([1, 2, 3, 4, 5, 5, 1])
    ppvae.fit(story, (x, lengths), epochs=2, progress=False)
    padded = x.clone()
    padded[0, 2:] = torch.nan  # behind the last step
    torch.testing.assert_close(encode(story, (padded, lengths)), encode(story, (x, lengths)))


def test_kl_sparsity_is_the_divergence_of_two_coins():
    z = torch.rand(50, 3)
    mean = z.mean(0).double()
    rho = 0.05
    by_hand = 2.0 * (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()
    found = KLSparsity(rho, weight=2.0)(None, torch.empty(50, 1), z)
    torch.testing.assert_close(found.double(), by_hand, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(KLSparsity(rho, 2.0)(None, torch.empty(50, 1), z.expand(4, 50, 3)), found)
    assert KLSparsity()(None, torch.empty(2, 1), torch.tensor([[0.0, 1.0], [0.0, 1.0]])).isfinite()


def test_the_sparse_codes_come_near_their_target():
    story, x = made("sparse, KL", latent=4), rows(200)
    ppvae.fit(story, x, epochs=150, lr=1e-2, progress=False)
    free = made("sparse, KL", latent=4, story=partial(stories.sparse, weight=0.0))
    ppvae.fit(free, x, epochs=150, lr=1e-2, progress=False)
    assert (encode(story, x).mean(0) - 0.05).abs().max() < 0.05
    assert encode(free, x).mean() > 0.2


def sigmoid_layer(features=6, latent=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(features, latent), nn.Sigmoid()).double()


def test_the_contractive_norm_of_one_layer_is_its_closed_form_and_so_is_its_gradient():
    """||J||_F^2 = sum_j (z_j (1 - z_j))^2 sum_i W_ji^2. Rifai et al. 2011, equation 6."""
    layer, x = sigmoid_layer(), torch.randn(5, 6).double()
    z = layer(x)
    by_hand = ((z * (1 - z)).square() * layer[0].weight.square().sum(1)).sum(-1)
    expected = torch.autograd.grad(by_hand.sum(), layer[0].weight)[0]
    found = Contraction(weight=1.0)(Autoencoder(None, None, layer), x, z)
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), layer[0].weight)[0], expected)
    with torch.no_grad():  # as an evaluation runs it
        torch.testing.assert_close(Contraction(weight=2.0)(Autoencoder(None, None, layer), x, z), 2 * by_hand)


@pytest.mark.parametrize("projections", [1, 5])
def test_the_contractive_norm_of_deeper_layers_is_unbiased(projections):
    torch.manual_seed(0)
    network = networks.mlp(6, [7, 5], 3, nn.Tanh).double()
    x = torch.randn(6).double()
    exact = torch.func.jacrev(network)(x).square().sum()
    story = Autoencoder(None, None, network)
    torch.testing.assert_close(Contraction(1.0)(story, x.unsqueeze(0), None)[0], exact)
    draws = Contraction(1.0, projections)(story, x.expand(20_000, 6), None)
    error = draws.std() / 20_000**0.5
    assert (draws.mean() - exact).abs() < 4 * error
    assert error < 0.01 * exact


def test_the_contractive_weight_is_of_what_the_network_sees():
    """Data of another scale, divided by it at the network's door, have the same penalty."""
    x = rows()
    plain = made("contractive, one layer")
    scaled = made("contractive, one layer", input_scale=1 / 16)
    torch.testing.assert_close(scaled.penalty(scaled, 16 * x, None), plain.penalty(plain, x, None))


def test_the_contractive_norm_is_exact_for_one_layer_only():
    assert made("contractive, one layer").penalty.projections is None
    assert made("contractive, one layer", network=networks.MLP(())).penalty.projections is None
    assert made("contractive, deep").penalty.projections == 1
    assert made("contractive, deep", network=networks.Convolutional([4])).penalty.projections == 1
    assert made("contractive, deep", network=networks.Convolutional([4], hidden=[])).penalty.projections == 1


def test_weight_decay_is_of_the_decoders_weights():
    story = made("regularised", likelihood=partial(likelihoods.Normal, learned=True))
    layers = [part for part in story.likelihood.modules() if isinstance(part, nn.Linear)]
    by_hand = 0.5 * sum(layer.weight.square().sum() for layer in layers)
    torch.testing.assert_close(WeightDecay(0.5)(story, rows(), None), by_hand)


def test_the_encoder_alone_sees_the_corruption_and_in_training_alone():
    story, x = made("masking", story=partial(stories.denoising, amount=1.0)), rows()
    blank = drawn_codes(story.train(), torch.zeros(6, FEATURES))
    torch.manual_seed(0)
    with torch.no_grad():
        seen = story.encoder(x).mean
        torch.testing.assert_close(seen, blank)  # all of x is lost
        torch.testing.assert_close(-elbo(story, x), story.likelihood(seen).log_prob(x).mean())  # scored on x itself
    assert not torch.allclose(encode(story, x), blank)


def test_salt_and_pepper_are_the_ends_of_each_features_range():
    x = rows(50) * torch.arange(1, FEATURES + 1) - 3
    story = made("salt and pepper", x=x, story=partial(stories.denoising, corruption="salt_and_pepper", amount=1.0))
    corruption = story.encoder.network[0].train()
    corrupted = corruption(x)
    assert ((corrupted == x.amin(0)) | (corrupted == x.amax(0))).all()


@pytest.mark.parametrize(
    ("story", "said"),
    [
        (partial(stories.sparse, rho=1.0), "rho should lie between 0 and 1, got 1.0"),
        (partial(stories.sparse, weight=-1.0), "weight should be finite and not negative, got -1.0"),
        (partial(stories.contractive, weight=-1.0), "weight should be finite and not negative, got -1.0"),
        (partial(stories.contractive, projections=0), "projections should be at least 1, got 0"),
        (partial(stories.regularised, decay=-1.0), "weight should be finite and not negative, got -1.0"),
        (partial(stories.denoising, corruption="pepper"), "corruption should be masking, gaussian or salt_and_pepper"),
        (partial(stories.denoising, amount=1.5), "amount should be from 0 to 1, a share of the elements, got 1.5"),
        (partial(stories.denoising, corruption="gaussian", amount=-1.0), "amount should be finite and not negative"),
    ],
)
def test_arguments_out_of_range_are_refused(story, said):
    with pytest.raises(ValueError, match=said):
        made(story=story)


def digits():
    return data.load_dataset("digits", scaling="unit").train


def test_the_linear_autoencoder_finds_the_subspace_and_the_loss_of_pca():
    latent, spread = 3, torch.tensor([3.0, 2.4, 1.8, 0.6, 0.5, 0.4, 0.3, 0.2])
    torch.manual_seed(0)
    x = 1 + (spread * torch.randn(400, 8)) @ torch.linalg.qr(torch.randn(8, 8))[0]
    reference = ReferencePCA(latent, svd_solver="full").fit(x.numpy())
    parts = (priors.Flat, partial(likelihoods.Normal, variance=1.0), encoders.PointMass)
    story = assemble(*parts, shape=(8,), latent=latent, network=networks.MLP([]), story=stories.autoencoder)
    for lr, epochs in ((1e-2, 120), (1e-3, 40)):
        ppvae.fit(story, x, epochs=epochs, batch_size=50, lr=lr, progress=False)
    decoder = story.likelihood.network[-1].weight.detach().numpy()
    assert np.degrees(subspace_angles(decoder, reference.components_.T)).max() < 1
    error = (x - reconstruct(story, x)).square().sum(-1).mean().item()
    best = reference.inverse_transform(reference.transform(x.numpy()))
    least = ((x.numpy() - best) ** 2).sum(-1).mean()
    assert least * (1 - 1e-5) < error < 1.001 * least


def test_pca_with_one_gaussian_on_its_codes_has_the_evidence_of_that_gaussian():
    x, story = digits().double(), fit_pca(digits().double(), 6)
    story.prior = priors.ex_post(encode(story, x), components=1)
    weight, bias = story.likelihood.network.weight, story.likelihood.network.bias
    variance = (2 * story.likelihood.log_scale).exp()
    z = story.prior()
    loc = weight @ z.mean + bias
    covariance = weight @ z.component_distribution.covariance_matrix[0] @ weight.T + variance * torch.eye(64)
    exact = torch.distributions.MultivariateNormal(loc, covariance).log_prob(x[:20])
    evidence = laplace_sampling(story, x[:20], particles=30, widening=1.0, progress=False)
    torch.testing.assert_close(evidence.estimate, exact, atol=1e-6, rtol=0)
    widened = laplace_sampling(story, x[:20], particles=2000, progress=False)
    assert ((widened.estimate - exact).abs() < 4 * widened.standard_error).all()


@pytest.mark.parametrize("network", [networks.Convolutional([4]), networks.LSTM(8), networks.Recursive(8)])
def test_the_contractive_norm_of_any_family(network):
    """Recurrent layers have no such derivative without a graph, or on a fused kernel."""
    story, x = made("contractive, deep", network=network), rows(4)
    ppvae.fit(story, x, epochs=2, valid=x, progress=False)
    exact = torch.stack([torch.func.jacrev(lambda x: story.encoder(x).mean)(row).square().sum() for row in x])
    with torch.no_grad():
        torch.testing.assert_close(Contraction(1.0)(story, x, None), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [partial(ppvae.inference.iwae, particles=2), ppvae.inference.enumerated_elbo])
@pytest.mark.parametrize("name", ["sparse, KL", "contractive, one layer", "regularised"])
def test_every_objective_adds_the_penalty(name, objective):
    story, x = made(name), rows()
    torch.testing.assert_close(objective(story, x), elbo(story, x))


def test_an_encoder_in_place_of_its_network_is_refused():
    story = Autoencoder(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.PointMass(nn.Linear(5, 2)))
    with pytest.raises(ValueError, match="a point mass needs a network that returns a tensor, not Delta"):
        ppvae.fit(story, torch.zeros(3, 5), progress=False)


@pytest.mark.parametrize("part", ["prior", "likelihood", "encoder", "story"])
def test_a_name_in_place_of_a_part_is_refused(part):
    given = {"prior": priors.Flat, "likelihood": likelihoods.Normal, "encoder": encoders.PointMass, part: "Flat"}
    with pytest.raises(ValueError, match=f"{part} should be a class or a function .*, got 'Flat'"):
        assemble(**given, shape=(5,), latent=2)
    with pytest.raises(ValueError, match="network should be a family such as"):
        assemble(priors.Flat, likelihoods.Normal, encoders.PointMass, shape=(5,), latent=2, network=networks.MLP)
