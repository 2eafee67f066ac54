"""What the figures show, against the same by hand."""

import torch

from ppvae import data
from ppvae.inference.program.codes import encode, reconstruct
from ppvae.models import assemble, encoders, fit_pca, likelihoods, priors, stories
from ppvae.plots import figures


def test_the_principal_plane_keeps_the_largest_axes_and_all_distances_of_flat_codes():
    flat = torch.randn(30, 2) @ torch.randn(2, 6)
    torch.testing.assert_close(torch.pdist(figures.principal_plane(flat)), torch.pdist(flat), atol=1e-4, rtol=1e-4)
    assert figures.principal_plane(torch.randn(4, 1)).shape == (4, 2)


def test_a_path_leads_from_the_first_datum_to_the_first_of_another_label():
    digits = data.load_dataset("digits", scaling="unit")
    story = fit_pca(digits.train, 5)
    other = next(i for i, label in enumerate(digits.test_labels) if label != digits.test_labels[0])
    path = figures.path(story, digits, steps=7)
    torch.testing.assert_close(path[[0, -1]], reconstruct(story, digits.test[[0, other]]))
    torch.testing.assert_close(path[3], path[[0, -1]].mean(0))  # a linear decoder's is straight
    assert path.shape == (7, 64)


def test_every_story_has_a_path():
    digits = data.load_dataset("digits")
    for name in ("conditional", "semi_supervised", "hierarchical", "recursive"):
        torch.manual_seed(0)
        parts = (priors.StandardNormal, likelihoods.Binomial, encoders.DiagonalNormal)
        options = {"maximum": 16, "classes": 10, "input_scale": 1 / 16}
        story = assemble(*parts, shape=(1, 8, 8), latent=2, story=getattr(stories, name), **options)
        assert figures.path(story, digits).isfinite().all(), name
        assert encode(story, figures.batch_for(story, **digits.tensors("test", 3))).shape[0] == 3
