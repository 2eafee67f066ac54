"""Measures on constructed cases where the answer is known."""

import math
from itertools import permutations, product

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from ppvae.evaluation import metrics


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


def normal(loc, scale):
    return dist.Normal(loc, scale).to_event(1)


def standard(latent):
    return normal(torch.zeros(latent), torch.ones(latent))


def test_kl_per_dimension_is_that_of_normals_by_hand_and_sums_to_the_whole():
    loc, scale, wide = torch.randn(7, 3), torch.rand(7, 3) + 0.5, torch.tensor([0.5, 1.0, 2.0])
    q, p = normal(loc, scale), normal(torch.ones(3), wide)
    by_hand = (wide / scale).log() + (scale**2 + (loc - 1) ** 2) / (2 * wide**2) - 0.5
    found = metrics.kl_per_dimension(q, p)
    torch.testing.assert_close(found, by_hand.mean(dim=0))
    torch.testing.assert_close(found.sum(), kl_divergence(q, p).mean())
    torch.testing.assert_close(metrics.kl_per_dimension(normal(loc[:1], scale[:1]), p), by_hand[0])


def test_the_closed_forms_of_other_pairs_are_torchs():
    laplace = dist.Laplace(torch.zeros(3), 1.0).to_event(1)
    q = normal(torch.randn(7, 3), torch.ones(7, 3))
    torch.testing.assert_close(metrics.kl_per_dimension(q, laplace).sum(), kl_divergence(q, laplace).mean())
    flat = dist.Uniform(torch.zeros(2), torch.ones(2)).to_event(1)  # torch's own form fails at unequal shapes
    beta = dist.Beta(torch.full((5, 2), 2.0), torch.tensor([1.0, 3.0])).to_event(1)
    torch.testing.assert_close(metrics.kl_per_dimension(beta, flat), -beta.base_dist.entropy()[0])


def test_kl_without_a_closed_form_is_estimated_by_draws_of_its_own():
    loc, scale = torch.tensor([[0.0, 2.0], [1.0, 2.0]]), torch.tensor([0.5, 1.5])
    p = dist.StudentT(torch.tensor(3.0), torch.zeros(2), 1.0).to_event(1)
    q = normal(loc, scale.expand(2, 2))
    z = torch.linspace(-20, 25, 20001).reshape(-1, 1, 1)
    log_ratio = q.base_dist.log_prob(z) - p.base_dist.log_prob(z)
    density = q.base_dist.log_prob(z).exp() * (z[1] - z[0])
    mean = (density * log_ratio).sum(dim=0)  # (batch, latent)
    variance = (density * (log_ratio - mean) ** 2).sum(dim=0)
    error = variance.sum(dim=0).sqrt() / 2 / metrics.DRAWS**0.5
    state = torch.get_rng_state()
    found = metrics.kl_per_dimension(q, p)
    assert ((found - mean.mean(dim=0)).abs() < 4 * error).all()
    assert (error < 0.1).all()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(metrics.kl_per_dimension(q, p), found)


def test_kl_is_infinite_in_the_dimensions_where_q_draws_what_p_excludes():
    positive = dist.HalfNormal(torch.ones(3)).to_event(1)
    q = normal(torch.tensor([[0.0, 100.0, 0.0]]), torch.ones(1, 3))
    assert metrics.kl_per_dimension(q, positive).isinf().tolist() == [True, False, True]


MIXTURE = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), normal(torch.zeros(2, 3), 1.0))


@pytest.mark.parametrize(
    ("q", "p", "rule"),
    [
        (
            dist.MultivariateNormal(torch.zeros(4, 3), torch.eye(3)),
            standard(3),
            "^q .* factorised.* MultivariateNormal$",
        ),
        (normal(torch.zeros(4, 3), 1.0), MIXTURE, "^p .* factorised.* got MixtureSameFamily$"),
        (
            dist.Independent(dist.MultivariateNormal(torch.zeros(4, 3), torch.eye(3)), 0),
            standard(3),
            "^q .* factorised",
        ),
        (normal(torch.zeros(4, 3), 1.0), dist.Normal(torch.zeros(2, 3), 1.0).to_event(2), "^p .* factorised"),
        (dist.Normal(torch.zeros(4, 3), 1.0), standard(3), "^q .* factorised.* got Normal$"),
        (dist.Delta(torch.zeros(4, 3)).to_event(1), standard(3), "^q should have a density, got a point mass$"),
        (normal(torch.zeros(4, 3), 1.0), standard(1), "^q and p should have as many dimensions, got 3 and 1$"),
    ],
)
def test_kl_per_dimension_refuses_what_has_no_dimensions_apart(q, p, rule):
    with pytest.raises(ValueError, match=rule):
        metrics.kl_per_dimension(q, p)


