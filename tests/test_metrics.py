"""Metrics against scikit-learn and against loops written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from hml_core import metrics


def example(n: int = 500, classes: int = 6, seed: int = 0):
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, n)
    logits = random.standard_normal((n, classes)) + 2 * np.eye(classes)[targets]
    return logits, targets


COUNTS = np.array([400, 150, 60, 30, 10, 4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_summary_agrees_with_scikit_learn(dtype):
    logits, targets = example()
    found = metrics.summary(logits.astype(dtype), targets, COUNTS)
    predictions = logits.argmax(axis=1)
    recall = sk.recall_score(targets, predictions, average=None)
    assert found["top1"] == pytest.approx(sk.accuracy_score(targets, predictions))
    assert found["balanced_accuracy"] == pytest.approx(recall.mean())
    assert found["macro_f1"] == pytest.approx(sk.f1_score(targets, predictions, average="macro"))
    assert found["g_mean"] == pytest.approx(np.prod(recall) ** (1 / 6))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["nll"] == pytest.approx(sk.log_loss(targets, probability), rel=1e-6)
    assert found["many"] == pytest.approx(recall[:2].mean())
    assert found["medium"] == pytest.approx(recall[2:4].mean())
    assert found["few"] == pytest.approx(recall[4:].mean())
    np.testing.assert_array_equal(
        metrics.confusion(predictions, targets, 6), sk.confusion_matrix(targets, predictions)
    )


def test_ece_agrees_with_a_loop_over_bins():
    logits, targets = example(seed=1)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, predictions = probability.max(axis=1), probability.argmax(axis=1)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = (predictions == targets)[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    assert metrics.expected_calibration_error(logits, targets) == pytest.approx(expected, abs=1e-9)


def test_a_sure_and_right_model_is_calibrated_and_a_sure_and_wrong_one_is_not():
    targets = np.arange(6)
    assert metrics.expected_calibration_error(1e3 * np.eye(6), targets) == pytest.approx(0)
    wrong = 1e3 * np.roll(np.eye(6), 1, axis=1)
    assert metrics.expected_calibration_error(wrong, targets) == pytest.approx(1)


def test_quick_is_the_summary_of_predictions():
    logits, targets = example()
    full = metrics.summary(logits, targets, COUNTS)
    quick = metrics.quick(logits.argmax(axis=1), targets, 6)
    assert quick == pytest.approx({name: full[name] for name in quick})


def test_a_class_that_is_never_found_makes_the_g_mean_zero():
    logits, targets = example()
    logits[:, 2] = -100
    assert metrics.summary(logits, targets, COUNTS)["g_mean"] == 0


def test_a_class_without_test_images_has_no_accuracy():
    logits, targets = example()
    keep = targets != 5
    logits, targets = logits[keep], targets[keep]
    per_class = metrics.per_class_accuracy(logits.argmax(axis=1), targets, 6)
    assert np.isnan(per_class[5])
    found = metrics.summary(logits, targets, COUNTS)
    assert found["balanced_accuracy"] == pytest.approx(np.nanmean(per_class))
    assert found["few"] == pytest.approx(per_class[4])
    empty = metrics.summary(logits, targets, np.full(6, 500))
    assert np.isnan(empty["few"])


def test_the_reliability_curve_counts_every_image_once():
    logits, targets = example()
    curve = metrics.reliability(logits, targets)
    assert curve["count"].sum() == len(targets)
    filled = curve["count"] > 0
    edges = np.arange(1, 16) / 15
    assert (curve["confidence"][filled] <= edges[filled] + 1e-12).all()


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((3, 2)), np.array([0, 1]), "`logits` \\(N, C\\) and `targets` \\(N,\\)"),
        (np.array([[np.nan, 0.0]]), np.array([0]), "finite `logits`"),
        (np.zeros((1, 2)), np.array([2]), "`targets` in 0 … 1, got 2"),
        (np.zeros((0, 2)), np.array([], dtype=int), "N ≥ 1"),
    ],
)
def test_bad_input_is_refused(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        metrics.summary(logits, targets, np.array([5, 5]))


def test_a_class_without_test_images_is_left_out_of_macro_f1_as_out_of_balanced_accuracy():
    """A prediction of the absent class is a miss of its true class and no class of its own."""
    from sklearn.metrics import f1_score

    targets = np.array([0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 2, 1, 0])
    logits = 5.0 * np.eye(3)[predicted]
    found = metrics.summary(logits, targets, np.array([30, 20, 10]))
    each = f1_score(targets, predicted, labels=[0, 1], average=None)
    assert found["macro_f1"] == pytest.approx(each.mean())
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
