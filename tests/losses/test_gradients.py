"""Gradients with respect to the logits (and features) against the derivatives written out by hand."""

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
from hml_core.losses.focal import focal_factor

SIZES = [(5, 2), (16, 10), (9, 40)]
every_size = pytest.mark.parametrize("size", SIZES)
every_weighting = pytest.mark.parametrize("weighting", ["outer", "inner"])


class Batch:
    """Logits, targets, weights and counts with what the derivatives are made of."""

    def __init__(self, n: int, classes: int, spread: float = 3.0) -> None:
        random = np.random.default_rng([n, classes])
        self.logits = spread * random.standard_normal((n, classes))
        self.target = random.integers(0, classes, n)
        self.weight = random.uniform(0.1, 4, classes)
        self.counts = random.integers(1, 500, classes)
        self.w = self.weight[self.target]
        self.n, self.onehot = n, np.eye(classes)[self.target]

    def residual(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """−log p (N,) of the true class and its derivative softmax − onehot (N, C)."""
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -log_p[np.arange(self.n), self.target], np.exp(log_p) - self.onehot

    def gradient(self, loss, logits: np.ndarray | None = None) -> np.ndarray:
        z = torch.tensor(self.logits if logits is None else logits, requires_grad=True)
        return torch.autograd.grad(loss(z, torch.tensor(self.target)), z)[0].numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * scale)


def sinc_slope(x: np.ndarray) -> np.ndarray:
    near = x < 1e-3
    safe = np.where(near, 1.0, x)
    series = -(np.pi**2) * x / 3 + np.pi**4 * x**3 / 30
    return np.where(near, series, (np.cos(np.pi * safe) - np.sinc(safe)) / safe)


@every_size
@every_weighting
@pytest.mark.parametrize("delta", [1.0, 1e2, 1e4, 1e10, math.inf])
def test_hard_mining(size, weighting, delta):
    batch = Batch(*size, spread=6)
    cost, residual = batch.residual(batch.logits)
    inside = batch.w * cost if weighting == "inner" else cost
    q = np.exp(-inside)
    factor, slope = np.sinc(q), sinc_slope(q)
    if delta < math.inf:
        x = delta * q
        factor = factor - np.exp(-x) * np.sinc(x)
        slope = slope + delta * np.exp(-x) * (np.sinc(x) - sinc_slope(x))
    # d/dcost of scale · w · factor(q) · cost, with dq/dcost = −q (outer) or −w·q (inner).
    expected = 10 * batch.w * (factor - slope * q * inside)
    loss = HardMiningLoss(delta, batch.weight, weighting, scale=10.0)
    close(batch.gradient(loss), expected[:, None] * residual / batch.n)


def focal(u: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """(1 − exp(−u))^γ and its derivative."""
    wrong = -np.expm1(-u)
    return wrong**gamma, gamma * np.exp(-u) * wrong ** (gamma - 1)


@every_size
@every_weighting
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal(size, weighting, gamma):
    batch = Batch(*size)
    cost, residual = batch.residual(batch.logits)
    inside = batch.w * cost if weighting == "inner" else cost
    factor, slope = focal(inside, gamma)
    expected = batch.w * (factor + slope * inside)
    loss = FocalLoss(gamma, batch.weight, weighting)
    close(batch.gradient(loss), expected[:, None] * residual / batch.n)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_the_focal_factor_is_exact_for_easy_samples(gamma):
    """1 − p from log p without cancellation: float32 knows no p between 1 − 6e-8 and 1."""
    log_p = torch.tensor([-1e-12, -1e-6, -0.1])
    expected, _ = focal(-log_p.double().numpy(), gamma)
    np.testing.assert_allclose(focal_factor(log_p, gamma).double().numpy(), expected, rtol=1e-5)


@every_size
def test_cross_entropy_and_ldam_divide_by_the_sum_of_weights(size):
    batch = Batch(*size)
    share = (batch.w / batch.w.sum())[:, None]
    _, residual = batch.residual(batch.logits)
    close(batch.gradient(CrossEntropyLoss(batch.weight)), share * residual)

    cosines = np.tanh(batch.logits)
    margins = 0.5 * batch.counts**-0.25 / (batch.counts**-0.25).max()
    _, residual = batch.residual(30 * (cosines - margins * batch.onehot))
    close(
        batch.gradient(LDAMLoss(batch.counts, weight=batch.weight), cosines), 30 * share * residual
    )


@every_size
def test_softmax_priors_shift_the_softmax(size):
    batch = Batch(*size)
    _, residual = batch.residual(batch.logits + np.log(batch.counts))
    close(batch.gradient(BalancedSoftmaxLoss(batch.counts)), residual / batch.n)
    _, residual = batch.residual(batch.logits + 0.6 * np.log(batch.counts))
    close(batch.gradient(LogitAdjustedLoss(batch.counts, tau=0.6)), residual / batch.n)


@every_size
def test_balanced_hard_mining(size):
    """d/dcost of sinc(q)·cost with dq/dcost = −q, on the softmax of logits + log π."""
    batch = Batch(*size, spread=6)
    cost, residual = batch.residual(batch.logits + np.log(batch.counts))
    q = np.exp(-cost)
    expected = np.sinc(q) - sinc_slope(q) * q * cost
    close(
        batch.gradient(BalancedHardMiningLoss(batch.counts)),
        expected[:, None] * residual / batch.n,
    )


@every_size
@pytest.mark.parametrize("gamma", [None, 0.5, 2.0])
def test_influence_balanced_differentiates_its_factor_too(size, gamma):
    """The published code does not detach the influence: the gradient reaches logits and features."""
    batch = Batch(*size)
    features = np.random.default_rng(3).standard_normal((batch.n, 6))
    cost, residual = batch.residual(batch.logits)
    u, length = batch.w * cost, np.abs(features).sum(axis=1)
    p = np.exp(-cost)
    error = 2 * (1 - p)  # ‖softmax − onehot‖₁, whose derivative with respect to cost is 2p
    below = error * length + 1e-3
    factor, slope = (1.0, 0.0) if gamma is None else focal(u, gamma)
    by_cost = 1000 * (
        batch.w * (factor + slope * u) / below - factor * u * length * 2 * p / below**2
    )
    by_feature = -1000 * (factor * u * error / below**2)[:, None] * np.sign(features)

    loss = InfluenceBalancedLoss(gamma=gamma, weight=batch.weight)
    z = torch.tensor(batch.logits, requires_grad=True)
    x = torch.tensor(features, requires_grad=True)
    found = torch.autograd.grad(loss(z, torch.tensor(batch.target), x), (z, x))
    close(found[0].numpy(), by_cost[:, None] * residual / batch.n)
    close(found[1].numpy(), by_feature / batch.n)