def densities(loc, scale):
    """log q(z_n | x_m) of normals, and the draws z_n."""
    z = loc + scale * torch.randn_like(loc)
    return dist.Normal(loc, scale).to_event(1).log_prob(z.unsqueeze(1)), z


def test_mutual_information_of_clusters_far_apart_is_the_logarithm_of_their_number():
    log_q, _ = densities(1000.0 * torch.arange(3).repeat(20).unsqueeze(1), 1.0)
    value, error = metrics.mutual_information(log_q)
    assert abs(value - math.log(3)) < 1e-6
    assert error < 1e-6


def test_codes_that_tell_nothing_have_no_information_and_only_the_gap():
    log_q, z = densities(torch.ones(50, 2), 0.5)
    assert metrics.mutual_information(log_q) == (0, 0)
    log_p = standard(2).log_prob(z)
    assert metrics.aggregate_gap(log_q, log_q[:, 0]) == (0, 0)  # q(z | x) = p(z)
    terms = log_q[:, 0] - log_p
    torch.testing.assert_close(torch.tensor(metrics.aggregate_gap(log_q, log_p)), mean_and_error(terms))


def mean_and_error(terms):
    return torch.stack([terms.mean(), terms.std() / len(terms) ** 0.5])


def test_the_two_parts_of_the_divergence_by_hand():
    log_q = torch.tensor([[0.5, 0.1], [0.2, 0.8]]).log()
    log_p = torch.tensor([0.7, 0.3]).log()
    shares = torch.tensor([[0.5 / 0.6, 0.1 / 0.6], [0.2, 0.8]])
    information = math.log(2) + (shares * shares.log()).sum(1)
    gap = torch.tensor([0.3 / 0.7, 0.5 / 0.3]).log()
    torch.testing.assert_close(torch.tensor(metrics.mutual_information(log_q)), mean_and_error(information))
    torch.testing.assert_close(torch.tensor(metrics.aggregate_gap(log_q, log_p)), mean_and_error(gap))


def test_the_two_parts_add_up_to_the_divergence():
    log_q, z = densities(torch.randn(2000, 2), 0.8)
    log_p = standard(2).log_prob(z)
    parts = (metrics.mutual_information(log_q), metrics.aggregate_gap(log_q, log_p))
    whole, error = mean_and_error(log_q.diagonal() - log_p)
    error = (error**2 + sum(part.standard_error**2 for part in parts)) ** 0.5
    assert abs(sum(part.value for part in parts) - whole) < 4 * error
    assert error < 0.1


def test_information_is_never_negative():
    for seed in range(20):
        torch.manual_seed(seed)
        log_q, _ = densities(0.01 * torch.randn(30, 2), 1.0)
        assert 0 <= metrics.mutual_information(log_q).value < 0.01


def test_the_two_parts_are_unbiased_for_these_data(double):
    """Every draw of three data with a code of two values, weighted by its probability."""
    q = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]])
    p, aggregate = torch.tensor([0.2, 0.8]), q.mean(dim=0)
    expected = torch.zeros(2)
    for z in product(range(2), repeat=3):
        chance = q[torch.arange(3), list(z)].prod()
        log_q = q.log().T[list(z)]  # (draws, data)
        found = metrics.mutual_information(log_q), metrics.aggregate_gap(log_q, p.log()[list(z)])
        expected += chance * torch.tensor([estimate.value for estimate in found])
    information = (q * (q / aggregate).log()).sum(dim=1).mean()
    gap = (aggregate * (aggregate / p).log()).sum()
    torch.testing.assert_close(expected, torch.stack([information, gap]))


