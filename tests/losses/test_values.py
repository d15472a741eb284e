"""Each loss against an independent NumPy transcription of its formula, values and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hml_core.losses import (
    BalancedHardMiningLoss,
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    FocalLoss,
    HardMiningLoss,
    InfluenceBalancedLoss,
    LDAMLoss,
    LogitAdjustedLoss,
)
from hml_core.losses.hard_mining import hard_mining_factor, hard_mining_value, outlier_cut, sinc

SIZES = [(1, 2), (7, 3), (64, 10), (33, 100)]
WEIGHTS = [False, True]


def batch(n: int, classes: int, spread: float = 3.0, seed: int = 0):
    random = np.random.default_rng([n, classes, seed])
    logits = spread * random.standard_normal((n, classes))
    target = random.integers(0, classes, n)
    weight = random.uniform(0.05, 5, classes)
    counts = random.integers(1, 500, classes)
    return logits, target, weight, counts


def log_probability(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))[
        np.arange(len(target)), target
    ]


def evaluate(loss, logits: np.ndarray, target: np.ndarray, *extra) -> np.ndarray:
    return loss(torch.tensor(logits), torch.tensor(target), *extra).numpy()


def numpy_hard_mining(logits, target, delta, weight, weighting, scale):
    """DESIGN's L_c, written from the formula."""
    w = weight[target] if weight is not None else np.ones(len(target))
    log_p = log_probability(logits, target)
    p = np.exp(w * log_p) if weighting == "inner" else np.exp(log_p)
    factor = np.sinc(p)
    if not math.isinf(delta):
        factor = factor - np.exp(-delta * p) * np.sinc(delta * p)
    return scale * factor * w * -log_p


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delta", [1e-1, 1e1, 1e4, 1e7, 1e10, math.inf])
@pytest.mark.parametrize("weighting", ["outer", "inner"])
@pytest.mark.parametrize("weighted", WEIGHTS)
def test_hard_mining_is_its_formula(size, delta, weighting, weighted):
    logits, target, weight, _ = batch(*size, spread=6)
    weight = weight if weighted else None
    for scale in (1.0, 10.0):
        loss = HardMiningLoss(delta, weight, weighting, scale, reduction="none")
        expected = numpy_hard_mining(logits, target, delta, weight, weighting, scale)
        np.testing.assert_allclose(evaluate(loss, logits, target), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delta", [1e1, 1e4, math.inf])
@pytest.mark.parametrize("weighting", ["outer", "inner"])
@pytest.mark.parametrize("weighted", WEIGHTS)
def test_the_mean_of_hard_mining_divides_by_images_or_by_weights(size, delta, weighting, weighted):
    """In float64; and of mixed images, each of whose labels counts by its share."""
    logits, target, weight, _ = batch(*size, spread=6)
    weight = weight if weighted else None
    w = weight[target] if weighted else np.ones(len(target))
    each = numpy_hard_mining(logits, target, delta, weight, weighting, 10.0)
    other = target[::-1].copy()
    shares = np.random.default_rng(2).uniform(0, 1, len(target))
    mixed = shares * each + (1 - shares) * numpy_hard_mining(
        logits, other, delta, weight, weighting, 10.0
    )
    w_mixed = shares * w + (1 - shares) * w[::-1]
    for mean_over, divisor, mixed_divisor in (
        ("images", len(target), len(target)),
        ("weights", w.sum(), w_mixed.sum()),
    ):
        loss = HardMiningLoss(delta, weight, weighting, 10.0, mean_over=mean_over)
        expected = each.sum() / divisor
        np.testing.assert_allclose(evaluate(loss, logits, target), expected, rtol=1e-10, atol=1e-10)
        found = loss.mixed(
            *(torch.tensor(values) for values in (logits, target, other)), torch.tensor(shares)
        )
        expected = mixed.sum() / mixed_divisor
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)
        total = loss.total_weight(torch.tensor(target))
        if weighted and mean_over == "weights":
            assert total.item() == pytest.approx(w.sum(), rel=1e-12)
        else:
            assert total is None  # the number of images
    summed = HardMiningLoss(delta, weight, weighting, 10.0, "sum", mean_over="weights")
    np.testing.assert_allclose(evaluate(summed, logits, target), each.sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighting", ["outer", "inner"])
@pytest.mark.parametrize("weighted", WEIGHTS)
def test_focal_is_its_formula(size, gamma, weighting, weighted):
    logits, target, weight, _ = batch(*size)
    w = weight[target] if weighted else 1.0
    log_p = log_probability(logits, target)
    p = np.exp(w * log_p) if weighting == "inner" else np.exp(log_p)
    loss = FocalLoss(gamma, weight if weighted else None, weighting, reduction="none")
    expected = (1 - p) ** gamma * w * -log_p
    np.testing.assert_allclose(evaluate(loss, logits, target), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weighted", WEIGHTS)
def test_cross_entropy_and_ldam_use_the_weighted_mean(size, weighted):
    logits, target, weight, counts = batch(*size)
    w = weight[target] if weighted else np.ones(len(target))
    given = weight if weighted else None
    expected = (w * -log_probability(logits, target)).sum() / w.sum()
    np.testing.assert_allclose(
        evaluate(CrossEntropyLoss(given), logits, target), expected, rtol=1e-10
    )

    cosines = np.tanh(logits)
    margins = 0.4 * counts**-0.25 / (counts**-0.25).max()
    shifted = cosines.copy()
    shifted[np.arange(len(target)), target] -= margins[target]
    expected = (w * -log_probability(20.0 * shifted, target)).sum() / w.sum()
    loss = LDAMLoss(counts, max_margin=0.4, scale=20.0, weight=given)
    np.testing.assert_allclose(evaluate(loss, cosines, target), expected, rtol=1e-10)
    assert loss.logit_scale == 20.0


@pytest.mark.parametrize("size", SIZES)
def test_label_smoothing_spreads_the_target_over_all_classes(size):
    logits, target, _, _ = batch(*size)
    classes = size[1]
    log_p = np.stack([log_probability(logits, np.full(len(target), c)) for c in range(classes)], 1)
    wanted = np.full(log_p.shape, 0.1 / classes)
    wanted[np.arange(len(target)), target] += 0.9
    expected = -(wanted * log_p).sum(axis=1).mean()
    found = evaluate(CrossEntropyLoss(label_smoothing=0.1), logits, target)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_softmax_priors_are_added_to_the_logits(size):
    logits, target, _, counts = batch(*size)
    expected = -log_probability(logits + np.log(counts), target).mean()
    found = evaluate(BalancedSoftmaxLoss(counts), logits, target)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    expected = -log_probability(logits + 1.7 * np.log(counts / counts.sum()), target).mean()
    found = evaluate(LogitAdjustedLoss(counts, tau=1.7), logits, target)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delta", [1e4, math.inf])
def test_balanced_hard_mining_is_its_formula(size, delta):
    """L_f, or L_c, of the softmax of logits + log π."""
    logits, target, _, counts = batch(*size, spread=6)
    adjusted = logits + np.log(counts / counts.sum())
    expected = numpy_hard_mining(adjusted, target, delta, None, "outer", 2.0)
    loss = BalancedHardMiningLoss(counts, delta, scale=2.0, reduction="none")
    np.testing.assert_allclose(evaluate(loss, logits, target), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gamma", [None, 0.0, 1.5])
@pytest.mark.parametrize("weighted", WEIGHTS)
def test_influence_balanced_is_its_formula(size, gamma, weighted):
    logits, target, weight, _ = batch(*size)
    features = np.random.default_rng(1).standard_normal((size[0], 5))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = exponentials / exponentials.sum(axis=1, keepdims=True)
    error[np.arange(len(target)), target] -= 1
    influence = np.abs(error).sum(axis=1) * np.abs(features).sum(axis=1)
    w = weight[target] if weighted else 1.0
    ce = w * -log_probability(logits, target)
    expected = ce * 50.0 / (influence + 1e-2)
    if gamma is not None:
        expected = expected * (1 - np.exp(-ce)) ** gamma
    loss = InfluenceBalancedLoss(50.0, 1e-2, gamma, weight if weighted else None)
    found = evaluate(loss, logits, target, torch.tensor(features))
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-10)


@pytest.mark.parametrize("delta", [1.0, 1e4, math.inf])
@pytest.mark.parametrize("weighting", ["outer", "inner"])
def test_hard_mining_gradient_against_finite_differences(delta, weighting):
    logits, target, weight, _ = batch(12, 6, spread=2)
    loss = HardMiningLoss(delta, weight, weighting, reduction="sum")
    logits = torch.tensor(logits, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor(target)), (logits,))


def test_hard_mining_gradient_below_the_cut_is_analytic():
    """Where finite differences fail: p ≈ 1e-5 … 1e-3 with δ = 1e4, dL/dp from the product rule."""
    delta = 1e4
    p = np.geomspace(1e-7, 0.9, 300)

    def d_sinc(x):  # derivative of sinc
        return (np.cos(np.pi * x) - np.sinc(x)) / x

    decay = np.exp(-delta * p)
    factor = np.sinc(p) - decay * np.sinc(delta * p)
    d_factor = d_sinc(p) + delta * decay * (np.sinc(delta * p) - d_sinc(delta * p))
    expected = d_factor * -np.log(p) - factor / p
    q = torch.tensor(p, requires_grad=True)
    (found,) = torch.autograd.grad(hard_mining_value(q, delta).sum(), q)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sinc_and_its_gradient_hold_where_torch_divides_zero_by_zero(dtype):
    x = torch.tensor(
        [0.0, 1e-40, 1e-30, 1e-20, 1e-10, 1e-3, 0.079, 0.08, 0.5, 1.0, 7.3], dtype=dtype
    )
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(sinc(x).sum(), x)
    reference = x.detach().double().numpy()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    np.testing.assert_allclose(
        sinc(x).detach().double().numpy(), np.sinc(reference), atol=tolerance
    )
    with np.errstate(all="ignore"):
        expected = (np.cos(np.pi * reference) - np.sinc(reference)) / reference
    expected = np.where(reference < 1e-5, -(np.pi**2) * reference / 3, expected)
    np.testing.assert_allclose(gradient.double().numpy(), expected, rtol=1e-6, atol=100 * tolerance)


def test_the_outlier_cut_halves_the_factor():
    for delta in (10.0, 1e4, 1e7):
        for weight, weighting in ((1.0, "outer"), (4.4, "inner"), (0.3, "inner")):
            cut = outlier_cut(delta, weight, weighting)
            seen = torch.tensor(
                cut ** (weight if weighting == "inner" else 1.0), dtype=torch.float64
            )
            left = hard_mining_factor(seen, delta) / hard_mining_factor(seen, math.inf)
            assert left.item() == pytest.approx(0.5, abs=1e-6)


def test_inner_weighting_moves_the_cut_of_cifar_100_tail_classes_to_a_tenth():
    """DESIGN section 2: the cut bites from p ≈ 0.12 (p^w = 1/δ) and has halved the loss at 0.10."""
    from hml_core import imbalance

    counts = imbalance.class_counts(500, 100, "exp", 100)
    weight = imbalance.class_weights(counts, "CS")[-1]
    assert (1e-4) ** (1 / weight) == pytest.approx(0.122, abs=0.001)
    assert outlier_cut(1e4, weight, "inner") == pytest.approx(0.0995, abs=0.0005)
    assert outlier_cut(1e4, weight, "outer") < 1e-4


def test_large_delta_approaches_its_limit():
    logits, target, _, _ = batch(64, 10)
    limit = evaluate(HardMiningLoss(math.inf), logits, target)
    assert evaluate(HardMiningLoss(1e12), logits, target) == pytest.approx(limit, rel=1e-9)
    assert evaluate(HardMiningLoss(1e1), logits, target) < limit
