"""Test metrics, from logits or predictions on the CPU; all accuracies are fractions in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from hml_core.imbalance import shot_groups

CALIBRATION_BINS = 15


def confusion(predictions: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 (C, C): row true class, column predicted class."""
    pairs = np.asarray(targets, dtype=np.int64) * num_classes + np.asarray(predictions)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(
    predictions: np.ndarray, targets: np.ndarray, num_classes: int
) -> np.ndarray:
    """Accuracy (recall) of each class, float64 (C,); NaN for a class without test images."""
    correct, total = _hits(predictions, targets, num_classes)
    accuracy = np.full(num_classes, np.nan)
    np.divide(correct, total, out=accuracy, where=total > 0)
    return accuracy


def _hits(
    predictions: np.ndarray, targets: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images of each class that are found, and all of them, int64 (C,) each."""
    targets = np.asarray(targets)
    found = targets[np.asarray(predictions) == targets]
    return tuple(np.bincount(labels, minlength=num_classes) for labels in (found, targets))


def quick(predictions: np.ndarray, targets: np.ndarray, num_classes: int) -> dict[str, float]:
    """``top1`` and ``balanced_accuracy``, cheap enough for every epoch."""
    correct, total = _hits(predictions, targets, num_classes)
    present = total > 0
    return {
        "top1": float(correct.sum() / total.sum()),
        "balanced_accuracy": float((correct[present] / total[present]).mean()),
    }


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the logits of each image say: enough for all metrics but the areas under curves.

    Attributes
    ----------
    classes : numpy.ndarray
        int64 (N,), the most probable class.
    confidence : numpy.ndarray
        float64 (N,), its probability.
    log_probability : numpy.ndarray
        float64 (N,), of the true class; nats.
    """

    classes: np.ndarray
    confidence: np.ndarray
    log_probability: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, targets: np.ndarray) -> Predictions:
        """From logits (N, C), whose softmax is the model's probability, and targets int (N,)."""
        logits, targets = _validate(logits, targets)
        classes, images = logits.argmax(axis=1), np.arange(len(targets))
        above = logits - logits[images, classes][:, None]  # (N, C) ≤ 0
        log_sum = np.log(np.exp(above).sum(axis=1, dtype=np.float64))
        return cls(classes, np.exp(-log_sum), above[images, targets] - log_sum)


def summary(logits: np.ndarray, targets: np.ndarray, train_counts: np.ndarray) -> dict[str, float]:
    """All metrics of a table: those of :func:`summary_of` and :func:`macro_auc`.

    Parameters
    ----------
    logits : (N, C)
        Their softmax is the model's probability.
    targets : int (N,)
    train_counts : (C,)
        Training images of each class; they define the shot groups.

    Raises
    ------
    ValueError
        For logits that are not finite, or shapes that do not fit.
    """
    logits, targets = _validate(logits, targets)
    num_classes = logits.shape[1]
    if len(train_counts) != num_classes:
        raise ValueError(f"Expected {num_classes} `train_counts`, got {len(train_counts)}.")
    found = summary_of(Predictions.of(logits, targets), targets, train_counts)
    return {**found, "macro_auc": macro_auc(logits, targets)}


