"""What every loss shares: checks of shapes, class weights, precision and reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

REDUCTIONS = ("mean", "sum", "none")
WEIGHTINGS = ("outer", "inner")
MEANS = ("weights", "images")  # what the mean of a weighted loss divides by


class ClassificationLoss(nn.Module):
    """Base of the losses: ``forward(logits (N, C), target (N,))``.

    A loss computes in float32, or in float64 where the logits are, whatever the autocast state.

    A subclass defines :meth:`per_sample` and says by class attributes what it needs.

    Attributes
    ----------
    needs_features : bool
        ``forward`` takes the features (N, d) as a third argument.
    needs_cosines : bool
        The logits must be plain cosines, of a cosine head of scale 1: the loss scales them itself, by
        ``logit_scale``.
    corrects_priors : bool
        The loss makes up for class frequencies by itself: no sampler or post-hoc adjustment may as well.
    is_hard_mining : bool
        The loss has the hard-mining factor: tables give it the options of that family.
    logit_scale : float
        The factor on the logits whose softmax is the model's probability.
    """

    needs_features: bool = False
    needs_cosines: bool = False
    corrects_priors: bool = False
    is_hard_mining: bool = False
    logit_scale: float = 1.0

    def _set_weight(self, weight: Sequence[float] | np.ndarray | Tensor | None) -> None:
        """Keep class weights as a float64 buffer: they follow ``.to(device)``."""
        if weight is not None:
            weight = _vector("weight", weight)
            if not bool(torch.isfinite(weight).all()) or bool((weight <= 0).any()):
                raise ValueError(
                    f"Expected `weight` to be positive and finite, got {weight.tolist()}."
                )
        self.register_buffer("weight", weight)

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Move to a device; to one that has no float64 (Apple's MPS), buffers go in float32."""
        try:
            return super()._apply(move, recurse)
        except TypeError:
            for name, buffer in self._buffers.items():
                if buffer is not None and buffer.dtype == torch.float64:
                    self._buffers[name] = buffer.float()
            return super()._apply(move, recurse)

    def _set_counts(self, class_counts: Sequence[int] | np.ndarray | Tensor) -> None:
        """Keep class counts as a float64 buffer."""
        counts = _vector("class_counts", class_counts)
        if not bool((counts >= 1).all()) or not bool(torch.isfinite(counts).all()):
            raise ValueError(f"Expected `class_counts` ≥ 1 for every class, got {counts.tolist()}.")
        self.register_buffer("class_counts", counts)

    def _check(self, logits: Tensor, target: Tensor) -> Tensor:
        """Shapes and types, without waiting for the device; returns the logits to compute with."""
        if logits.ndim != 2 or not logits.is_floating_point():
            raise ValueError(
                "Expected `logits` to be floating point of shape (N, C), "
                f"got {logits.dtype} of shape {tuple(logits.shape)}."
            )
        if target.shape != logits.shape[:1] or target.dtype != torch.int64:
            raise ValueError(
                f"Expected `target` to be int64 of shape ({len(logits)},), "
                f"got {target.dtype} of shape {tuple(target.shape)}."
            )
        # On other devices a look at the values would wait for them, and no compiled graph can branch on
        # them; there the gather refuses.
        is_seen = type(target) is Tensor and target.device.type == "cpu"
        if is_seen and not torch.compiler.is_compiling() and len(target):
            low, high = int(target.min()), int(target.max())
            if low < 0 or high >= logits.shape[1]:
                wrong = low if low < 0 else high
                raise ValueError(
                    f"Expected `target` to hold classes 0 … {logits.shape[1] - 1}, got {wrong}."
                )
        for name in ("weight", "class_counts"):
            buffer = getattr(self, name, None)
            if buffer is not None and len(buffer) != logits.shape[1]:
                raise ValueError(
                    f"Expected logits of {len(buffer)} classes, as many as `{name}` has, "
                    f"got {logits.shape[1]}."
                )
        return logits if logits.dtype == torch.float64 else logits.float()

    def _class_weight(self, like: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.to(like.dtype)

    def forward(self, logits: Tensor, target: Tensor, *features: Tensor) -> Tensor:
        """Mean of :meth:`per_sample` over the batch: (N, C), (N,) → scalar."""
        return self.per_sample(logits, target, *features).mean()

    def per_sample(self, logits: Tensor, target: Tensor, *features: Tensor) -> Tensor:
        """The loss of each sample before reduction: (N, C), (N,) → (N,)."""
        raise NotImplementedError

    def total_weight(
        self, first: Tensor, second: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor | None:
        """What the mean over samples divides by, float64 (); None: their number.

        Parts of a batch must be added up with it, or a part without rare classes counts too much. For
        the parameters see :meth:`mixed`.
        """
        return None

    def mixed(
        self, logits: Tensor, first: Tensor, second: Tensor, share: Tensor, *features: Tensor
    ) -> Tensor:
        """The loss of images that are mixed of two: share·L(first) + (1 − share)·L(second).

        Its mean divides by :meth:`total_weight`, as that of :meth:`forward` does.

        Parameters
        ----------
        logits : (N, C)
        first, second : int64 (N,)
            The two classes of each image.
        share : (N,)
            Part of the first label, in [0, 1].
        features : (N, d)
            Where ``needs_features``.
        """
        losses = share * self.per_sample(logits, first, *features)
        losses = losses + (1 - share) * self.per_sample(logits, second, *features)
        mean, total = losses.mean(), self.total_weight(first, second, share)
        return mean if total is None else mean * (len(first) / total).to(mean.dtype)

    def _sum_of_weights(
        self, first: Tensor, second: Tensor | None, share: Tensor | None
    ) -> Tensor | None:
        """Σ w, float64 (); None without class weights."""
        if self.weight is None:
            return None
        weight = self.weight.double()
        if second is None:
            return weight[first].sum()
        return (share * weight[first] + (1 - share) * weight[second]).sum()


class WeightedMeanLoss(ClassificationLoss):
    """Base of the losses whose mean divides by the sum of weights or by the number of images, as asked."""

    mean_over: str

    def _set_mean_over(self, mean_over: str) -> None:
        self.mean_over = require_choice("mean_over", mean_over, MEANS)

    def total_weight(
        self, first: Tensor, second: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor | None:
        """See :meth:`ClassificationLoss.total_weight`: Σ w, where the mean divides by it."""
        if self.mean_over == "images":
            return None
        return self._sum_of_weights(first, second, share)

    def _mean(self, losses: Tensor, target: Tensor) -> Tensor:
        """Of losses that hold the weights of their classes: (N,), (N,) → scalar."""
        total = self.total_weight(target)
        return losses.mean() if total is None else losses.sum() / total.to(losses.dtype)


def _vector(name: str, values: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    """A float64 copy of shape (C,), on the device of ``values`` if they are a tensor."""
    try:
        if not isinstance(values, Tensor):
            values = torch.from_numpy(np.array(values, dtype=np.float64))
        if values.device.type == "mps":  # it has no float64
            values = values.cpu()
        vector = values.detach().to(torch.float64, copy=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected `{name}` to be one number for each class, got {values!r}."
        ) from error
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"Expected `{name}` of shape (C,), got {tuple(vector.shape)}.")
    return vector


def full_precision(logits: Tensor) -> AbstractContextManager:
    """Autocast off on the logits' device."""
    return torch.autocast(logits.device.type, enabled=False)


def true_class(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Log-probability of the true class: (N, C), (N,) → (N,)."""
    return log_probabilities.gather(1, target[:, None]).squeeze(1)


def require_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``, else a ValueError that lists them."""
    if value not in choices:
        raise ValueError(f"Expected `{name}` to be one of {', '.join(choices)}, got {value!r}.")
    return value


def require_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    least: float | None = None,
    finite: bool = True,
) -> float:
    """``value`` as float if it is above (or at least) a bound, else a ValueError; NaN never is."""
    bounds = "" if above is None else f" > {above:g}"
    bounds += "" if least is None else f" ≥ {least:g}"
    # float() would take "1e4" and True, which are mistakes of whoever set the option.
    if isinstance(value, (str, bool)):
        raise ValueError(f"Expected `{name}`{bounds} to be a number, got {value!r}.")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last from a tensor of many
        raise ValueError(f"Expected `{name}`{bounds} to be a number, got {value!r}.") from error
    inside = (above is None or number > above) and (least is None or number >= least)
    if not inside or math.isnan(number):
        raise ValueError(f"Expected `{name}`{bounds}, got {number}.")
    if finite and math.isinf(number):
        raise ValueError(f"Expected `{name}`{bounds} to be finite, got {number}.")
    return number


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """Mean over the batch (divided by its size, not by the sum of weights), sum, or none."""
    if reduction == "mean":
        return losses.mean()
    return losses.sum() if reduction == "sum" else losses
