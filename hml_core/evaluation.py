"""What a network is worth: features, logits and metrics of whole splits, and the best epochs so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core import metrics, post_hoc
from hml_core.augment import ImageBank
from hml_core.config import RunConfig
from hml_core.datasets import LabelledImages, Splits
from hml_core.devices import autocast

BATCH = 1000


class Evaluator:
    """Evaluates a network on validation and test split and remembers the best epochs.

    Parameters
    ----------
    config : RunConfig
    splits : Splits
    device : torch.device
    autocast_dtype : torch.dtype or None
        See :func:`hml_core.devices.autocast_dtype`.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
    ) -> None:
        self.config, self.splits = config, splits
        self.device, self.autocast_dtype = device, autocast_dtype
        self.evaluated = {"test": splits.test}
        if splits.validation is not None:
            self.evaluated = {"validation": splits.validation, **self.evaluated}
        self.banks = {name: self._bank(split) for name, split in self.evaluated.items()}
        self.best: dict[str, dict[str, Any]] = {}
        self.last_logits: Tensor | None = None

    def _bank(self, images: LabelledImages) -> ImageBank:
        return ImageBank(images.images, self.splits.mean, self.splits.std, self.device)

    def evaluate(self, model: nn.Module, logit_scale: float, epoch: int) -> dict[str, float]:
        """Accuracies of every split for the history's row of ``epoch`` (from 1)."""
        model.eval()
        classifier = self._classifier(model)
        logits = {
            name: self._logits(model, classifier, bank, logit_scale)
            for name, bank in self.banks.items()
        }
        row = {}
        for name, split in self.evaluated.items():
            found = metrics.quick(
                logits[name].argmax(dim=1).numpy(), split.targets, self.splits.num_classes
            )
            row[f"{name}_accuracy"] = found["top1"]
            row[f"{name}_balanced_accuracy"] = score = found["balanced_accuracy"]
            best = self.best.get(f"best_{name}")
            if best is None or score > best["score"]:
                self.best[f"best_{name}"] = {
                    "epoch": epoch,
                    "score": score,
                    "logits": logits["test"],
                }
        self.last_logits = logits["test"]
        return row

    def _classifier(self, model: nn.Module) -> post_hoc.Classifier:
        """The trained classifier, or the one that the recipe puts in its place after training."""
        method = self.config.method
        if method.post_hoc == "tau_norm":
            return post_hoc.tau_normalised(model.classifier, method.options["tau"])
        if method.post_hoc == "ncm":
            train = self.splits.train
            targets = torch.from_numpy(train.targets).to(self.device)
            features = self._features(model, self._bank(train))
            return post_hoc.nearest_class_mean(features, targets, self.splits.num_classes)
        return model.classifier

    @torch.inference_mode()
    def _features(self, model: nn.Module, bank: ImageBank) -> Tensor:
        """float32 (N, d) of all images of a split, on the device."""
        parts = []
        for indices in torch.arange(len(bank), device=self.device).split(BATCH):
            with autocast(self.device, self.autocast_dtype):
                parts.append(model.features(bank.batch(indices)).float())
        return torch.cat(parts)

    @torch.inference_mode()
    def _logits(
        self,
        model: nn.Module,
        classifier: post_hoc.Classifier,
        bank: ImageBank,
        logit_scale: float,
    ) -> Tensor:
        """float32 (N, C) on the CPU, scaled so that their softmax is the model's probability."""
        logits = classifier(self._features(model, bank)).float() * logit_scale
        if self.config.post_hoc_tau:
            counts = torch.from_numpy(self.splits.class_counts).to(self.device)
            logits = logits - self.config.post_hoc_tau * (counts / counts.sum()).log()
        return logits.cpu()

    def selections(self, last_epoch: int) -> dict[str, Any]:
        """Test metrics after the last epoch and at the best epochs on validation and on the test set."""
        chosen = {"last": {"epoch": last_epoch, "logits": self.last_logits}, **self.best}
        targets, counts = self.splits.test.targets, self.splits.class_counts
        found: dict[str, Any] = {"best_validation": None}
        for name, one in chosen.items():
            logits = one["logits"].numpy()
            per_class = metrics.per_class_accuracy(
                logits.argmax(axis=1), targets, self.splits.num_classes
            )
            found[name] = {
                "epoch": one["epoch"],
                **_without_nan(metrics.summary(logits, targets, counts)),
                "per_class_accuracy": [None if np.isnan(a) else float(a) for a in per_class],
            }
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"best": self.best, "last_logits": self.last_logits}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.best, self.last_logits = state["best"], state["last_logits"]


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if np.isnan(value) else float(value) for key, value in values.items()}
