"""Splits, label subsets and pixel statistics."""

import ast
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.errors import ConfigError, DataError
from stopgrad.images import (
    Images,
    images_from_arrays,
    label_subset,
    load_dataset,
    normalization,
    split_validation,
)
from tests import house

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=200)
FRACTIONS = st.floats(0.01, 1.0)
SEEDS = st.integers(0, 2**31)


def numbered(labels: list[int] | None, count: int = 0) -> Images:
    """Images of one pixel that holds the picture's own number."""
    count = count or len(labels or [])
    pixels = np.zeros((count, 1, 1, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count) % 256
    pixels[:, 0, 0, 1] = np.arange(count) // 256
    return images_from_arrays(
        pixels,
        labels=None if labels is None else np.array(labels),
        class_names=() if labels is None else ("a", "b", "c", "d", "e"),
    )


def numbers(images: Images) -> list[int]:
    return (images.pixels[:, 0, 0, 0] + 256 * images.pixels[:, 0, 0, 1].astype(int)).tolist()


@given(LABELS, st.floats(0.05, 0.95), SEEDS)
def test_validation_and_training_halves_partition_the_images_by_class(labels, fraction, seed):
    images = numbered(labels)
    held_out = round(fraction * len(images))
    if not 0 < held_out < len(images):
        with pytest.raises(DataError, match="at least one image on each side"):
            split_validation(images, fraction=fraction, seed=seed)
        return
    split = split_validation(images, fraction=fraction, seed=seed)
    assert len(split.validation) == held_out
    assert sorted(numbers(split.train) + numbers(split.validation)) == list(range(len(images)))
    assert numbers(split.validation) == split.validation_indices.tolist()
    for label in set(labels):
        exact = labels.count(label) * held_out / len(labels)
        assert abs((split.validation.labels == label).sum() - exact) < 1


def test_validation_split_of_equal_classes_is_exact_and_another_seed_draws_another():
    images = numbered([0, 1, 2, 3, 4] * 100)
    first = split_validation(images, fraction=0.2, seed=0)
    assert np.bincount(first.validation.labels).tolist() == [20] * 5
    again = split_validation(images, fraction=0.2, seed=0)
    other = split_validation(images, fraction=0.2, seed=1)
    assert first.validation_indices.tolist() == again.validation_indices.tolist()
    assert first.validation_indices.tolist() != other.validation_indices.tolist()
    assert first.train.fingerprint == again.train.fingerprint != other.train.fingerprint


def test_validation_split_is_not_the_head_of_the_set():
    split = split_validation(numbered(None, count=300), fraction=0.2, seed=0)
    assert len(split.validation) == 60
    assert 100 < split.validation_indices.mean() < 200


@given(LABELS, FRACTIONS, FRACTIONS, SEEDS)
def test_label_subsets_are_nested_and_stratified(labels, fraction, other, seed):
    images = numbered(labels)
    small = label_subset(images, fraction=min(fraction, other), seed=seed)
    large = label_subset(images, fraction=max(fraction, other), seed=seed)
    assert set(small) <= set(large)
    assert small.dtype == np.int64
    assert small.tolist() == sorted(set(small.tolist()))
    for label in set(labels):
        count = labels.count(label)
        taken = int((images.labels[small] == label).sum())
        assert taken >= 1
        assert taken == 1 or abs(taken - min(fraction, other) * count) <= 0.5


def test_label_subset_of_everything_is_everything_and_a_new_seed_is_a_new_draw():
    images = numbered([0, 1] * 500)
    assert label_subset(images, fraction=1.0, seed=3).tolist() == list(range(1000))
    first, again, other = (label_subset(images, fraction=0.1, seed=seed) for seed in (0, 0, 1))
    assert len(first) == 100
    assert first.tolist() == again.tolist()
    assert len(set(first) & set(other)) < 30  # 10 expected by chance


def test_label_subset_is_no_part_of_the_validation_draw():
    images = numbered([0] * 1000)
    held_out = set(split_validation(images, fraction=0.1, seed=0).validation_indices)
    assert len(held_out & set(label_subset(images, fraction=0.1, seed=0))) < 30


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_impossible_validation_share_is_a_config_error(fraction):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_validation(numbered([0, 1]), fraction=fraction, seed=0)


def test_label_subset_without_labels_is_a_data_error():
    with pytest.raises(DataError, match="without labels"):
        label_subset(numbered(None, count=4), fraction=0.5, seed=0)
    with pytest.raises(ConfigError, match="at most 1"):
        label_subset(numbered([0, 1]), fraction=1.1, seed=0)


def test_normalization_equals_numpy_on_real_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path))
    train = load_dataset("mnist5k").train
    scaled = train.pixels / 255.0
    found = normalization(train)
    np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(found.std, scaled.std(axis=(0, 1, 2)), rtol=1e-9)


