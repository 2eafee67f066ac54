"""Linear stories against scikit-learn and their closed forms."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as ReferencePCA
from sklearn.decomposition import FactorAnalysis

import ppvae
from ppvae import data
from ppvae.inference import elbo, importance, log_weights
from ppvae.inference.program.codes import encode, reconstruct
from ppvae.models import Linear, fit_factor_analysis, fit_pca, fit_ppca
from ppvae.selfcheck.analytic import LinearGaussian


def digits():
    return data.load_dataset("digits", scaling="unit").train


@pytest.mark.parametrize("latent", [1, 8, 40])
def test_pca_agrees_with_scikit_learn(latent):
    x = digits().double()
    story, reference = fit_pca(x, latent), ReferencePCA(latent, svd_solver="full").fit(x.numpy())
    mine, theirs = encode(story, x).numpy(), reference.transform(x.numpy())
    signs = np.sign((mine * theirs).sum(0))  # an eigenvector has no sign
    np.testing.assert_allclose(mine * signs, theirs, atol=1e-8)
    np.testing.assert_allclose(reconstruct(story, x).numpy(), reference.inverse_transform(theirs), atol=1e-8)


def test_what_is_left_is_the_sum_of_the_discarded_eigenvalues():
    x = digits().double()
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    error = (x - reconstruct(fit_pca(x, 5), x)).square().sum(-1).mean()
    torch.testing.assert_close(error, values[5:].sum())


def test_an_over_complete_code_is_refused():
    with pytest.raises(ValueError, match=r"from 1 to 3 for data of shape \(3, 10\), got 4"):
        fit_pca(torch.randn(3, 10), 4)


def test_nothing_discarded_is_still_a_density():
    x = torch.randn(20, 3)
    assert fit_pca(x, 3).likelihood(torch.zeros(1, 3)).log_prob(x[:1]).isfinite().all()


def made(rows=200, features=6, latent=2, noise=0.5, seed=0):
    """Data of a linear story, whose features differ in scale."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(features, latent, generator=generator, dtype=torch.float64)
    z = torch.randn(rows, latent, generator=generator, dtype=torch.float64)
    e = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    scale = torch.linspace(0.5, 2, features, dtype=torch.float64)
    return 3 + z @ weight.T + noise * scale * e


@pytest.mark.parametrize(("rows", "latent"), [(200, 1), (200, 5), (5, 2)])
def test_ppca_has_the_evidence_of_scikit_learn(rows, latent):
    """Theirs is over N - 1: with their eigenvalues over N, as maximum likelihood has them, it is the same number."""
    x = made(rows)
    reference = ReferencePCA(latent, svd_solver="full").fit(x.numpy())
    reference.explained_variance_ *= (rows - 1) / rows
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    reference.noise_variance_ = eigenvalues[latent:].mean().item()
    story = fit_ppca(x, latent)
    np.testing.assert_allclose(story.log_evidence(x).detach().numpy(), reference.score_samples(x.numpy()), atol=1e-6)
    np.testing.assert_allclose(story.variance.detach().numpy(), reference.noise_variance_)


def test_factor_analysis_has_the_evidence_of_scikit_learn():
    x = made()
    spread = x.std(dim=0, correction=0)  # it is fitted to data of spread 1, as its density moves with their scale
    reference = FactorAnalysis(2, tol=1e-3, max_iter=5000, svd_method="lapack").fit((x / spread).numpy())
    expected = reference.score_samples((x / spread).numpy()) - spread.log().sum().item()
    story = fit_factor_analysis(x, 2)
    np.testing.assert_allclose(story.log_evidence(x).detach().numpy(), expected, atol=1e-6)
    plain = FactorAnalysis(2, tol=1e-8, max_iter=50_000, svd_method="lapack").fit(x.numpy())
    found = fit_factor_analysis(x, 2, tolerance=1e-8, iterations=50_000).log_evidence(x)
    np.testing.assert_allclose(found.detach().numpy(), plain.score_samples(x.numpy()), atol=1e-3)  # both at the top


@pytest.mark.parametrize(
    ("fitted", "rows"), [(fit_ppca, 200), (fit_ppca, 5), (fit_factor_analysis, 200), (fit_factor_analysis, 5)]
)
def test_every_log_weight_is_the_exact_evidence(fitted, rows):
    x = made(rows)
    story = fitted(x, 2)
    exact = story.log_evidence(x)
    torch.testing.assert_close(log_weights(story, x, particles=5), exact.expand(5, rows), rtol=0, atol=1e-9)
    assert importance(story, x[:2], particles=30, progress=False).standard_error.max() < 1e-7