def test_a_gaussian_channel_has_its_information_and_its_gap_within_standard_errors():
    spread, noise = 1.5, 0.8  # aggregate N(0, spread^2 + noise^2); the bias, some 1/N, is far below the error
    log_q, z = densities(spread * torch.randn(3000, 1), noise)
    variance = spread**2 + noise**2
    information = metrics.mutual_information(log_q)
    gap = metrics.aggregate_gap(log_q, standard(1).log_prob(z))
    assert abs(information.value - 0.5 * math.log(variance / noise**2)) < 4 * information.standard_error
    assert abs(gap.value - 0.5 * (variance - 1 - math.log(variance))) < 4 * gap.standard_error
    assert max(information.standard_error, gap.standard_error) < 0.05


def test_information_is_at_most_log_n_and_one_datum_tells_nothing_of_its_error():
    assert metrics.mutual_information(torch.tensor([[3.0]])) == (0, math.inf)
    assert metrics.aggregate_gap(torch.tensor([[3.0]]), torch.tensor([1.0])) == (2, math.inf)
    assert metrics.mutual_information(torch.full((8, 8), -1e6)).value < 1e-6
    apart = torch.full((4, 4), -torch.inf).fill_diagonal_(0.0)
    assert metrics.mutual_information(apart).value == pytest.approx(math.log(4))


@pytest.mark.parametrize("shape", [(3, 2), (3,), (0, 0)])
def test_densities_of_draws_by_data_are_square(shape):
    with pytest.raises(ValueError, match="log_q should be a square matrix"):
        metrics.mutual_information(torch.zeros(shape))


def test_the_gap_needs_a_prior_density_for_every_draw():
    with pytest.raises(ValueError, match=r"^log_p should have one value for each of 3 draws, got \(3, 1\)$"):
        metrics.aggregate_gap(torch.zeros(3, 3), torch.zeros(3, 1))


def paths(latent=3, count=20):
    return torch.randn(count, latent), torch.randn(count, latent)


def test_an_isometry_is_continuous_whatever_its_scale():
    columns = torch.linalg.qr(torch.randn(6, 3)).Q
    assert metrics.continuity(lambda z: 7 * z @ columns.T + 1, *paths()) == pytest.approx(1, abs=1e-3)


def test_continuity_of_a_linear_map_is_its_largest_over_its_median_stretch(double):
    stretch = torch.tensor([1.0, 3.0, 10.0])
    axes = torch.eye(3)
    assert metrics.continuity(lambda z: stretch * z, -axes, axes) == pytest.approx(10 / 3)
    assert metrics.continuity(lambda z: stretch * z, -axes[:2], 2 * axes[:2]) == pytest.approx(3 / 2)  # median 2


@pytest.mark.parametrize("steps", [5, 50])
def test_a_jump_counts_as_much_as_its_height_over_the_length_of_a_step(steps, double):
    jump = metrics.continuity(lambda z: z + 2 * (z > 0.33), torch.zeros(1, 1), torch.full((1, 1), 2.0), steps)
    assert jump == pytest.approx(1 + 2 * steps / 2)


def test_continuity_is_indifferent_to_the_scale_of_the_codes(double):
    starts, ends = paths()
    scaled = metrics.continuity(lambda z: (z / 10).tanh().cumsum(-1), 10 * starts, 10 * ends)
    plain = metrics.continuity(lambda z: z.tanh().cumsum(-1), starts, ends)
    assert scaled == pytest.approx(plain)
    assert plain > 2


def test_continuity_where_little_or_nothing_moves():
    starts, ends = torch.zeros(2, 1), torch.ones(2, 1)
    assert metrics.continuity(lambda z: (z > 0.5).float(), starts, ends) == math.inf
    assert math.isnan(metrics.continuity(torch.zeros_like, starts, ends))
    assert math.isnan(metrics.continuity(lambda z: z, starts, starts))
    assert math.isnan(metrics.continuity(lambda z: z, starts[:0], ends[:0]))
    assert math.isnan(metrics.continuity(lambda z: z / 0, starts, ends))


def test_paths_that_lead_nowhere_are_left_out():
    starts, ends = torch.tensor([[0.0], [5.0], [5.0]]), torch.tensor([[1.0], [5.0], [5.0]])
    assert metrics.continuity(torch.square, starts, ends, 4) == metrics.continuity(
        torch.square, starts[:1], ends[:1], 4
    )
    barely = starts[1:2].nextafter(torch.tensor(9.0))  # its steps are lost in rounding but for one
    assert metrics.continuity(lambda z: 2 * z, starts[1:2], barely) == 1


