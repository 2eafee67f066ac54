"""Measures of a fitted story beside its evidence: reconstruction and representation."""

from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor


def reconstruction_error(x: Tensor, reconstruction: Tensor, contrast: float = 1.0) -> float:
    """Mean over data of the squared error summed over features, with x on a scale from 0 to 1, nan in x left out.

    Hinton & Salakhutdinov 2006, https://doi.org/10.1126/science.1127647

    Args:
        x, reconstruction: `(batch, features)`.
        contrast: the range of x (`Observation.contrast`).

    >>> reconstruction_error(torch.zeros(2, 4), torch.full((2, 4), 8.0), contrast=16)
    1.0
    """
    return ((x - reconstruction) / contrast).square().nansum(dim=-1).mean().item()


def active_units(codes: Tensor, prior_variance: Tensor | float = 1.0, threshold: float = 1e-2) -> int:
    """How many latent dimensions follow the data: Var_x(E_q[u | x]) > threshold. Burda et al. 2016,
    https://arxiv.org/abs/1509.00519

    Args:
        codes: the guide's means, `(batch, latent)`.
        prior_variance: of every latent, `(latent,)`.
        threshold: in units of the prior's variance.

    >>> active_units(torch.tensor([[-1.0, 0.001], [1.0, -0.001]]))
    1
    """
    return int((codes.var(dim=0, correction=0) > threshold * prior_variance).sum().item())


def neighbour_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Share of test codes whose nearest training code (Euclidean) has their label, 0 to 1.

    >>> codes = torch.tensor([[0.0], [1.0]])
    >>> neighbour_accuracy(codes, torch.tensor([3, 5]), codes + 0.1, torch.tensor([3, 5]))
    1.0
    """
    model = KNeighborsClassifier(n_neighbors=1)
    return _accuracy(model, train, train_labels, test, test_labels)


def probe_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Test accuracy, 0 to 1, of a logistic regression on the standardised codes: how far labels lie linearly in them.

    >>> codes = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> probe_accuracy(codes, torch.tensor([0, 0, 1, 1]), codes, torch.tensor([0, 0, 1, 1]))
    1.0
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return _accuracy(model, train, train_labels, test, test_labels)


def _accuracy(model: Any, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    if len(train_labels.unique()) < 2:
        return float("nan")  # nothing to tell apart
    arrays = [part.cpu().numpy() for part in (train, train_labels, test, test_labels)]
    model.fit(arrays[0], arrays[1])
    return float((model.predict(arrays[2]) == arrays[3]).mean())


def principal_plane(codes: Tensor) -> Tensor:
    """Codes in the plane of their two largest principal axes, `(batch, 2)`; codes of one or two dimensions as they are.

    >>> principal_plane(torch.randn(10, 5)).shape
    torch.Size([10, 2])
    """
    if codes.shape[1] == 1 or len(codes) < 3:
        codes = codes[:, :1]
        return torch.cat([codes, torch.zeros_like(codes)], dim=1)
    if codes.shape[1] == 2:
        return codes
    centred = codes - codes.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T
