"""PCA against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as ReferencePCA

from ppvae import data
from ppvae.inference.programs import codes, reconstruct
from ppvae.models import PCA


def digits():
    return data.load("digits", scaling="unit").train


@pytest.mark.parametrize("latent", [1, 8, 40])
def test_pca_agrees_with_scikit_learn(latent):
    x = digits().double()
    story, reference = PCA(x, latent), ReferencePCA(latent, svd_solver="full").fit(x.numpy())
    mine, theirs = codes(story, x).numpy(), reference.transform(x.numpy())
    signs = np.sign((mine * theirs).sum(0))  # an eigenvector has no sign
    np.testing.assert_allclose(mine * signs, theirs, atol=1e-8)
    np.testing.assert_allclose(reconstruct(story, x).numpy(), reference.inverse_transform(theirs), atol=1e-8)


def test_what_is_left_is_the_sum_of_the_discarded_eigenvalues():
    x = digits().double()
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    error = (x - reconstruct(PCA(x, 5), x)).square().sum(-1).mean()
    torch.testing.assert_close(error, values[5:].sum())


def test_an_over_complete_code_is_refused():
    with pytest.raises(ValueError, match=r"from 1 to 3 for data of shape \(3, 10\), got 4"):
        PCA(torch.randn(3, 10), 4)


def test_nothing_discarded_is_still_a_density():
    x = torch.randn(20, 3)
    assert PCA(x, 3).likelihood(torch.zeros(1, 3)).log_prob(x[:1]).isfinite().all()
