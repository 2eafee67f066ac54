"""Measures on constructed cases where the answer is known."""

import torch

from ppvae import metrics


def test_reconstruction_error_is_per_datum_on_a_unit_scale():
    x = torch.tensor([[0.0, 16.0], [8.0, 8.0]])
    assert metrics.reconstruction_error(x, x, contrast=16) == 0
    assert metrics.reconstruction_error(x, torch.zeros(2, 2), contrast=16) == (1.0 + 0.5) / 2


def test_active_units_are_those_that_vary_over_the_data():
    scales = torch.tensor([1.0, 0.2, 0.05, 0.0])  # variances 1, 0.04, 0.0025, 0
    assert metrics.active_units(scales * torch.randn(5000, 4)) == 2


def blobs(spread):
    labels = torch.arange(3).repeat_interleave(50)
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    return centres[labels] + spread * torch.randn(150, 2), labels


def test_accuracies_of_separate_and_of_mixed_classes():
    codes, labels = blobs(0.1)
    others, other_labels = blobs(0.1)
    assert metrics.neighbour_accuracy(codes, labels, others, other_labels) == 1
    assert metrics.probe_accuracy(codes, labels, others, other_labels) == 1
    noise = torch.randn(3000, 2)
    chance = labels.repeat(20)[torch.randperm(3000)]
    for accuracy in (metrics.neighbour_accuracy, metrics.probe_accuracy):
        found = accuracy(noise[:1500], chance[:1500], noise[1500:], chance[1500:])
        assert abs(found - 1 / 3) < 4 * (2 / 9 / 1500) ** 0.5


def test_nearest_neighbours_see_what_a_linear_probe_cannot():
    angle = 2 * torch.pi * torch.rand(600)
    labels = torch.arange(600) % 2
    rings = (1 + 2 * labels).unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], 1)
    split = (rings[:300], labels[:300], rings[300:], labels[300:])
    assert metrics.neighbour_accuracy(*split) == 1
    assert metrics.probe_accuracy(*split) < 0.7


def test_the_principal_plane_keeps_the_largest_axes_and_all_distances_of_flat_codes():
    flat = torch.randn(30, 2) @ torch.randn(2, 6)
    torch.testing.assert_close(torch.pdist(metrics.principal_plane(flat)), torch.pdist(flat), atol=1e-4, rtol=1e-4)
    assert metrics.principal_plane(torch.randn(4, 1)).shape == (4, 2)
