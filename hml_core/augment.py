"""Augmentation of whole batches of small uint8 images by one gather, on whatever device holds them.

All random numbers of an epoch are drawn before it, from a CPU generator: the step itself is then a pure
function of tensors (it can be captured as a CUDA graph), and an epoch is the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Parameters
    ----------
    pad : int
        Random crop of the original size out of the image with ``pad`` black pixels on every side.
    flip : bool
        Mirror left and right with probability one half.
    upturn : bool
        Mirror top and bottom with probability one half: what is seen from above has no upper side.
    """

    pad: int = 0
    flip: bool = False
    upturn: bool = False


# Of image files: torchvision's, image by image (:mod:`hml_core.trainer.feeds`), and of whole batches those
# that are below, too. With one of the latter the decoded images lie in memory as small ones do.
FILE_AUGMENTATIONS = ("none", "dermoscopy", "resized_crop", "crop_flips")
AUGMENTATIONS = {
    "none": Augmentation(),
    "crop": Augmentation(pad=1),
    "crop_flip": Augmentation(pad=4, flip=True),
    "crop_flips": Augmentation(pad=4, flip=True, upturn=True),
}


@dataclass(frozen=True)
class Draws:
    """The random part of an epoch: crop offsets int64 (N,) in 0 … 2·pad and, if any, mirrors bool (N,)."""

    top: Tensor
    left: Tensor
    flip: Tensor | None
    upturn: Tensor | None = None

    def __getitem__(self, part: slice | Tensor) -> Draws:
        return self._each(lambda draws: draws[part])

    def to(self, device: torch.device) -> Draws:
        return self._each(lambda draws: draws.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        values = (self.top, self.left, self.flip, self.upturn)
        return Draws(*(None if one is None else change(one) for one in values))


def draw(number: int, augmentation: Augmentation, generator: torch.Generator) -> Draws:
    """Draws for ``number`` images, on the generator's device."""
    device = generator.device
    offsets = torch.randint(
        2 * augmentation.pad + 1, (2, number), generator=generator, device=device
    )

    def coins(wanted: bool) -> Tensor | None:
        return torch.rand(number, generator=generator, device=device) < 0.5 if wanted else None

    return Draws(offsets[0], offsets[1], coins(augmentation.flip), coins(augmentation.upturn))


class ImageBank:
    """A data set on a device, from which normalised batches are gathered.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 (N, H, W, C).
    mean, std : tuple of float
        Of each channel, for images scaled to [0, 1].
    device : torch.device
    pad : int
        Black pixels around every image, so that a crop is a plain gather. What is right of a row is also
        left of the next one, and what is below an image above the next: three quarters of the memory.
    """

    def __init__(
        self,
        images: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        pad: int = 0,
    ) -> None:
        number, self.height, self.width, self.channels = images.shape
        self.rows, self.columns = self.height + pad, self.width + pad
        self.number, self.pad = number, pad
        before = pad * self.columns + pad  # pixels, of the first image
        padded = np.zeros((before + number * self.rows * self.columns, self.channels), np.uint8)
        places = padded[before:].reshape(number, self.rows, self.columns, self.channels)
        places[:, : self.height, : self.width] = images
        pixels = torch.from_numpy(padded).to(device).reshape(-1)
        # Every window of the images' size, by the number of its first pixel: (K, H, W·C), without a
        # copy. Selecting one copies H runs of W·C bytes, which is channels-last by itself.
        inside = (self.height - 1) * self.columns + self.width - 1
        self.windows = pixels.as_strided(
            (len(padded) - inside, self.height, self.width * self.channels),
            (self.channels, self.columns * self.channels, 1),
        )
        std = torch.tensor(std, device=device)
        self.scale = (1 / (255 * std)).repeat(self.width)  # (W·C,)
        self.shift = (-torch.tensor(mean, device=device) / std).repeat(self.width)

    def __len__(self) -> int:
        return self.number

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Images ``indices`` (B,) as float32 (B, C, H, W) in channels-last order.

        Without ``draws`` they are the original images.
        """
        top = left = self.pad
        if draws is not None:
            top, left = draws.top, draws.left
        first = (indices * self.rows + top) * self.columns + left  # (B,)
        batch = self.windows.index_select(0, first)  # (B, H, W·C) uint8
        if draws is not None and draws.flip is not None:
            batch = self._mirrored(batch, draws.flip, 2)
        if draws is not None and draws.upturn is not None:
            batch = self._mirrored(batch, draws.upturn, 1)
        batch = torch.addcmul(self.shift, batch.float(), self.scale)
        return batch.reshape(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)

    def _mirrored(self, batch: Tensor, flip: Tensor, axis: int) -> Tensor:
        """Along an axis those that ``flip`` (B,) says, without asking how many those are."""
        pixels = batch.reshape(-1, self.height, self.width, self.channels)
        both = torch.cat([pixels, pixels.flip(axis)])
        number = len(batch)
        chosen = torch.arange(number, device=batch.device) + number * flip
        return both.index_select(0, chosen).reshape(batch.shape)


MIXES = ("none", "mixup", "remix")
REMIX_KAPPA = 3.0  # class sizes that differ by this factor count as head and tail
REMIX_TAU = 0.5


@dataclass(frozen=True)
class Mix:
    """Which images of an epoch are mixed: ``partner`` int64 (N,) and ``share`` float32 (N,).

    ``partner`` counts from the start of the image's batch; ``share`` is the image's own part.
    """

    partner: Tensor
    share: Tensor

    def __getitem__(self, part: slice | Tensor) -> Mix:
        return Mix(self.partner[part], self.share[part])

    def to(self, device: torch.device) -> Mix:
        return Mix(self.partner.to(device), self.share.to(device))


def draw_mix(number: int, batch_size: int, alpha: float, seed: int) -> Mix:
    """mixup's draws (Zhang et al., ICLR 2018): a permutation and one share ~ Beta(α, α) per batch."""
    random = np.random.default_rng(seed)
    partner = np.empty(number, dtype=np.int64)
    share = np.empty(number, dtype=np.float32)
    for start in range(0, number, batch_size):
        size = min(batch_size, number - start)
        partner[start : start + size] = random.permutation(size)
        share[start : start + size] = random.beta(alpha, alpha)
    return Mix(torch.from_numpy(partner), torch.from_numpy(share))


def remix_share(share: Tensor, first_counts: Tensor, second_counts: Tensor) -> Tensor:
    """Label shares of Remix (Chou et al., ECCV-W 2020, equation 8), (N,).

    Where one class has at least κ = 3 times the images of the other, and the more frequent one makes up
    less than τ = 0.5 of the pixels, the label is the rarer class alone; else the shares are mixup's.
    """
    ratio = first_counts / second_counts
    to_second = (ratio >= REMIX_KAPPA) & (share < REMIX_TAU)
    to_first = (ratio <= 1 / REMIX_KAPPA) & (1 - share < REMIX_TAU)
    share = torch.where(to_second, torch.zeros_like(share), share)
    return torch.where(to_first, torch.ones_like(share), share)