@pytest.mark.parametrize(("count", "steps"), [(150, 50), (2, 1500)])
def test_continuity_decodes_a_bounded_number_of_rows_at_a_time(count, steps, double):
    rows = []

    def decode(z):
        rows.append(len(z))
        return z**3

    starts, ends = paths(1, count)
    found = metrics.continuity(decode, starts, ends, steps)
    assert max(rows) <= metrics.CHUNK
    assert sum(rows) == count * (steps + 1)
    assert steps > metrics.CHUNK or not any(size % (steps + 1) for size in rows)  # nor keeps more: paths are done whole
    z = starts + (ends - starts) * torch.arange(steps + 1) / steps  # (paths, steps + 1)
    speeds = ((z**3).diff(dim=1) / z.diff(dim=1)).flatten()
    assert found == pytest.approx((speeds.max() / speeds.quantile(0.5)).item())


def test_continuity_says_what_it_needs():
    with pytest.raises(ValueError, match=r"^steps should be at least 1, got 0$"):
        metrics.continuity(lambda z: z, *paths(), steps=0)
    with pytest.raises(ValueError, match=r"^starts and ends should be \(paths, latent\), got \[2, 3\] and \[2, 1\]$"):
        metrics.continuity(lambda z: z, torch.zeros(2, 3), torch.zeros(2, 1))


def test_interpolation_pairs_are_different_rows_of_a_stream_of_their_own():
    codes = torch.stack([torch.arange(4.0), torch.arange(4.0) ** 2], dim=1)
    state = torch.get_rng_state()
    starts, ends = metrics.interpolation_pairs(codes, paths=500)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(starts[:, 1], starts[:, 0] ** 2)
    assert torch.equal(ends[:, 1], ends[:, 0] ** 2)
    met = {(int(start), int(end)) for start, end in zip(starts[:, 0], ends[:, 0], strict=True)}
    assert met == set(permutations(range(4), 2))
    again, other = (metrics.interpolation_pairs(codes, 500, seed)[0] for seed in (0, 1))
    assert torch.equal(again, starts)
    assert not torch.equal(other, starts)
    assert metrics.interpolation_pairs(codes)[1].shape == (100, 2)
    with pytest.raises(ValueError, match=r"^a path needs at least 2 codes to lead between, got 1$"):
        metrics.interpolation_pairs(codes[:1])


def brute_force(data, samples, neighbours):
    """The definition, one pair at a time."""

    def share(points, centres):
        apart = [[math.dist(a, b) for j, b in enumerate(centres) if i != j] for i, a in enumerate(centres)]
        radii = [sorted(row)[neighbours - 1] for row in apart]
        balls = list(zip(centres, radii, strict=True))
        return sum(any(math.dist(point, c) <= r for c, r in balls) for point in points) / len(points)

    data, samples = data.double().tolist(), samples.double().tolist()
    return share(samples, data), share(data, samples)


@pytest.mark.parametrize(("neighbours", "features"), [(1, 2), (3, 2), (5, 20)])
def test_completeness_is_the_definition_on_random_data(neighbours, features):
    data, samples = torch.randn(120, features), 1.3 * torch.randn(90, features) + 0.3
    found = metrics.completeness(data, samples, neighbours)
    assert found == brute_force(data, samples, neighbours)
    assert 0 < found.precision < 1
    assert found.precision != found.recall


def test_completeness_counts_ties_as_inside():
    grid = torch.arange(0.0, 8.0, 2.0).unsqueeze(1)  # the balls of both ends, k = 1, reach 2 beyond
    assert metrics.completeness(grid, grid - 2, neighbours=1).precision == 1
    assert metrics.completeness(grid, grid - 2.01, neighbours=1).precision == 3 / 4
    ones = (torch.rand(60, 30) > 0.5).float()
    others = (torch.rand(50, 30) > 0.5).float()
    assert metrics.completeness(ones, others) == brute_force(ones, others, 3)


