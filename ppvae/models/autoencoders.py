"""Deterministic autoencoders: VAEs whose guide is a point mass, each with its own penalty, prior or corrupted input.

With the guide z = f(x) the ELBO is log p(x, z) at the code: with a proper prior that is MAP inference, with a `Flat`
one the plain autoencoder, whose loss is -log p(x | f(x)). A penalty is a factor of the guide, so that log-weights and
evidence leave it out. Deep, convolutional, recurrent and balanced recursive autoencoders are `autoencoder` with another
family of networks; a sparse one by L1 is `autoencoder` with the prior `Laplace`.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Likelihood, Penalty, Prior
from ppvae.models.checks import at_least_one, not_negative
from ppvae.models.encoders import PointMass
from ppvae.models.sizes import Maker, Sizes
from ppvae.models.vae import VAE
from ppvae.networks.corruption import Corrupted, GaussianNoise, Masking, SaltAndPepper


class Autoencoder(VAE):
    """z ~ p(z), x ~ p(x | z), with the guide z = network(x), a point mass: the ELBO is log p(x, z) at the code.

    Goodfellow et al. 2016, chapter 14, https://www.deeplearningbook.org/contents/autoencoders.html

    Args:
        prior: p(z), event_shape `(latent,)`: `priors.Flat` for the plain autoencoder.
        likelihood: p(x | z), event_shape `(features,)`.
        network: the encoder, `(batch, features)` to `(batch, latent)`.
        penalty: what an objective adds to the loss, `(story, x, z)` to nats per datum.

    >>> from ppvae import networks
    >>> from ppvae.models import likelihoods, priors
    >>> decoder = networks.mlp(2, [], 3)
    >>> story = Autoencoder(priors.Flat(2), likelihoods.Normal(decoder), networks.mlp(3, [], 2))
    >>> story.encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, network: nn.Module, penalty: Penalty | None = None):
        super().__init__(prior, likelihood, PointMass(network), penalty)


@dataclass(frozen=True)
class KLSparsity:
    """weight * sum_j KL(Bernoulli(rho) || Bernoulli(mean of z_j over the batch)): few units on for any one datum.

    z_j lies between 0 and 1, as a sigmoid's output does. Ng 2011,
    https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf

    Args:
        rho: the share of the data that a unit should be on for.
        weight: in nats per datum.

    >>> KLSparsity(rho=0.05)(None, torch.empty(4, 3), torch.full((4, 2), 0.05)).abs() < 1e-6
    tensor(True)
    """

    rho: float = 0.05
    weight: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.rho < 1:
            raise ValueError(f"rho should lie between 0 and 1, got {self.rho}")
        not_negative("weight", self.weight)

    def __call__(self, story: object, x: Tensor, z: Tensor) -> Tensor:
        smallest = torch.finfo(z.dtype).eps  # a unit that is off, or on, for all of a batch costs much, not infinity
        mean = z.flatten(0, -2).mean(0).clamp(smallest, 1 - smallest)  # (latent)
        target = torch.distributions.Bernoulli(torch.full_like(mean, self.rho))
        return self.weight * torch.distributions.kl_divergence(target, torch.distributions.Bernoulli(mean)).sum()


