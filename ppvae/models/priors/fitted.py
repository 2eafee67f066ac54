"""Priors fitted to codes after the fact, with everything else held fixed."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.models.checks import at_least_one


class ExPost(nn.Module):
    """p(z) = sum_k pi_k N(z; m_k, S_k) with full covariances: N(0, I) until codes are put in its place.

    `ex_post(codes)` makes one from codes, which is what `ppvae fit` does once the story is fitted. Nothing of it is
    trained with the story.
    Ghosh et al. 2020, https://arxiv.org/abs/1903.12436

    Args:
        latent: number of latent dimensions.
        components: number of Gaussians.

    >>> ExPost(2)().log_prob(torch.zeros(2))  # -log 2 pi
    tensor(-1.8379)
    """

    weights: Tensor
    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent: int, components: int = 1):
        super().__init__()
        at_least_one("latent", latent)
        self.register_buffer("weights", torch.full((at_least_one("components", components),), 1 / components))
        self.register_buffer("loc", torch.zeros(components, latent))
        self.register_buffer("scale_tril", torch.eye(latent).repeat(components, 1, 1))

    def forward(self) -> Distribution:
        gaussians = dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)  # (components) | (latent)
        return dist.MixtureSameFamily(dist.Categorical(self.weights), gaussians)


def ex_post(codes: Tensor, components: int = 10, seed: int = 0) -> ExPost:
    """The maximum-likelihood mixture of Gaussians of codes, as a prior: `story.prior = ex_post(encode(story, x))`.

    The fit is scikit-learn's, on codes scaled to unit variance. To every variance it adds a millionth of that of the
    codes. A dimension in which they do not vary gets a narrow Gaussian rather than none, its scale a thousandth of
    their size there (1e-3 where that is 0).

    Args:
        codes: `(rows, latent)`, finite.
        components: number of Gaussians: Ghosh et al. take 10; with 1 it has the codes' mean and covariance.
        seed: of the fit's start.

    Raises:
        ValueError: codes of another shape, not finite, or with fewer different rows than components.

    >>> ex_post(3 + torch.randn(100, 2), components=1)().mean.shape
    torch.Size([2])
    """
    prior = ExPost(_checked(codes, components).shape[-1], components).to(codes.device, codes.dtype)
    rows = codes.detach().double().cpu()
    centre, spread = rows.mean(0), rows.std(0, correction=0)
    size = torch.where(centre == 0, torch.ones_like(centre), centre.abs())
    spread = torch.where(spread > 10 * torch.finfo(codes.dtype).eps * centre.abs(), spread, size)  # all but rounding
    from sklearn.mixture import GaussianMixture as Fitter

    fit = Fitter(components, reg_covar=1e-6, max_iter=1000, random_state=seed).fit(
        ((rows - centre) / spread).expand(max(2, len(rows)), -1).numpy()
    )
    fitted = {
        "weights": torch.from_numpy(fit.weights_),
        "loc": centre + spread * torch.from_numpy(fit.means_),
        "scale_tril": spread.unsqueeze(-1) * torch.linalg.cholesky(torch.from_numpy(fit.covariances_)),
    }
    prior.load_state_dict(fitted)
    return prior


def _checked(codes: Tensor, components: int) -> Tensor:
    if codes.dim() != 2 or not codes.isfinite().all():
        raise ValueError(f"codes should be finite and of shape (rows, latent), got shape {tuple(codes.shape)}")
    different = len(torch.unique(codes, dim=0))
    if different < at_least_one("components", components):
        raise ValueError(
            f"codes should have at least as many different rows as components, {components}, got {different}"
        )
    return codes