def test_completeness_of_the_same_of_distant_and_of_half_the_data():
    data = torch.cat([torch.randn(30, 2), torch.randn(70, 2) + 100])
    assert metrics.completeness(data, data.flip(0)) == (1, 1)
    assert metrics.completeness(data, data + 1e4) == (0, 0)
    assert metrics.completeness(data, data[:30]) == (1, 0.3)
    assert metrics.completeness(data[:30], data) == (0.3, 1)
    axis = torch.arange(-60.0, 61.0, 20.0)
    precision, recall = metrics.completeness(data[:30], torch.cartesian_prod(axis, axis))
    assert recall == 1
    assert precision <= 1 / 49  # all but the origin lie outside


def test_the_nearest_others_of_duplicates_are_duplicates():
    data = torch.rand(20, 784).repeat(5, 1)  # every datum has four others at distance 0
    assert metrics.completeness(data, data[torch.randperm(100)]) == (1, 1)
    assert metrics.completeness(data, data + 1e-4 * torch.rand(100, 784)) == (0, 0)
    assert metrics.completeness(data.double(), data + 3e-6 * torch.rand(100, 784, dtype=torch.float64)) == (0, 0)
    constant = torch.full((6, 3), 0.1)
    assert metrics.completeness(constant, constant) == (1, 1)
    assert metrics.completeness(constant, torch.rand(6, 3) + 1) == (0, 0)
    two = torch.tensor([[0.0], [0.0], [1.0], [4.0]])  # radii 0 0 1 3 at k = 1
    assert metrics.completeness(two, torch.tensor([[0.0], [-0.1], [1.9], [7.1]]), 1).precision == 2 / 4


def test_completeness_keeps_its_digits_far_from_the_origin_and_beside_outliers(double):
    data, samples = torch.randn(80, 3), torch.randn(80, 3)
    expected = metrics.completeness(data, samples)
    assert metrics.completeness(1e7 + data, 1e7 + samples) == expected
    samples[0] = 1e9  # its own ball is the world
    assert metrics.completeness(data, samples) == brute_force(data, samples, 3)


def test_completeness_takes_the_first_rows_and_leaves_none_out_of_many():
    data, samples = torch.randn(60, 2), torch.randn(40, 2)
    expected = metrics.completeness(data[:25], samples[:25])
    assert metrics.completeness(data, samples, rows=25) == expected
    assert metrics.completeness(data, torch.cat([samples[:25], torch.full((1, 2), torch.nan)]), rows=25).recall > 0
    many = torch.randn(metrics.CHUNK + 200, 1)
    beside = torch.cat([many[:200] + 1000, many[200:]])
    assert metrics.completeness(many, beside).precision == metrics.CHUNK / len(many)


@pytest.mark.parametrize(
    ("data", "samples", "neighbours", "rule"),
    [
        (torch.zeros(9, 2), torch.zeros(3, 2), 3, "neighbours should be at least 1 and fewer than samples, got 3 of 3"),
        (torch.zeros(1, 2), torch.zeros(9, 2), 1, "neighbours should be at least 1 and fewer than data, got 1 of 1"),
        (torch.zeros(9, 2), torch.zeros(9, 2), 0, "neighbours should be at least 1 and fewer than data, got 0 of 9"),
        (torch.zeros(9, 2), torch.full((9, 2), torch.nan), 3, "samples should be finite, got nan"),
        (torch.full((9, 2), torch.inf), torch.zeros(9, 2), 3, "data should be finite, got inf"),
        (
            torch.zeros(9, 2),
            torch.zeros(9, 3),
            3,
            r"data and samples should be \(N, features\), got \[9, 2\] and \[9, 3\]",
        ),
    ],
)
def test_completeness_says_what_it_needs(data, samples, neighbours, rule):
    with pytest.raises(ValueError, match=f"^{rule}$"):
        metrics.completeness(data, samples, neighbours)


def test_a_unit_is_active_above_the_threshold_that_is_asked_for():
    codes = torch.tensor([[-1.0, -3.0], [1.0, 3.0]])  # variances of 1 and 9
    assert [metrics.active_units(codes, threshold=threshold) for threshold in (0.5, 2.0, 10.0)] == [2, 1, 0]
    assert metrics.active_units(codes, torch.tensor([1.0, 9.0]), threshold=0.9) == 2
    assert metrics.active_units(codes, torch.tensor([9.0, 1.0]), threshold=0.9) == 1
