"""Measures of a fitted story beside its evidence: reconstruction, representation and regularity of the latent space."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor
from torch.distributions import Independent, kl_divergence

DRAWS = 1000  # per datum, where a divergence has no closed form
NEIGHBOURS = 3  # of the balls that stand for a set: Kynkäänniemi et al. 2019
CHUNK = 1000  # rows that are decoded, or compared with others, at a time


class Estimate(NamedTuple):
    """A mean over data, one draw each, and its standard error; nats."""

    value: float
    standard_error: float


class Completeness(NamedTuple):
    """How many samples look like data, and how much of the data the samples reach; each from 0 to 1."""

    precision: float
    recall: float


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
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(n_neighbors=1)
    return _accuracy(model, train, train_labels, test, test_labels)


def probe_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Test accuracy, 0 to 1, of a logistic regression on the standardised codes: how far labels lie linearly in them.

    >>> codes = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> probe_accuracy(codes, torch.tensor([0, 0, 1, 1]), codes, torch.tensor([0, 0, 1, 1]))
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return _accuracy(model, train, train_labels, test, test_labels)


def _accuracy(model: Any, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    if len(train_labels.unique()) < 2:
        return float("nan")  # nothing to tell apart
    arrays = [part.cpu().numpy() for part in (train, train_labels, test, test_labels)]
    model.fit(arrays[0], arrays[1])
    return float((model.predict(arrays[2]) == arrays[3]).mean())


@torch.no_grad()
def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor:
    """E_x KL(q(z_i | x) || p(z_i)) of every latent dimension, `(latent,)` nats; they sum to E_x KL(q(z | x) || p(z)).

    A dimension at 0 has collapsed onto the prior. Infinite where q draws what p excludes. Where torch has no closed
    form it is estimated, by 1000 draws per datum from a seeded stream of their own, and may fall below 0 by its error.

    Args:
        q, p: batch_shapes `(batch,)` and `()`, event_shape `(latent,)` of independent elements, by `.to_event(1)`.

    Raises:
        ValueError: dimensions that depend on each other or differ in number; a point mass, which has no density.

    >>> q = dist.Normal(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), 1.0).to_event(1)
    >>> kl_per_dimension(q, dist.Normal(torch.zeros(2), 1.0).to_event(1))
    tensor([2., 0.])
    """
    of_q, of_p = _elements("q", q), _elements("p", p)
    if q.event_shape != p.event_shape:
        raise ValueError(f"q and p should have as many dimensions, got {q.event_shape[0]} and {p.event_shape[0]}")
    of_p = of_p.expand(of_q.batch_shape)  # some of torch's closed forms are for equal shapes only
    try:
        return kl_divergence(of_q, of_p).reshape(-1, *q.event_shape).mean(dim=0)
    except NotImplementedError:
        return _kl_by_draws(of_q, of_p)


def _elements(name: str, whole: Distribution) -> Distribution:
    """The distributions of single dimensions, batch_shape `(..., latent)`, that `.to_event(1)` made a vector of."""
    if not isinstance(whole, Independent) or len(whole.event_shape) != 1 or whole.base_dist.event_shape:
        raise ValueError(f"{name} should be factorised, as Normal(...).to_event(1) is, got {type(whole).__name__}")
    if isinstance(whole.base_dist, dist.Delta):
        raise ValueError(f"{name} should have a density, got a point mass")
    return whole.base_dist


def _kl_by_draws(q: Distribution, p: Distribution) -> Tensor:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        return torch.stack([_log_ratio(q, p) for _ in range(DRAWS)]).mean(dim=0)


def _log_ratio(q: Distribution, p: Distribution) -> Tensor:
    """log q(z) - log p(z) at a draw z from q, averaged over data: `(latent,)`."""
    z = q.sample()
    inside = p.support.check(z)  # a density refuses to be asked outside its support, where it is 0
    log_p = p.log_prob(torch.where(inside, z, p.sample())).masked_fill(~inside, -torch.inf)
    return (q.log_prob(z) - log_p).reshape(-1, z.shape[-1]).mean(dim=0)


def mutual_information(log_q: Tensor) -> Estimate:
    """I_q(x; z) = E[log N - H(r_n)], r_nm = q(z_n | x_m) / sum_m q(z_n | x_m): what a code tells of whose it is.

    H is the entropy of r_n, the posterior of the datum given its code. From 0 (a collapsed posterior) to log N (no two
    data share a code), and so is every estimate. Of these N data it is unbiased, of the population they come from it is
    biased low, and tells nothing above log N: Poole et al. 2019, https://arxiv.org/abs/1905.06922. The measure is
    Hoffman & Johnson 2016, https://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf

    Args:
        log_q: log q(z_n | x_m), nats, square, `(n, m)`: one draw z_n from q(z | x_n), a density, of every datum.

    >>> mutual_information(torch.tensor([[0.0, -100.0], [-100.0, 0.0]]))  # log 2
    Estimate(value=0.6931471824645996, standard_error=0.0)
    """
    _check_square(log_q)
    entropy = torch.special.entr(torch.softmax(log_q, dim=1)).sum(dim=1)
    return _estimate((math.log(len(log_q)) - entropy).clamp_min(0))  # below 0 by rounding only


def aggregate_gap(log_q: Tensor, log_p: Tensor) -> Estimate:
    """KL(q(z) || p(z)) = E[log 1/N sum_m q(z_n | x_m) - log p(z_n)]: how far the aggregate posterior is off the prior.

    It and `mutual_information` add up to E_x KL(q(z | x) || p(z)), in expectation: Hoffman & Johnson 2016, as there.
    Of the N data's aggregate it is unbiased; of the population's it is biased high, by as much as the other is low.

    Args:
        log_q: as for `mutual_information`, `(n, m)`.
        log_p: log p(z_n), nats, `(n,)`.

    >>> aggregate_gap(torch.zeros(2, 2), torch.tensor([-0.5, -1.5]))
    Estimate(value=1.0, standard_error=0.5)
    """
    log_aggregate = _log_aggregate(log_q)
    if log_p.shape != log_aggregate.shape:
        raise ValueError(f"log_p should have one value for each of {len(log_q)} draws, got {tuple(log_p.shape)}")
    return _estimate(log_aggregate + (log_q.diagonal() - log_p))


def _log_aggregate(log_q: Tensor) -> Tensor:
    """log 1/N sum_m q(z_n | x_m), less log q(z_n | x_n) so that digits are kept: `(n,)`."""
    _check_square(log_q)
    return torch.logsumexp(log_q - log_q.diagonal().unsqueeze(1), dim=1) - math.log(len(log_q))


def _check_square(log_q: Tensor) -> None:
    if log_q.dim() != 2 or len(log_q) != log_q.shape[1] or not len(log_q):
        raise ValueError(f"log_q should be a square matrix, draws by data, got shape {tuple(log_q.shape)}")


def _estimate(terms: Tensor) -> Estimate:
    """The mean, and sd / sqrt N; one term says nothing of its error: infinite."""
    variance = terms.var().item() if len(terms) > 1 else math.inf
    return Estimate(terms.mean().item(), math.sqrt(variance / len(terms)))


@torch.no_grad()
def continuity(decode: Callable[[Tensor], Tensor], starts: Tensor, ends: Tensor, steps: int = 50) -> float:
    """max speed / median speed, where speed = ||x(z') - x(z)|| / ||z' - z|| over steps of straight latent paths.

    1 where the decoder is an isometry times a constant; large where it has cliffs, the more so the shorter the steps:
    compare at equal `steps`. Infinite where most steps change nothing; nan where none changes anything, or every path
    ends where it starts. Speed along paths is Chen et al. 2018, https://arxiv.org/abs/1711.01204

    Args:
        decode: codes `(rows, latent)` to data `(rows, features)`, at most 1000 rows a call.
        starts, ends: of the paths, `(paths, latent)`, as `interpolation_pairs` gives.
        steps: of equal length, per path.

    >>> continuity(torch.square, torch.zeros(1, 1), torch.ones(1, 1), steps=4)  # speeds 1/4, 3/4, 5/4, 7/4
    1.75
    """
    if steps < 1:
        raise ValueError(f"steps should be at least 1, got {steps}")
    if starts.dim() != 2 or starts.shape != ends.shape:
        raise ValueError(f"starts and ends should be (paths, latent), got {[*starts.shape]} and {[*ends.shape]}")
    if torch.equal(starts, ends):
        return math.nan
    parts = torch.stack([starts, ends], dim=1).split(max(1, CHUNK // (steps + 1)))
    speeds = torch.cat([_speeds(decode, part, steps) for part in parts]).cpu().double()
    return (speeds.max() / speeds.quantile(0.5)).item()


def _speeds(decode: Callable[[Tensor], Tensor], ends: Tensor, steps: int) -> Tensor:
    """The speed of every step that moves the code: rounding may undo some of a very short path's."""
    time = torch.linspace(0, 1, steps + 1, dtype=ends.dtype, device=ends.device).unsqueeze(1)
    z = torch.lerp(ends[:, :1], ends[:, 1:], time)  # (paths, steps + 1, latent)
    x = torch.cat([decode(rows) for rows in z.flatten(0, 1).split(CHUNK)]).unflatten(0, z.shape[:2])
    length, change = (points.diff(dim=1).norm(dim=-1) for points in (z, x))
    return change[length != 0] / length[length != 0]


def interpolation_pairs(codes: Tensor, paths: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Starts and ends of paths, `(paths, latent)`: two different rows of at least 2 codes each, by a seed of their own.

    >>> sum(interpolation_pairs(torch.tensor([[0.0], [1.0]]), paths=5)).T
    tensor([[1., 1., 1., 1., 1.]])
    """
    if len(codes) < 2:
        raise ValueError(f"a path needs at least 2 codes to lead between, got {len(codes)}")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(codes), (paths,), generator=generator)
    offset = torch.randint(1, len(codes), (paths,), generator=generator)  # never 0, so never the same row
    return codes[first.to(codes.device)], codes[((first + offset) % len(codes)).to(codes.device)]


def completeness(data: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS, rows: int = 5000) -> Completeness:
    """Precision: the share of samples s with ||s - x|| <= r(x) for some datum x. Recall: the same, the roles swapped.

    r(x) is the distance from x to its k-th nearest other datum, k = `neighbours`. Distances are Euclidean, between the
    rows as given; take as many samples as data, since fewer points have wider balls.
    Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991

    Args:
        data, samples: `(N, features)`; at most the first `rows` of each are taken, as time grows with their square.

    Raises:
        ValueError: values that are not finite, or no more rows than neighbours.

    >>> data = torch.arange(10.0).unsqueeze(1)
    >>> completeness(data, data / 2)  # samples from 0 to 4.5, the widest ball of which reaches 6
    Completeness(precision=1.0, recall=0.7)
    """
    if data.dim() != 2 or data.shape[1:] != samples.shape[1:]:
        raise ValueError(f"data and samples should be (N, features), got {[*data.shape]} and {[*samples.shape]}")
    data, samples = (part[:rows].cpu().double() for part in (data, samples))
    for name, part in (("data", data), ("samples", samples)):
        if not 1 <= neighbours < len(part):
            raise ValueError(f"neighbours should be at least 1 and fewer than {name}, got {neighbours} of {len(part)}")
        if not part.isfinite().all():
            raise ValueError(f"{name} should be finite, got {part[~part.isfinite()][0].item()}")
    data, samples = data - data.mean(dim=0), samples - data.mean(dim=0)  # keeps digits: only differences count
    return Completeness(_share_inside(samples, data, neighbours), _share_inside(data, samples, neighbours))


def _share_inside(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of points inside a ball around some centre that reaches the centre's k-th nearest other one."""
    from sklearn.neighbors import NearestNeighbors

    radii = torch.from_numpy(NearestNeighbors(n_neighbors=neighbours).fit(centres.numpy()).kneighbors()[0][:, -1])
    rounding = 4 * max(centres.shape[1], 4) * torch.finfo(centres.dtype).eps  # so that a tie, or a duplicate, is inside
    inside = 0
    for part in points.split(CHUNK):
        sizes = part.square().sum(dim=1, keepdim=True) + centres.square().sum(dim=1)  # (rows, centres)
        squared = sizes - 2 * part @ centres.T
        inside += int((squared <= radii.square() + rounding * sizes).any(dim=1).sum())
    return inside / len(points)