def test_normalization_keeps_channels_apart_and_a_constant_one_finite():
    pixels = np.zeros((5000, 1, 2, 3), np.uint8)  # more than one chunk
    pixels[:, 0, 1, 0] = 255  # red: half 0, half 1
    pixels[:, :, :, 1] = 51  # green: always 0.2
    found = normalization(images_from_arrays(pixels))
    assert found.mean == pytest.approx((0.5, 0.2, 0.0), abs=1e-15)
    assert found.std == pytest.approx((0.5, 1.0, 1.0), abs=1e-15)


def test_take_keeps_order_labels_and_sources():
    images = images_from_arrays(
        np.arange(12, dtype=np.uint8).reshape(4, 1, 1, 3),
        labels=np.array([0, 1, 0, 1]),
        sources=("a", "b", "c", "d"),
    )
    part = images.take(np.array([3, 0]))
    assert part.pixels[:, 0, 0, 0].tolist() == [9, 0]
    assert part.labels.tolist() == [1, 0]
    assert part.sources == ("d", "a")
    assert part.fingerprint != images.take(np.array([0, 3])).fingerprint


def test_fingerprint_sees_pixels_shape_labels_and_names_but_not_sources():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    labels = np.array([0, 1])

    def mark(pixels=pixels, **changes):
        return images_from_arrays(pixels, **changes).fingerprint

    base = mark(labels=labels, class_names=("a", "b"))
    assert base == mark(labels=labels, class_names=("a", "b"), sources=("x", "y"))
    others = [
        mark(pixels + 1, labels=labels, class_names=("a", "b")),
        mark(pixels.reshape(2, 1, 4, 3), labels=labels, class_names=("a", "b")),
        mark(labels=labels[::-1], class_names=("a", "b")),
        mark(labels=labels, class_names=("a", "c")),
        mark(),
    ]
    assert len({base, *others}) == 6


@pytest.mark.parametrize("labels", [[0, -1], [0, 2], [0], [0.0, 1.0]])
def test_labels_that_fit_no_class_are_data_errors(labels):
    with pytest.raises(DataError, match="labels"):
        images_from_arrays(
            np.zeros((2, 1, 1, 3), np.uint8), labels=np.array(labels), class_names=("a", "b")
        )


def test_identifiers_are_no_labels():
    with pytest.raises(DataError, match="label 1000000 at image 1"):
        images_from_arrays(np.zeros((2, 1, 1, 3), np.uint8), labels=np.array([0, 1_000_000]))


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 3, 4, 4), (0, 4, 4, 3)])
def test_pixels_of_another_layout_are_data_errors(shape):
    with pytest.raises(DataError, match="N, H, W, 3"):
        images_from_arrays(np.zeros(shape, np.uint8))


def test_images_with_other_pixels_forget_what_was_known_of_the_old_ones():
    images = numbered([0, 1, 1])
    images = replace(images, whole_side=1, known=normalization(images))
    other = images.with_pixels(255 - images.pixels[:2])
    assert other.known is None
    assert normalization(other) != images.known
    assert (len(other), other.labels, other.class_names, other.sources) == (2, None, (), ())
    assert (other.whole_side, other.fingerprint) == (1, images.fingerprint)


def test_pixels_are_replaced_by_that_method_alone():
    calls = [
        (house.dotted(path), ast.unparse(node.func))
        for path in house.files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and "pixels" in {word.arg for word in node.keywords}
    ]
    replaced = [file for file, called in calls if called.endswith("replace")]
    assert replaced == ["images.types"]
