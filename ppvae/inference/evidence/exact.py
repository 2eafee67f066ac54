"""Exact evidence: a sum over discrete latents, or the integral of a log-density that is a quadratic of z."""

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.posteriors.laplace import ROWS
from ppvae.inference.posteriors.newton import climb, curvature
from ppvae.inference.program.checks import observed, of_factors
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import Site, evaluating, latent_sites, run, support_of
from ppvae.inference.program.unconstrained import check_alike, model_densities, unconstrain
from ppvae.inference.program.weights import log_joint
from ppvae.progress import track

MOST = 100_000  # values of all discrete latents together that are summed over
AT_ONCE = 65_536  # of them, times data


def exact(story: Story, data: Batch, *, progress: bool = True) -> Evidence:
    """log p(x), exact: log sum_z p(x, z) where every latent is discrete; log of the integral where p is Gaussian in z.

    For a linear-Gaussian story log p(x, z) = log p(x, m) - 1/2 (z - m)' H (z - m), whatever the program looks like, so
    that log p(x) = log p(x, m) + d/2 log 2 pi - 1/2 log det H. That it is such a quadratic is checked for every datum,
    at points in random directions up to four standard deviations from m.

    Args:
        story: any object with `model` and `guide`; the guide is not used.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        progress: whether to show a bar.

    Raises:
        ValueError: latents of both kinds; more than 100,000 values to sum over; a log-density that is no quadratic; an
            improper prior; data that the story cannot score.
    """
    task = prepared(story, data)
    measure, factors = observed(story, task.first)
    with own_generators(), evaluating(story), torch.no_grad():
        sites = list(latent_sites(run(story.model, task.first, particles=1)))
    discrete = [site for site in sites if _is_discrete(site)]
    if discrete and len(discrete) < len(sites):
        names = ", ".join(site["name"] for site in sites if not _is_discrete(site))
        raise ValueError(
            f"exact needs latents that are all discrete, or all Gaussian; '{discrete[0]['name']}' is discrete and "
            f"{names} is not: use importance"
        )
    with task.running(), torch.no_grad():
        log_p = _summed(task, discrete, progress) if discrete else _integrated(task, progress)
    nothing = torch.full_like(log_p, torch.nan)
    method = "a sum over its discrete latents" if discrete else "the integral of a Gaussian"
    return Evidence(
        estimate=log_p,
        standard_error=torch.zeros_like(log_p),
        ess=nothing,
        pareto_k=torch.full_like(log_p, -torch.inf),
        elbo=nothing,
        elbo_standard_error=nothing,
        particles=torch.zeros_like(log_p, dtype=torch.long),
        bound="exact",
        method=method + of_factors(factors),
        measure=measure,
    )


def _is_discrete(site: Site) -> bool:
    support = support_of(site["fn"])
    return support is not None and bool(support.is_discrete)


def _summed(task: Prepared, sites: list[Site], progress: bool) -> Tensor:
    if any(site["mask"] is not None for site in sites):
        check_alike(task.story, task.batch, "exact")
    values = {site["name"]: support_values(site) for site in sites}
    count = math.prod(len(value) for value in values.values())
    if count > MOST:
        raise ValueError(f"exact sums over at most {MOST} values of all latents together; this story has {count}")
    places = torch.cartesian_prod(*(torch.arange(len(value)) for value in values.values())).reshape(count, -1)
    taken = {name: value[places[:, i]] for i, (name, value) in enumerate(values.items())}  # (count, *event)
    found = []
    for some in track(task.chunks(max(1, AT_ONCE // count)), "sum over latents", show=progress):
        latents = {n: v.unsqueeze(1).expand(-1, len(some), *v.shape[1:]) for n, v in taken.items()}
        found.append(torch.logsumexp(log_joint(task.story, some.batch, latents, particles=count).double(), dim=0))
    return torch.cat(found)


def support_values(site: Site) -> Tensor:
    """Every value of a discrete site: `(values, *event)`.

    Raises:
        ValueError: a site in an inner plate, whose places each have values; a support that cannot be listed.
    """
    fn, event = site["fn"], tuple(site["fn"].event_shape)
    if site["value"].dim() - len(event) > 2:
        raise ValueError(f"exact sums over sites of the data plate; '{site['name']}' lies in another plate too")
    elements = 0
    while isinstance(fn, dist.Independent):
        elements += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    try:
        values = fn.enumerate_support(expand=False)
    except NotImplementedError as error:
        raise ValueError(
            f"exact sums over values that can be listed; those of '{site['name']}' ({type(fn).__name__}) cannot: use "
            "importance"
        ) from error
    values = values.reshape(len(values), *fn.event_shape)
    if not elements:
        return values.reshape(-1, *event)
    size = torch.Size(event[:elements]).numel()
    if len(values) ** size > MOST:
        raise ValueError(f"exact sums over at most {MOST} values; '{site['name']}' has {len(values)}^{size}")
    places = torch.cartesian_prod(*[torch.arange(len(values))] * size).reshape(-1, size)
    return values[places].reshape(-1, *event)


def _integrated(task: Prepared, progress: bool) -> Tensor:
    flat = unconstrain(task.story, task.batch, "an exact integral")
    found = []
    for some in track(task.chunks(ROWS), "integrals", show=progress):
        densities = model_densities(task.story, some.batch, flat)

        def log_p(u: Tensor, densities: Callable[[Tensor], tuple[Tensor, Tensor]] = densities) -> Tensor:
            return densities(u.unsqueeze(0))[0][0]

        drawn = {site["name"]: site["value"] for site in latent_sites(run(task.story.model, some.batch, particles=1))}
        mode = climb(log_p, torch.zeros_like(flat.vector(drawn)[0]), steps=4)
        _, root = curvature(log_p, mode)
        _check_quadratic(log_p, mode, root)
        volume = torch.linalg.slogdet(root.double()).logabsdet
        found.append(log_p(mode).double() + flat.size / 2 * math.log(2 * math.pi) + volume)
    return torch.cat(found)


def _check_quadratic(log_p: Callable[[Tensor], Tensor], mode: Tensor, root: Tensor) -> None:
    best, generator = log_p(mode), torch.Generator().manual_seed(0)
    for distance in (1.0, 2.0, 4.0, 4.0):
        ray = torch.randn(*mode.shape, generator=generator, dtype=mode.dtype).to(mode.device)
        ray = distance * ray / ray.norm(dim=-1, keepdim=True)
        value = log_p(mode + (root @ ray.unsqueeze(-1)).squeeze(-1))
        tolerance = 100 * torch.finfo(mode.dtype).eps ** 0.7 * (1 + best.abs() + distance**2)
        if not ((value - best + distance**2 / 2).abs() <= tolerance).all():
            raise ValueError(
                "exact needs discrete latents, or a linear-Gaussian story, whose log p(x, z) is a quadratic of z; that "
                "of this one is not: use importance, annealed or laplace_evidence"
            )