def summary_of(
    predictions: Predictions, targets: np.ndarray, train_counts: np.ndarray
) -> dict[str, float]:
    """The metrics that need no logits.

    ``top1``; ``balanced_accuracy`` (mean recall of the classes that have test images); ``many``,
    ``medium``, ``few`` (mean recall of a shot group, NaN where it is empty); ``macro_f1`` (mean over the
    classes that have test images, as in ``balanced_accuracy``); ``g_mean`` (geometric mean of the
    recalls, 0 as soon as one class is never found); ``ece``
    (see :func:`expected_calibration_error`); ``nll`` (nats).
    """
    from sklearn.metrics import f1_score  # seconds to import, and many a process never asks

    num_classes, classes = len(train_counts), predictions.classes
    recall = per_class_accuracy(classes, targets, num_classes)
    present = recall[~np.isnan(recall)]
    groups = {
        name: float(np.nanmean(recall[members])) if np.any(~np.isnan(recall[members])) else np.nan
        for name, members in shot_groups(train_counts).items()
    }
    curve = _reliability(predictions.confidence, classes == targets, CALIBRATION_BINS)
    with np.errstate(divide="ignore"):
        g_mean = float(np.exp(np.log(present).mean()))
    return {
        "top1": float((classes == targets).mean()),
        "balanced_accuracy": float(present.mean()),
        **groups,
        "macro_f1": float(
            f1_score(
                targets,
                classes,
                labels=np.flatnonzero(~np.isnan(recall)),
                average="macro",
                zero_division=0,
            )
        ),
        "g_mean": g_mean,
        "ece": _calibration_error(curve),
        "nll": float(-predictions.log_probability.mean()),
    }


def macro_auc(logits: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve of each class's probability against the rest, averaged over the classes.

    Only classes with and without test images count; NaN where there is none.
    """
    logits, targets = _validate(logits, targets)
    truth = targets[:, None] == np.arange(logits.shape[1])  # (N, C)
    positive = truth.sum(axis=0)
    negative = len(targets) - positive
    measurable = (positive > 0) & (negative > 0)
    if not measurable.any():
        return float("nan")
    from scipy.stats import rankdata

    # Mann and Whitney's U, all classes at once: resampling asks for this thousands of times.
    ranks = rankdata(log_softmax(logits.astype(np.float64), axis=1), axis=0)
    above = (ranks * truth).sum(axis=0) - positive * (positive + 1) / 2
    return float((above[measurable] / (positive * negative)[measurable]).mean())


def one_against_rest(
    predictions: np.ndarray, targets: np.ndarray, positive: int
) -> dict[str, float]:
    """``sensitivity`` (share of the positive class that is found) and ``specificity`` (share of the
    rest that is not taken for it); NaN where there is no such test image.
    """
    found, is_positive = np.asarray(predictions) == positive, np.asarray(targets) == positive

    def share(hits: np.ndarray) -> float:
        return float(hits.mean()) if len(hits) else float("nan")

    return {"sensitivity": share(found[is_positive]), "specificity": share(~found[~is_positive])}


def reliability(
    logits: np.ndarray, targets: np.ndarray, bins: int = CALIBRATION_BINS
) -> dict[str, np.ndarray]:
    """Mean ``confidence``, ``accuracy`` and ``count`` (bins,) in equally wide bins (lo, hi] of confidence.

    An empty bin has NaN for the first two.
    """
    predictions = Predictions.of(logits, targets)
    return _reliability(predictions.confidence, predictions.classes == targets, bins)


def _reliability(confidence: np.ndarray, correct: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    sums = [np.bincount(which, weights=values, minlength=bins) for values in (confidence, correct)]
    with np.errstate(invalid="ignore"):
        return {"confidence": sums[0] / count, "accuracy": sums[1] / count, "count": count}


def expected_calibration_error(
    logits: np.ndarray, targets: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """ECE: Σ_b (n_b / N)·|accuracy_b − confidence_b| over equally wide bins (Guo et al., ICML 2017)."""
    return _calibration_error(reliability(logits, targets, bins))


def _calibration_error(curve: dict[str, np.ndarray]) -> float:
    gap = np.abs(curve["accuracy"] - curve["confidence"])
    return float(np.nansum(gap * curve["count"]) / curve["count"].sum())


def _validate(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, targets = np.asarray(logits), np.asarray(targets)
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise ValueError(
            "Expected `logits` (N, C) and `targets` (N,) with N ≥ 1, "
            f"got {logits.shape} and {targets.shape}."
        )
    if not np.isfinite(logits).all():
        raise ValueError("Expected finite `logits`, got NaN or infinity.")
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError(
            f"Expected `targets` in 0 … {logits.shape[1] - 1}, "
            f"got {targets.min()} … {targets.max()}."
        )
    return logits, targets
