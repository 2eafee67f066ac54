"""Every objective's value and gradient, on average over its draws, against quadrature and enumeration."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppvae.inference import objectives
from ppvae.selfcheck.analytic import Enumerable, LinearGaussian
from ppvae.selfcheck.checks import Check, against, equal

REPEATS, COPIES = 100, 60  # of an objective, and of every datum in each: the spread over repeats is its error
WHERE = "linear-Gaussian"

Objective = Callable[..., Tensor]
Reduction = Callable[[Tensor], Tensor]


def mean_bound(log_w: Tensor) -> Tensor:
    """The ELBO, as a reduction of log-weights."""
    return log_w.mean(0)


def tight_bound(log_w: Tensor) -> Tensor:
    """The importance weighted bound, written out: what is checked should not check itself."""
    return log_w.exp().mean(0).log()


def renyi_bound(log_w: Tensor, alpha: float = 0.5) -> Tensor:
    """The Renyi bound."""
    return ((1 - alpha) * log_w).exp().mean(0).log() / (1 - alpha)


def between_bound(log_w: Tensor, beta: float = 0.3) -> Tensor:
    """A share of the one and of the other."""
    return beta * mean_bound(log_w) + (1 - beta) * tight_bound(log_w)


def _two(name: str, **options: Any) -> Objective:
    return partial(getattr(objectives, name), particles=2, **options)


CONTINUOUS: dict[str, tuple[Objective, Reduction]] = {
    "elbo": (_two("elbo"), mean_bound),
    "mean_field_elbo": (_two("mean_field_elbo"), mean_bound),
    "free_bits": (_two("free_bits", nats=0.0), mean_bound),
    "sticking_the_landing": (_two("sticking_the_landing"), mean_bound),
    "iwae": (_two("iwae"), tight_bound),
    "miwae": (_two("miwae", outer=2), tight_bound),
    "ciwae": (_two("ciwae", beta=0.3), between_bound),
    "renyi": (_two("renyi", alpha=0.5), renyi_bound),
    "dreg": (_two("dreg"), tight_bound),
    "vimco": (_two("vimco"), tight_bound),
}
"""Objectives of a latent whose draws pass a gradient, and the bound that each should follow on average."""

DISCRETE: dict[str, tuple[Objective, Reduction]] = {
    "elbo": (_two("elbo"), mean_bound),
    "enumerated_elbo": (objectives.enumerated_elbo, mean_bound),
    "iwae": (_two("iwae"), tight_bound),
    "miwae": (_two("miwae", outer=2), tight_bound),
    "ciwae": (_two("ciwae", beta=0.3), between_bound),
    "renyi": (_two("renyi", alpha=0.5), renyi_bound),
    "vimco": (_two("vimco"), tight_bound),
}
"""The same for a latent whose draws pass none."""

BY_ROLE = ("piwae", "wake_sleep", "maximum_a_posteriori")
"""Objectives that are no single bound, or draw nothing."""


def objective_checks() -> Iterator[Check]:
    """Two lines for every objective, its value and the element of its gradient that is furthest off."""
    known = LinearGaussian(latent=1, features=3)
    x = known.data(3)
    for name, (objective, bound) in CONTINUOUS.items():
        story = known.story(widen=1.4, shift=0.3)
        truth = -known.expected(story, x, bound).mean()
        yield from _value_and_gradient(WHERE, name, story, objective, x, truth)
    yield from _by_role(known, x)
    y = torch.linspace(-1, 2, 4).double()
    for name, (objective, bound) in DISCRETE.items():
        discrete = Enumerable()
        truth = -discrete.expected(y, bound).mean()
        yield from _value_and_gradient("enumerable", name, discrete, objective, y, truth)


def _by_role(known: LinearGaussian, x: Tensor) -> Iterator[Check]:
    story = known.story(widen=1.4, shift=0.3)
    tight = _gradient(story, -known.expected(story, x, tight_bound).mean())
    loose = _gradient(story, -known.expected(story, x, mean_bound).mean())
    awake = _gradient(story, -known.awake(story, x).mean())
    piwae = partial(objectives.piwae, outer=2, particles=1)
    yield _gradient_check(WHERE, "piwae", _replicates(story, piwae, x)[1], _roles(tight, loose))
    wake = _two("wake_sleep", insomnia=1.0)
    yield _gradient_check(WHERE, "wake_sleep", _replicates(story, wake, x)[1], _roles(tight, awake))
    mean = story.encoder(x).mean
    truth = -(story.prior().log_prob(mean) + story.likelihood(mean).log_prob(x)).mean()
    found = objectives.maximum_a_posteriori(story, x)
    yield equal("value", WHERE, "maximum_a_posteriori", found.detach(), truth.detach())
    figure, exact = (torch.cat([g.reshape(-1) for g in _gradient(story, loss).values()]) for loss in (found, truth))
    yield equal("gradient", WHERE, "maximum_a_posteriori", figure, exact)


def _roles(model: dict[str, Tensor], guide: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of one bound for the model's parameters, of another for the guide's."""
    return {name: (guide if name.startswith("encoder") else model)[name] for name in model}


def _value_and_gradient(
    where: str, name: str, story: Any, objective: Objective, x: Tensor, truth: Tensor
) -> Iterator[Check]:
    values, gradients = _replicates(story, objective, x)
    if values.std() < 1e-10:  # it draws nothing
        yield equal("value", where, name, values, truth.detach())
    else:
        error = (values.std() / len(values) ** 0.5).item()
        yield against("value", where, name, values.mean().item(), truth.item(), error)
    yield _gradient_check(where, name, gradients, _gradient(story, truth))


def _gradient(story: Any, loss: Tensor) -> dict[str, Tensor]:
    named = {name: parameter for name, parameter in story.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))


def _replicates(story: Any, objective: Objective, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, `(repeats,)`, and of every parameter its gradient, `(repeats, ...)`."""
    many = x.repeat_interleave(COPIES, dim=0)
    losses, gradients = [], []
    for _ in range(REPEATS):
        loss = objective(story, many)
        losses.append(loss.detach())
        gradients.append(_gradient(story, loss))
    return torch.stack(losses), {name: torch.stack([g[name] for g in gradients]) for name in gradients[0]}


def _gradient_check(where: str, name: str, found: dict[str, Tensor], truth: dict[str, Tensor]) -> Check:
    """The element of the gradient that is furthest from the truth in standard errors; first, one without noise."""
    every = torch.cat([found[n].reshape(REPEATS, -1) for n in truth], dim=1)
    expected = torch.cat([truth[n].reshape(-1) for n in truth])
    mean, error = every.mean(0), every.std(0) / REPEATS**0.5
    noisy = error > 1e-9 * (1 + expected.abs())
    still = equal("gradient", where, name, mean[~noisy], expected[~noisy], 1e-7) if not noisy.all() else None
    if still is not None and (not still.passed or not noisy.any()):
        return still
    worst = int(torch.where(noisy, ((mean - expected) / error).abs(), 0.0).argmax())
    return against("gradient", where, name, mean[worst].item(), expected[worst].item(), error[worst].item())