@pytest.mark.parametrize("shared", [True, False])
def test_a_story_of_known_parameters_has_the_known_posterior_and_evidence(shared):
    known = LinearGaussian()
    story = Linear(5, 2, shared).double()
    with torch.no_grad():
        story.weight.copy_(known.weight)
        story.mean.copy_(known.bias)
        story.log_variance.fill_(math.log(known.variance))
    x = known.data(6)
    torch.testing.assert_close(story.log_evidence(x), known.marginal().log_prob(x))
    torch.testing.assert_close(encode(story, x), known.posterior_mean(x))
    torch.testing.assert_close(story.encoder(x).covariance_matrix[0], known.posterior_covariance)
    expected = known.posterior_mean(x) @ known.weight.T + known.bias
    torch.testing.assert_close(reconstruct(story, x), expected)


@pytest.mark.parametrize("fitted", [fit_ppca, fit_factor_analysis])
def test_no_step_from_the_solution_raises_the_likelihood(fitted):
    x = made()
    story = fitted(x, 2, **({"tolerance": 1e-8, "iterations": 50_000} if fitted is fit_factor_analysis else {}))
    story.log_evidence(x).mean().backward()
    largest = max(parameter.grad.abs().max().item() for parameter in story.parameters())
    assert largest < (1e-9 if fitted is fit_ppca else 1e-4)


@pytest.mark.parametrize(("fitted", "shared"), [(fit_ppca, True), (fit_factor_analysis, False)])
def test_a_fit_comes_to_the_solution(fitted, shared):
    """With factors that share no feature, and all rows in one batch: each log-weight is exact, so no noise is left."""
    weight = torch.tensor([[1.0, 0]] * 3 + [[0, 1.0]] * 3)
    x = 3 + torch.randn(500, 2) @ weight.T + torch.linspace(0.5, 1, 6) * torch.randn(500, 6)
    solved = fitted(x, 2, **({} if shared else {"tolerance": 1e-6}))
    story, best = Linear(6, 2, shared), solved.log_evidence(x).mean()
    ppvae.fit(story, x, epochs=300, batch_size=500, lr=0.1, schedule="cosine", progress=False)
    # 0.018 nats below over 15 seeds, standard deviation 0.013, of 28 at the start; one noise in place of six costs 0.19
    assert best - 0.1 < story.log_evidence(x).mean() < best + 1e-4
    story, x = story.double(), x.double()
    torch.testing.assert_close(-elbo(story, x), story.log_evidence(x).mean())


def test_float32_agrees_with_float64():
    x = made()
    for fitted in (fit_ppca, fit_factor_analysis):
        exact, story = fitted(x, 2).log_evidence(x), fitted(x.float(), 2)
        torch.testing.assert_close(story.log_evidence(x.float()).double(), exact, atol=1e-3, rtol=0)
        torch.testing.assert_close(log_weights(story, x.float())[0].double(), exact, atol=1e-3, rtol=0)


def test_constant_features():
    x = made()
    x[:, 3] = 7
    story = fit_ppca(x, 2)
    assert log_weights(story, x).isfinite().all()
    with pytest.raises(ValueError, match="keep some noise; feature 3 has none left: leave it out"):
        fit_factor_analysis(x, 2)


def test_two_equal_features_leave_no_noise():
    x = made()
    x[:, 3] = 2 * x[:, 1]
    with pytest.raises(ValueError, match=r"feature [13] has none"):
        fit_factor_analysis(x, 2)


@pytest.mark.parametrize(
    ("x", "latent", "words"),
    [
        (
            made(),
            6,
            "at least 1, and below the 6 directions that the data spread in, so that some noise is left; got 6",
        ),
        (made(), 0, "got 0"),
        (made(rows=4), 3, "below the 3 directions"),
        (torch.ones(10, 3), 1, "below the 0 directions"),
        (made(noise=0.0), 2, "below the 2 directions"),
        (made(noise=0.0).float(), 2, "below the 2 directions"),
    ],
)
def test_ppca_without_noise_is_refused(x, latent, words):
    with pytest.raises(ValueError, match=words):
        fit_ppca(x, latent)


def test_factor_analysis_of_too_many_factors_is_refused():
    with pytest.raises(ValueError, match=r"latent should be from 1 to 5 for data of shape \(200, 6\), got 6"):
        fit_factor_analysis(made(), 6)


def test_digits_have_a_probabilistic_pca():
    """Features that never vary are no trouble where all share one noise."""
    x = digits()
    story = fit_ppca(x, 8)
    test = data.load_dataset("digits", scaling="unit").test
    assert story.log_evidence(test).isfinite().all()
    torch.testing.assert_close(log_weights(story, test)[0], story.log_evidence(test), atol=1e-2, rtol=0)
