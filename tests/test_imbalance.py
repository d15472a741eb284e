"""Counts, the standard subset, class weights, shot groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hml_core import imbalance


def test_cifar_10_counts_are_the_published_ones():
    counts = imbalance.class_counts(5000, 10, "exp", 100)
    assert counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert counts.dtype == np.int64
    assert counts.sum() == 12_406


@pytest.mark.parametrize(
    ("ratio", "total"), [(100, 10_847), (50, 12_608), (10, 19_573), (200, 9_502)]
)
def test_cifar_100_totals_are_the_published_ones(ratio, total):
    assert imbalance.class_counts(500, 100, "exp", ratio).sum() == total


def test_step_halves_the_classes():
    assert imbalance.class_counts(500, 5, "step", 10).tolist() == [500, 500, 50, 50, 50]
    assert imbalance.class_counts(7, 1, "step", 7).tolist() == [7]
    assert imbalance.class_counts(7, 3, "none", 7).tolist() == [7, 7, 7]


@given(
    n_max=st.integers(1, 10_000),
    classes=st.integers(1, 300),
    ratio=st.floats(1, 1000),
    kind=st.sampled_from(["exp", "step"]),
)
def test_counts_fall_from_n_max_to_n_max_over_ratio(n_max, classes, ratio, kind):
    if n_max / ratio < 1:
        ratio = float(n_max)
    counts = imbalance.class_counts(n_max, classes, kind, ratio)
    assert counts[0] == n_max
    assert (np.diff(counts) <= 0).all()
    if classes > 1:
        assert counts[-1] == int(n_max / ratio)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((500, 10, "exp", 0.01), "did you mean 100?"),
        ((500, 10, "exp", 0.0), "≥ 1, got 0"),
        ((500, 10, "exp", float("inf")), "finite `ratio`"),
        ((500, 10, "exp", float("nan")), "finite `ratio`"),
        ((500, 10, "exp", 501), "class 9 keeps 0 of 500 images: expected a ratio of at most 500"),
        ((500, 10, "step", 1000), "class 5 keeps 0"),
        ((500, 10, "linear", 10), "`kind` to be one of exp, step, none"),
        ((0, 10), "`n_max` and `num_classes` ≥ 1"),
    ],
)
def test_bad_counts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message.replace("?", "\\?")):
        imbalance.class_counts(*arguments)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_standard_subset_is_reproduced_member_for_member(seed):
    """Written again in a few lines with the legacy global generator, as the LDAM code uses it."""
    targets = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 60))
    counts = imbalance.class_counts(60, 10, "exp", 20)
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(seed)  # noqa: NPY002
        expected = []
        for label in np.unique(targets):
            where = np.where(targets == label)[0]
            np.random.shuffle(where)  # noqa: NPY002
            expected.extend(where[: counts[label]])
    finally:
        np.random.set_state(state)  # noqa: NPY002
    found = imbalance.subsample(targets, counts, seed)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    imbalance.subsample(np.repeat([0, 1], 5), [5, 2])
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(ValueError, match="Class 1 has 3 images, the subset asks for 4"):
        imbalance.subsample([0, 0, 0, 0, 1, 1, 1], [4, 4])
    with pytest.raises(ValueError, match="`counts` ≥ 1"):
        imbalance.subsample([0, 1], [1, 0])


@pytest.mark.parametrize("scheme", imbalance.SCHEMES)
@given(counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_weights_sum_to_the_classes_and_favour_the_rare(scheme, counts):
    weights = imbalance.class_weights(counts, scheme)
    assert weights.sum() == pytest.approx(len(counts))
    assert (weights > 0).all()
    assert (np.diff(weights[np.argsort(counts)]) <= 1e-9).all()


def test_weights_are_their_formulas():
    counts = np.array([5000, 50, 1])
    inverse = 1 / counts
    np.testing.assert_allclose(
        imbalance.class_weights(counts, "CS"), 3 * inverse / inverse.sum(), rtol=1e-12
    )
    effective = (1 - 0.9999) / (1 - 0.9999 ** counts.astype(float))
    np.testing.assert_allclose(
        imbalance.class_weights(counts, "CB"), 3 * effective / effective.sum(), rtol=1e-9
    )
    np.testing.assert_allclose(imbalance.class_weights(counts, "CB", beta=0.0), 1.0)
    with pytest.raises(ValueError, match="`scheme` to be one of none"):
        imbalance.class_weights(counts, "inverse")
    with pytest.raises(ValueError, match="0 ≤ `beta` < 1"):
        imbalance.class_weights(counts, "CB", beta=1.0)
    for bad in ([3, 0], [], [[1, 2]]):
        with pytest.raises(ValueError, match="`counts` ≥ 1 for every class"):
            imbalance.class_weights(bad, "CS")


def test_shot_groups_have_the_published_bounds():
    groups = imbalance.shot_groups([101, 100, 20, 19, 1])
    assert {name: members.tolist() for name, members in groups.items()} == {
        "many": [0],
        "medium": [1, 2],
        "few": [3, 4],
    }
    cifar = imbalance.shot_groups(imbalance.class_counts(500, 100, "exp", 100))
    assert [len(cifar[name]) for name in ("many", "medium", "few")] == [35, 35, 30]
