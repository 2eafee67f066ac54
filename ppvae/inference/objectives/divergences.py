"""ELBOs whose KL is a closed form wherever there is one: the plain one, and one that leaves a few nats free."""

from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from ppvae.base import Batch, Scalar, Story
from ppvae.inference.objectives.terms import Terms, check_reparameterised, not_negative, weigh_terms
from ppvae.inference.program.traces import Site, is_auxiliary, is_point_mass, latent_sites


def mean_field_elbo(story: Story, data: Batch, *, particles: int = 1, beta: Scalar = 1.0) -> Tensor:
    """-(E_q[log p(x | z)] - beta sum_i KL(q_i || p_i)), every KL in closed form where there is one, nats per datum.

    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114. Pyro's `TraceMeanField_ELBO` divided by the batch: i goes
    over the latent sites, whose KL is between the two distributions that the programs draw it from, given what came
    before; it is sampled where torch knows none. Less noise than `elbo` far from a good guide, more near one.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum.
        beta: weight of the KL, a number or a 0-d tensor.

    Raises:
        ValueError: particles below 1; beta below 0 or not finite; latents that pass no gradient, or that model and
            guide draw in different orders.
    """
    not_negative(beta=beta)
    terms = weigh_terms(story, data, particles, scaled=True)
    divergence = torch.stack([kl.sum_to_size(kl.shape[-2:]) for kl in divergences(terms)]).sum(0)
    return (terms.factors + beta * divergence - terms.log_likelihood).mean()


def free_bits(story: Story, data: Batch, *, particles: int = 1, nats: float = 0.1, beta: Scalar = 1.0) -> Tensor:
    """-E_q[log p(x | z)] + beta sum_j max(nats, KL_j), KL_j averaged over the batch, nats per datum.

    Kingma et al. 2016, appendix C.8, https://arxiv.org/abs/1606.04934. A group j whose KL is below `nats` is not pushed
    lower, so that the decoder may learn to use it. It is a latent dimension where both q and p fall apart into
    independent ones, else a whole site (or all sites, of an autoguide whose latents are functions of one another). KLs
    are closed forms where there are any. The loss is no smaller than the ELBO's: still a bound on -log p(x).

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum.
        nats: what every group has free.
        beta: weight of the sum, a number or a 0-d tensor.

    Raises:
        ValueError: particles below 1; nats or beta below 0 or not finite; latents that pass no gradient, or that model
            and guide draw in different orders.
    """
    not_negative(nats=nats, beta=beta)
    terms = weigh_terms(story, data, particles, scaled=True)
    groups = [kl.mean((-2, -1)).clamp_min(nats).sum() for kl in divergences(terms)]
    return beta * torch.stack(groups).sum() + (terms.factors - terms.log_likelihood).mean()


def divergences(terms: Terms) -> list[Tensor]:
    """KL(q || p(z)) in parts, one a site: `(groups of independent dimensions ..., particles, batch)` nats."""
    check_reparameterised(terms.guide)
    latents = list(latent_sites(terms.guide))
    if not latents or any(is_auxiliary(site) for site in latents):
        return [terms.log_q - terms.log_prior]
    _check_order(terms)
    expected: dict[str, Any] = dict(terms.model.nodes)
    return [_divergence(site, expected[site["name"]]) for site in latents]


def _check_order(terms: Terms) -> None:
    """A KL given what came before is a term of the ELBO where the same came before in both."""
    drawn = [site["name"] for site in latent_sites(terms.guide)]
    expected = [name for name in terms.model.nodes if name in set(drawn)]
    if drawn != expected:
        raise ValueError(
            "model and guide should draw their latents in the same order for a KL in closed form, got "
            f"{', '.join(expected)} in the model and {', '.join(drawn)} in the guide: elbo takes any order"
        )


def _divergence(guide: Site, model: Site) -> Tensor:
    q, p, dims = _dimensions(guide["fn"], model["fn"])
    try:
        if is_point_mass(q):  # Pyro's closed form forgets its log_density
            raise NotImplementedError
        return _scaled(kl_divergence(q, p), guide, dims)
    except NotImplementedError:
        value = guide["value"]
        return _scaled(q.log_prob(value), guide, dims) - _scaled(p.log_prob(value), model, dims)


def _dimensions(q: Any, p: Any) -> tuple[Any, Any, int]:
    """Both without the event dimensions over which both are products, and how many those are."""
    dims = 0
    while isinstance(q, Independent) and isinstance(p, Independent):
        if q.reinterpreted_batch_ndims != p.reinterpreted_batch_ndims:
            break
        dims += q.reinterpreted_batch_ndims
        q, p = q.base_dist, p.base_dist
    return q, p, dims


def _scaled(kl: Tensor, site: Site, dims: int) -> Tensor:
    """Masked and scaled as `log_density` does, after the independent dimensions went to the front."""
    frames = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    kl = kl.movedim(tuple(range(-dims, 0)), tuple(range(dims)))
    return scale_and_mask(kl, site["scale"] / (frames[-1].full_size / frames[-1].size), site["mask"])