@dataclass(frozen=True)
class Contraction:
    """weight * ||J(x)||_F^2, with J(x) the Jacobian of the code at x: a code that hardly moves with its datum.

    Exact by one pass for every latent dimension, or an unbiased estimate by random projections,
    E ||v' J||^2 = ||J||_F^2 where E v v' = I. Rifai et al. 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf;
    Hutchinson 1989, https://doi.org/10.1080/03610918908812806

    Args:
        weight: in nats per datum for a norm of 1.
        projections: how many random vectors v, their signs drawn; none for the exact norm.

    >>> story = Autoencoder(None, None, nn.Linear(3, 2))
    >>> exact = Contraction(weight=1.0)(story, torch.randn(5, 3), torch.empty(5, 2))
    >>> torch.allclose(exact, story.encoder.network.weight.square().sum().expand(5))
    True
    """

    weight: float = 0.1
    projections: int | None = None

    def __post_init__(self) -> None:
        not_negative("weight", self.weight)
        if self.projections is not None:
            at_least_one("projections", self.projections)

    def __call__(self, story: VAE, x: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # recurrent layers ask for both
            return self.weight * self._norm(story, x)

    def _norm(self, story: VAE, x: Tensor) -> Tensor:
        code, pull = torch.func.vjp(lambda x: story.encoder(x).mean, x)  # type: ignore[misc]
        if self.projections is None:
            directions = torch.eye(code.shape[-1]).to(code).unsqueeze(1).expand(-1, *code.shape)
        else:
            signs = torch.randint(0, 2, (self.projections, *code.shape), device=code.device)
            directions = (2 * signs - 1).to(code) / self.projections**0.5
        rows = torch.func.vmap(lambda v: pull(v)[0])(directions)  # (directions, batch, features)
        return rows.square().sum((0, -1))


@dataclass(frozen=True)
class WeightDecay:
    """weight * ||W||^2 over the weights, not the biases, of the decoder: a smooth map from codes to data.

    Ghosh et al. 2020, https://arxiv.org/abs/1903.12436

    Args:
        weight: in nats per datum.

    >>> WeightDecay(weight=2.0)(Autoencoder(None, nn.Linear(1, 1), None), torch.empty(5, 1), torch.empty(5, 1)) > 0
    tensor(True)
    """

    weight: float = 1e-3

    def __post_init__(self) -> None:
        not_negative("weight", self.weight)

    def __call__(self, story: VAE, x: Tensor, z: Tensor) -> Tensor:
        decoder: nn.Module = story.likelihood  # type: ignore[assignment]
        squares = [weights.square().sum() for weights in decoder.parameters() if weights.dim() > 1]
        return self.weight * torch.stack([x.new_zeros(()), *squares]).sum()


def autoencoder(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> VAE:
    """z ~ p(z), x ~ p(x | z), with the guide z = f(x), a point mass: MAP, or with a `Flat` prior a fit of x alone.

    The undercomplete autoencoder; linear where the networks have no hidden layer, deep where they have several,
    convolutional, recurrent or recursive as their family is. Goodfellow et al. 2016, chapter 14,
    https://www.deeplearningbook.org/contents/autoencoders.html

    Args:
        prior: makes p(z): `Flat` for the plain autoencoder; the command line's N(0, I) is MAP.
        likelihood: makes p(x | z).
        encoder: not used: the guide is a point mass.
        sizes: of the data and the code, and the family of the networks.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
    >>> assemble(*parts, shape=(3,), latent=2, story=autoencoder).encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    return _deterministic(prior, likelihood, sizes)


def sparse(
    prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, rho: float = 0.05, weight: float = 100.0
) -> VAE:
    """`autoencoder` with codes from 0 to 1, and weight * sum_j KL(rho || mean of z_j over the batch) beside its loss.

    Ng 2011, https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf. For sparsity by L1, take `autoencoder` with
    the prior `Laplace`.

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z).
        encoder: not used: the guide is a point mass.
        sizes: of the data and the code, and the family of the networks.
        rho: the share of the data that a unit should be on for.
        weight: of the penalty, in nats per datum: the mean of a code comes to rho only where it outweighs the loss.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
    >>> assemble(*parts, shape=(3,), latent=2, story=sparse).encoder(torch.zeros(5, 3)).mean.min() > 0
    tensor(True)
    """

    def rate(network: nn.Module) -> PointMass:
        return PointMass(nn.Sequential(network, nn.Sigmoid()))

    return _deterministic(prior, likelihood, sizes, KLSparsity(rho, weight), rate)


def denoising(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    corruption: Literal["masking", "gaussian", "salt_and_pepper"] = "masking",
    amount: float = 0.25,
) -> VAE:
    """`autoencoder` that is shown a corrupted x in training, and scored on the clean one.

    Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z).
        encoder: not used: the guide is a point mass.
        sizes: of the data and the code, and the family of the networks.
        corruption: `masking` puts 0 in place of some elements, `salt_and_pepper` the feature's smallest or its largest
            value; `gaussian` adds noise to all.
        amount: the share of the elements that is lost; the noise's standard deviation, on the scale that the network
            sees.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
    >>> story = assemble(*parts, shape=(3,), latent=2, story=denoising)
    >>> bool((story.encoder(torch.ones(9, 3)).mean != story.encoder(torch.ones(9, 3)).mean).any())
    True
    """
    if corruption != "gaussian" and not 0 <= amount <= 1:
        raise ValueError(f"amount should be from 0 to 1, a share of the elements, got {amount}")
    not_negative("amount", amount)
    if corruption == "masking":
        noise: nn.Module = Masking(amount)
    elif corruption == "gaussian":
        noise = GaussianNoise(amount)
    elif corruption == "salt_and_pepper":
        noise = SaltAndPepper(amount, *_range(sizes))
    else:
        raise ValueError(f"corruption should be masking, gaussian or salt_and_pepper, got {corruption}")
    return _deterministic(prior, likelihood, replace(sizes, network=Corrupted(sizes.network, noise)))


def contractive(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    weight: float = 0.1,
    projections: int | None = None,
) -> VAE:
    """`autoencoder` with weight * ||dz/dx||_F^2 beside its loss, x on the scale that the network sees.

    The norm is exact where the encoder is one layer, and an unbiased estimate where it is deeper. Rifai et al. 2011,
    https://icml.cc/2011/papers/455_icmlpaper.pdf

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z).
        encoder: not used: the guide is a point mass.
        sizes: of the data and the code, and the family of the networks.
        weight: in nats per datum for a norm of 1.
        projections: of the estimate; as many as there are latent dimensions cost what the exact norm does. One unless
            given, where there are hidden layers; the exact norm where there are none.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.Flat, likelihoods.Normal, encoders.PointMass)
    >>> assemble(*parts, shape=(3,), latent=2, story=contractive).penalty.projections
    1
    """
    one_layer = isinstance(sizes.network, networks.MLP | networks.GatedMLP) and not sizes.network.hidden
    if projections is None and not one_layer:
        projections = 1
    not_negative("weight", weight)
    penalty = Contraction(weight / sizes.input_scale**2, projections)  # dz/d(s x) = dz/dx / s
    return _deterministic(prior, likelihood, sizes, penalty)


def regularised(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, decay: float = 1e-3) -> VAE:
    """`autoencoder` with decay * ||W||^2 of the decoder's weights beside its loss; the prior N(0, I) adds 1/2 ||z||^2.

    Ghosh et al. 2020, RAE-L2, https://arxiv.org/abs/1903.12436

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z).
        encoder: not used: the guide is a point mass.
        sizes: of the data and the code, and the family of the networks.
        decay: in nats per datum.

    >>> from ppvae.models import assemble, encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.PointMass)
    >>> assemble(*parts, shape=(3,), latent=2, story=regularised).encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    return _deterministic(prior, likelihood, sizes, WeightDecay(decay))


def _deterministic(
    prior: Maker, likelihood: Maker, sizes: Sizes, penalty: Penalty | None = None, code: Maker = PointMass
) -> VAE:
    guide = sizes.encoder(code)
    return VAE(sizes.prior(prior, guide), sizes.likelihood(likelihood), guide, penalty)


def _range(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of every feature, as the network sees them; 0 and 1 without data."""
    if sizes.filled is None:
        return torch.zeros(sizes.features), torch.ones(sizes.features)
    return sizes.filled.amin(0) * sizes.input_scale, sizes.filled.amax(0) * sizes.input_scale
