"""The usual trainer, to compare with: PIL images, transforms image by image, a DataLoader, float32.

Written for the benchmarks, and on purpose as tutorials and most research code have it: one sample at a
time through ``torchvision.transforms``, a new tensor layout for every batch, the loss and the number of
hits read back in every step. It trains the same network on the same images with the same loss, optimiser,
learning rates and augmentation as :class:`hml_core.trainer.Trainer`; only the way there is another.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from hml_core import models, schedule
from hml_core.augment import AUGMENTATIONS
from hml_core.config import RunConfig
from hml_core.datasets import LabelledImages, Splits
from hml_core.system import seeds


class PilImages(Dataset):
    """Samples (image, class number), one PIL image at a time."""

    def __init__(self, part: LabelledImages, transform: transforms.Compose) -> None:
        self.images, self.targets, self.transform = part.images, part.targets, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), int(self.targets[index])


def transform(splits: Splits, augmentation: str = "none") -> transforms.Compose:
    """Random crop, mirror image, scaling to [0, 1] and normalisation, as torchvision has them."""
    chosen, size = AUGMENTATIONS[augmentation], splits.train.images.shape[1]
    steps: list = []
    if chosen.pad:
        steps.append(transforms.RandomCrop(size, padding=chosen.pad))
    if chosen.flip:
        steps.append(transforms.RandomHorizontalFlip())
    return transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(splits.mean, splits.std)]
    )


def loader(
    part: LabelledImages,
    splits: Splits,
    batch_size: int,
    *,
    augmentation: str | None = None,
    workers: int = 0,
) -> DataLoader:
    """Shuffled and augmented where an augmentation is named, else in order."""
    return DataLoader(
        PilImages(part, transform(splits, augmentation or "none")),
        batch_size=batch_size,
        shuffle=augmentation is not None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class PlainTrainer:
    """Cross-entropy with SGD, epoch by epoch, as tutorials have it.

    Parameters
    ----------
    config : RunConfig
        Network, batch size, optimiser and augmentation.
    splits : Splits
    device : torch.device
    workers : int
        Processes that load images; 0: the training process itself.
    """

    def __init__(
        self, config: RunConfig, splits: Splits, device: torch.device, workers: int = 0
    ) -> None:
        self.config, self.device = config, device
        self.rates, self.epoch = schedule.learning_rates(config).tolist(), 0
        with seeds.seeded(config.seed, "initialisation"):
            self.model = models.build(
                config.model, splits.num_classes, config.head, in_channels=splits.channels
            ).to(device)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.train_loader = loader(
            splits.train,
            splits,
            config.batch_size,
            augmentation=config.augmentation,
            workers=workers,
        )
        self.test_loader = loader(splits.test, splits, config.batch_size, workers=workers)

    def step(self, images: Tensor, targets: Tensor) -> tuple[float, int]:
        """One update; loss and hits as numbers, for which the host waits."""
        images, targets = images.to(self.device), targets.to(self.device)
        logits = self.model(images)
        loss = self.criterion(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), (logits.argmax(dim=1) == targets).sum().item()

    def train_epoch(self) -> float:
        """The mean loss of an epoch."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[self.epoch]
        self.epoch += 1
        losses = [self.step(images, targets)[0] for images, targets in self.train_loader]
        return float(np.mean(losses))

    @torch.no_grad()
    def evaluate(self) -> float:
        """Accuracy on the test split."""
        self.model.eval()
        hits = 0
        for images, targets in self.test_loader:
            logits = self.model(images.to(self.device))
            hits += (logits.argmax(dim=1) == targets.to(self.device)).sum().item()
        return hits / len(self.test_loader.dataset)
