"""From a name to splits, and what is recorded of them."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution

from ppvae.data import datasets, load_dataset
from ppvae.data.observation import Observation

DRAWN = ["static", "dynamic"]


def refusal(error, *arguments, **options):
    """The message of the error that `load` raises: always one line."""
    with pytest.raises(error) as caught:
        load_dataset(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def splits(data):
    return [data.train, data.valid, data.test]


def labels(data):
    return [data.train_labels, data.valid_labels, data.test_labels]


def described(data):
    """What was observed, apart from the fingerprint of the values."""
    assert len(data.observation.fingerprint) == 16
    return replace(data.observation, fingerprint="")


def multiset(values, classes):
    """Rows, each with its label, in an order of their own."""
    return sorted(np.column_stack([np.asarray(values), np.asarray(classes)]).tolist())


def saved(path, x, y=None):
    if y is None:
        np.save(path / "a.npy", x)
        return str(path / "a.npy")
    np.savez(path / "a.npz", x=x, y=y)
    return str(path / "a.npz")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


# --- splits


def test_digits_are_split_without_loss(digits):
    assert [len(part) for part in splits(digits)] == [1258, 180, 359]
    source = load_digits()
    together = multiset(torch.cat(splits(digits)), torch.cat(labels(digits)))
    assert together == multiset(source.data, source.target)


def test_digits_observation(digits):
    assert described(digits) == Observation("digits", "levels", (1, 8, 8), maximum=16, contrast=16.0, classes=10)
    assert digits.resample is None
    assert all(part.dtype == torch.float32 for part in splits(digits))
    assert all(part.dtype == torch.int64 for part in labels(digits))


def test_the_seed_chooses_the_split(digits):
    for one, other in zip(
        splits(digits) + labels(digits), splits(load_dataset("digits")) + labels(load_dataset("digits")), strict=True
    ):
        assert torch.equal(one, other)
    other = load_dataset("digits", seed=1)
    assert not any(torch.equal(*pair) for pair in zip(splits(digits), splits(other), strict=True))
    assert multiset(torch.cat(splits(other)), torch.cat(labels(other))) == multiset(
        torch.cat(splits(digits)), torch.cat(labels(digits))
    )


@pytest.mark.parametrize(("rows", "sizes"), [(3, [1, 1, 1]), (10, [7, 1, 2]), (101, [71, 10, 20])])
def test_sizes_of_splits(rows, sizes, tmp_path):
    data = load_dataset(saved(tmp_path, np.arange(rows)[:, None]))
    assert [len(part) for part in splits(data)] == sizes
    assert sorted(torch.cat(splits(data)).flatten().tolist()) == list(range(rows))


@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_rows(rows, tmp_path):
    message = refusal(ValueError, saved(tmp_path, np.ones((rows, 4))))
    assert "at least 3 rows" in message
    assert f"got {rows}" in message


# --- files


@pytest.mark.parametrize(
    ("x", "kind", "maximum", "contrast"),
    [
        (np.arange(40, dtype=np.uint8).reshape(10, 2, 2), "levels", 255, 255.0),
        (np.eye(10, 4, dtype=np.uint8), "binary", 1, 1.0),
        (np.eye(10, 4, dtype=bool), "binary", 1, 1.0),
        (np.tile([[0, 1, 1]], (10, 1)), "binary", None, 1.0),
        (np.tile([[0, 1, 7]], (10, 1)), "counts", None, 7.0),
        (np.tile([[0, 1, -1]], (10, 1)), "real", None, 2.0),
        (np.tile([[0.0, 1.0, 1.0]], (10, 1)), "real", None, 1.0),
        (np.ones((10, 3)), "real", None, 1e-12),
    ],
    ids=["bytes", "bits", "truths", "0 and 1", "counts", "signed", "floats", "constant"],
)
def test_kinds_of_npy(x, kind, maximum, contrast, tmp_path):
    data = load_dataset(saved(tmp_path, x))
    expected = Observation("a.npy", kind, x.shape[1:], maximum=maximum, contrast=contrast)
    assert described(data) == expected
    assert data.observation.features == x[0].size
    together = torch.cat(splits(data)).numpy()
    assert sorted(together.tolist()) == sorted(x.reshape(10, -1).astype(float).tolist())
    assert labels(data) == [None, None, None]


def test_labels_of_npz_follow_their_rows(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    y = np.arange(20, dtype=">i2")
    data = load_dataset(saved(tmp_path, x, y))
    for rows, classes in zip(splits(data), labels(data), strict=True):
        np.testing.assert_array_equal(rows, x[classes].reshape(-1, 6))
    assert sorted(torch.cat(labels(data)).tolist()) == list(range(20))
    assert (data.observation.name, data.observation.shape) == ("a.npz", (2, 3))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [(["0", "1"], "binary"), (["2", "0"], "counts"), (["-2", "0"], "real"), (["0.5", "0"], "real")],
)
def test_csv(cells, kind, tmp_path):
    table = [[cells[i % 2], str(i), f"class {i}"] for i in range(12)]
    if kind == "binary":
        table = [[cell, cell, name] for cell, _, name in table]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(",".join(row) for row in [["a", "b", "what"], *table]))
    data = load_dataset(str(path), label="what")
    assert described(data) == Observation(
        "a.csv", kind, (2,), contrast=data.observation.contrast, classes=data.observation.classes
    )
    order = sorted(range(12), key=lambda i: table[i][2])  # labels are numbered in the order of their names
    for rows, classes in zip(splits(data), labels(data), strict=True):
        expected = [[float(cell) for cell in table[order[label]][:2]] for label in classes]
        assert rows.tolist() == expected


def test_folder_of_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        folder = tmp_path / "photos" / f"class-{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    data = load_dataset(str(tmp_path / "photos"))
    assert described(data) == Observation("photos", "levels", (3, 3, 4), maximum=255, contrast=255.0, classes=3)
    together = multiset(torch.cat(splits(data)), torch.cat(labels(data)))
    assert together == multiset(images.transpose(0, 3, 1, 2).reshape(12, -1), np.arange(12) % 3)


def test_the_folder_itself_has_a_name(tmp_path, monkeypatch):
    for i in range(3):
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    assert load_dataset(".").observation.name == tmp_path.name


@pytest.mark.parametrize("name", ["no.npy", "no.npz", "no.csv"])
def test_missing_files(name, tmp_path):
    message = refusal(FileNotFoundError, str(tmp_path / name))
    assert "there is no file" in message
    assert name in message


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-1e300, "-inf")])
def test_values_are_finite_in_single_precision(value, shown, tmp_path):
    x = np.ones((10, 2, 2))
    x[4, 1, 0] = value
    message = refusal(ValueError, saved(tmp_path, x))
    assert "finite number" in message
    assert f"got {shown} at row 4, column 2" in message


def table_with_holes(tmp_path, cells=("1,2", "3,", "5,6", "0,8")):
    path = tmp_path / "holes.csv"
    path.write_text("a,b\n" + "\n".join(cells * 5) + "\n")
    return str(path)


def test_missing_values_may_be_masked(tmp_path):
    table = load_dataset(table_with_holes(tmp_path), missing="mask")
    assert table.observation.missing
    assert table.observation.kind == "counts"  # what is observed are whole numbers
    assert "values missing" in str(table.observation)
    tensors = table.tensors("train")
    assert torch.equal(tensors["mask"], ~table.train.isnan())
    assert 0 < (~tensors["mask"]).sum() < len(table.train)
    assert torch.equal(tensors["library"].squeeze(-1), table.train.nan_to_num().sum(-1))
    assert not load_dataset("digits", missing="mask").observation.missing


def test_missing_values_are_left_out_of_the_standardisation(tmp_path):
    plain = load_dataset(table_with_holes(tmp_path), missing="mask").train
    scaled = load_dataset(table_with_holes(tmp_path), missing="mask", scaling="standardise").train
    for before, after in zip(plain.T, scaled.T, strict=True):
        seen = before[~before.isnan()]
        expected = (seen - seen.mean()) / seen.std(correction=0)
        torch.testing.assert_close(after[~after.isnan()], expected)


def test_a_story_is_told_as_many_labels_as_asked_for():
    few = load_dataset("digits", labelled=100)
    every = load_dataset("digits")
    assert (few.tensors("train")["labels"] >= 0).tolist() == [True] * 100 + [False] * (len(few.train) - 100)
    assert torch.equal(few.tensors("train", 50)["labels"], every.train_labels[:50])
    assert (few.tensors("test")["labels"] == -1).all()
    assert torch.equal(few.test_labels, every.test_labels)  # which measures still use
    assert "100 labels told" in str(few.observation)


def test_a_column_without_an_observed_value_is_refused(tmp_path):
    path = table_with_holes(tmp_path, cells=("1,", "2,"))
    with pytest.raises(ValueError, match="every column should have an observed value"):
        load_dataset(path, missing="mask")
    with pytest.raises(ValueError, match="missing=mask"):
        load_dataset(path)


def test_missing_cells_of_a_csv_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 5 + "1,nan\n")
    assert "got nan at row 5, column 1" in refusal(ValueError, str(path))


# --- names and options


@pytest.mark.parametrize(("name", "nearest"), [("mnst", "mnist"), ("digit", "digits"), ("cifar-10", "cifar10")])
def test_unknown_names_list_the_known(name, nearest):
    message = refusal(ValueError, name)
    assert f"unknown data '{name}': it should be one of {nearest}, " in message
    for known in ["digits", "mnist", "fashion-mnist", "kmnist", "emnist", "cifar10", "svhn", ".npy", "folder"]:
        assert known in message


@pytest.mark.parametrize(
    ("option", "known"),
    [("binarisation", "none, threshold, static, dynamic"), ("scaling", "none, unit, standardise, dequantise")],
)
def test_unknown_options_list_the_known(option, known):
    assert refusal(ValueError, "digits", **{option: "other"}) == f"{option} should be one of {known}, got other"


@pytest.mark.parametrize("scaling", ["unit", "standardise", "dequantise"])
@pytest.mark.parametrize("binarisation", ["threshold", "static", "dynamic"])
def test_binarised_data_take_no_scaling(binarisation, scaling):
    message = refusal(ValueError, "digits", binarisation=binarisation, scaling=scaling)
    assert message == f"binarised data take no scaling, got binarisation={binarisation} and scaling={scaling}"


@pytest.mark.parametrize("x", [np.arange(20).reshape(10, 2), np.full((10, 2), 0.5)], ids=["counts", "real"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("binarisation", "threshold"),
        ("binarisation", "static"),
        ("binarisation", "dynamic"),
        ("scaling", "unit"),
        ("scaling", "dequantise"),
    ],
)
def test_some_options_need_a_largest_level(option, value, x, tmp_path):
    message = refusal(ValueError, saved(tmp_path, x), **{option: value})
    assert "largest level" in message
    assert "a.npy" in message


# --- binarisation


def mean_is_right(draws, probability):
    """Within 4 standard errors, and without error where the probability is 0 or 1."""
    variance = probability * (1 - probability)
    assert ((draws == 0) | (draws == 1)).all()
    assert torch.equal(draws[variance == 0], probability[variance == 0])
    return abs((draws - probability).sum().item()) <= 4 * sqrt(variance.sum().item())


def test_threshold_is_above_half(digits):
    data = load_dataset("digits", binarisation="threshold")
    for binary, raw in zip(splits(data), splits(digits), strict=True):
        assert torch.equal(binary, (raw > 8).float())
    expected = Observation("digits", "binary", (1, 8, 8), maximum=1, binarisation="threshold", classes=10)
    assert described(data) == expected
    assert data.resample is None


def test_static_pixels_are_drawn_once(digits):
    data, again, other = (load_dataset("digits", binarisation="static", seed=seed) for seed in (0, 0, 1))
    for binary, repeated, raw in zip(splits(data), splits(again), splits(digits), strict=True):
        assert torch.equal(binary, repeated)
        assert mean_is_right(binary, raw / 16)
    assert not torch.equal(data.train, other.train)
    assert data.resample is None
    assert described(data) == Observation("digits", "binary", (1, 8, 8), maximum=1, binarisation="static", classes=10)


def test_static_pixels_follow_their_own_intensity(digits):
    drawn = load_dataset("digits", binarisation="static").train
    for level in range(17):
        chosen = digits.train == level
        assert mean_is_right(drawn[chosen], digits.train[chosen] / 16)


def test_dynamic_pixels_are_drawn_at_every_pass(digits):
    data = load_dataset("digits", binarisation="dynamic")
    assert torch.equal(data.train, digits.train / 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = data.resample(data.train), data.resample(data.train)
    assert mean_is_right(first, data.train)
    assert mean_is_right(second, data.train)
    assert not torch.equal(first, second)
    assert described(data) == Observation("digits", "binary", (1, 8, 8), maximum=1, binarisation="dynamic", classes=10)


def test_training_data_are_drawn_once_by_a_seed():
    data = load_dataset("digits", binarisation="dynamic")
    first, again, other = (data.drawn(seed) for seed in (0, 0, 1))
    assert first.resample is None
    assert first.drawn(1) is first
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)
    assert torch.equal(first.test, other.test)


def test_dynamic_valid_and_test_are_fixed(digits):
    data, again, other = (load_dataset("digits", binarisation="dynamic", seed=seed) for seed in (0, 0, 1))
    for part in ("valid", "test"):
        assert mean_is_right(getattr(data, part), getattr(digits, part) / 16)
        assert torch.equal(getattr(data, part), getattr(again, part))
        assert not torch.equal(getattr(data, part), getattr(other, part))


@pytest.mark.parametrize("binarisation", ["threshold", *DRAWN])
def test_binary_images_stay_as_they_are(binarisation, tmp_path):
    name = saved(tmp_path, np.random.default_rng(0).integers(0, 2, (20, 6), dtype=np.uint8))
    for one, other in zip(
        splits(load_dataset(name)), splits(load_dataset(name, binarisation=binarisation)), strict=True
    ):
        assert torch.equal(one, other)


# --- scaling


def raw_log_density(x, loc, scale):
    """The density of y = loc + scale x at that y, where x is standard Normal (an arbitrary story), by torch."""
    base = Independent(Normal(torch.zeros_like(x[0]), torch.ones_like(x[0])), 1)
    law = TransformedDistribution(base, AffineTransform(loc, scale, event_dim=1))
    return base.log_prob(x), law.log_prob(loc + scale * x)


def test_unit_divides_by_the_largest_level(digits):
    data = load_dataset("digits", scaling="unit")
    for scaled, raw in zip(splits(data), splits(digits), strict=True):
        assert torch.equal(scaled, raw / 16)
    log_p, log_p_raw = raw_log_density(data.test.double(), 0.0, 16.0)
    torch.testing.assert_close(log_p + data.observation.log_jacobian, log_p_raw)
    assert data.observation.log_jacobian == pytest.approx(-64 * log(16))
    assert (data.observation.kind, data.observation.maximum, data.observation.contrast) == ("real", None, 1.0)


def test_standardise_agrees_with_sklearn(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 5)) * [1, 10, 0.01, 3, 1] + [0, 5, 1, -7, 100]
    name = saved(tmp_path, x)
    raw, data = load_dataset(name), load_dataset(name, scaling="standardise")
    scaler = StandardScaler().fit(raw.train.double().numpy())
    for scaled, part in zip(splits(data), splits(raw), strict=True):
        expected = scaler.transform(part.double().numpy())
        np.testing.assert_allclose(scaled, expected, atol=5e-5)  # single precision, at 100 scales from 0
    loc, scale = torch.from_numpy(scaler.mean_), torch.from_numpy(scaler.scale_)
    log_p, log_p_raw = raw_log_density(data.test.double(), loc, scale)
    torch.testing.assert_close(log_p + data.observation.log_jacobian, log_p_raw, rtol=1e-5, atol=1e-5)
    assert data.observation.contrast == pytest.approx((data.train.max() - data.train.min()).item())
    assert (data.observation.kind, data.observation.maximum) == ("real", None)


@pytest.mark.parametrize("constant", [0.0, 0.1787701783446365, -1e6])
@pytest.mark.parametrize("rows", [3, 20, 5000])
def test_a_constant_feature_only_moves_to_zero(rows, constant, tmp_path):
    """In single precision its mean is not quite the constant, nor its scale 0, for many constants and sizes."""
    varying = np.arange(rows, dtype=float)
    name = saved(tmp_path, np.stack([np.full(rows, constant), varying], axis=1))
    data = load_dataset(name, scaling="standardise")
    assert all((part[:, 0] == 0).all() for part in splits(data))
    alone = load_dataset(saved(tmp_path, varying[:, None]), scaling="standardise")
    assert data.observation.log_jacobian == pytest.approx(alone.observation.log_jacobian, abs=1e-6)
    assert all(torch.equal(*pair) for pair in zip((p[:, 1:] for p in splits(data)), splits(alone), strict=True))


def test_dequantised_levels_can_be_read_back(digits):
    data = load_dataset("digits", scaling="dequantise")
    assert torch.equal(data.train, digits.train / 17)  # on the scale of what is drawn from them
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = data.resample(data.train), data.resample(data.train)
    assert not torch.equal(first, second)
    for noisy, raw in [(first, digits.train), (data.valid, digits.valid), (data.test, digits.test)]:
        assert torch.equal((noisy * 17).floor(), raw)
        within = noisy.double() * 17 - raw
        assert abs(within.mean().item() - 0.5) < 4 * sqrt(1 / 12 / within.numel())


def test_dequantised_valid_and_test_are_fixed():
    data, again, other = (load_dataset("digits", scaling="dequantise", seed=seed) for seed in (0, 0, 1))
    for part in ("valid", "test"):
        assert torch.equal(getattr(data, part), getattr(again, part))
        assert not torch.equal(getattr(data, part), getattr(other, part))


def test_dequantised_density_returns_to_the_raw_scale():
    data = load_dataset("digits", scaling="dequantise")
    log_p, log_p_raw = raw_log_density(data.test.double(), 0.0, 17.0)
    torch.testing.assert_close(log_p + data.observation.log_jacobian, log_p_raw)
    assert (data.observation.kind, data.observation.maximum, data.observation.contrast) == ("real", None, 1.0)


def test_a_uniform_density_gives_the_mass_of_a_uniform_level():
    """Theis et al.: noise of width 1 turns a mass into a density of the same expected log-likelihood."""
    observation = load_dataset("digits", scaling="dequantise").observation
    assert 0.0 + observation.log_jacobian == pytest.approx(64 * log(1 / 17))


# --- the record


OPTIONS = [
    {},
    {"binarisation": "threshold"},
    {"binarisation": "static"},
    {"binarisation": "dynamic"},
    {"scaling": "unit"},
    {"scaling": "standardise"},
    {"scaling": "dequantise"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options.values()), "none"))
def test_only_scaled_data_have_a_density(options):
    observation = load_dataset("digits", **options).observation
    measure = "density" if "scaling" in options else "mass"
    assert observation.measure == measure
    assert f" {measure} on " in str(observation)
    assert str(observation).endswith("64 features, nats per datum")


def test_the_text_says_what_was_done():
    said = [str(load_dataset("digits", **options).observation).split(":")[0] for options in OPTIONS]
    assert said == [
        "digits, as they are",
        "digits, threshold binarisation",
        "digits, static binarisation",
        "digits, dynamic binarisation",
        "digits, scaled to [0, 1]",
        "digits, standardised by feature",
        "digits, uniformly dequantised to [0, 1]",
    ]


def test_other_values_have_another_fingerprint_and_other_views_the_same(tmp_path):
    def of(values, **view):
        np.save(tmp_path / "a.npy", values)
        return load_dataset(str(tmp_path / "a.npy"), **view).observation.fingerprint

    values = np.arange(40, dtype=np.uint8).reshape(10, 4)
    assert of(values) == of(values, scaling="unit") == of(values, binarisation="static")
    values[3, 2] += 1
    assert of(values) != of(values - 1)


def test_a_label_without_columns_is_refused():
    assert "leave it out" in refusal(ValueError, "digits", label="kind")


@pytest.mark.parametrize(("view", "largest"), [({}, 1), ({"binarisation": "threshold"}, 1), ({"scaling": "unit"}, 1)])
def test_a_network_sees_values_near_one(view, largest):
    digits = load_dataset("digits", **view)
    assert (digits.train * digits.observation.input_scale).max() == largest


def test_noise_that_rounds_into_another_level_stays_in_its_own():
    levels = 17
    x = (torch.arange(levels) / levels).repeat(3, 1)
    noise = torch.tensor([0.0, 1 - 2**-24, 0.5]).unsqueeze(-1).expand_as(x)
    assert not torch.equal(((x + noise / levels) * levels).floor(), (x * levels).round())  # plainly added
    assert torch.equal((datasets._within_a_level(x, noise, levels) * levels).floor(), (x * levels).round())
