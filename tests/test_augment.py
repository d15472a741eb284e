"""Batched augmentation: the same images that torchvision's per-image transforms would make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from hml_core.augment import AUGMENTATIONS, Augmentation, Draws, ImageBank, draw

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 9, 7, 3), dtype=np.uint8)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
CPU = torch.device("cpu")


def reference(
    image: np.ndarray, top: int, left: int, flip: bool, pad: int, upturn: bool = False
) -> torch.Tensor:
    """One image through torchvision, with the draws given."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    tensor = v2.functional.pad(tensor, [pad] * 4)
    tensor = v2.functional.crop(tensor, top, left, image.shape[0], image.shape[1])
    if flip:
        tensor = v2.functional.horizontal_flip(tensor)
    if upturn:
        tensor = v2.functional.vertical_flip(tensor)
    return v2.functional.normalize(tensor.float() / 255, MEAN, STD)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_a_batch_is_what_torchvision_makes_image_by_image(augmentation):
    bank = ImageBank(IMAGES, MEAN, STD, CPU, augmentation.pad)
    order = torch.tensor([3, 3, 19, 0, 7, 11])
    draws = draw(len(order), augmentation, torch.Generator().manual_seed(1))
    batch = bank.batch(order, draws)
    assert batch.shape == (6, 3, 9, 7)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for row, index in enumerate(order.tolist()):
        expected = reference(
            IMAGES[index],
            int(draws.top[row]),
            int(draws.left[row]),
            draws.flip is not None and bool(draws.flip[row]),
            augmentation.pad,
            draws.upturn is not None and bool(draws.upturn[row]),
        )
        torch.testing.assert_close(batch[row], expected, rtol=1e-5, atol=1e-5)


def test_without_draws_the_original_images_come_back():
    bank = ImageBank(IMAGES, MEAN, STD, CPU, pad=3)
    batch = bank.batch(torch.arange(20))
    for index in range(20):
        expected = reference(IMAGES[index], 0, 0, False, 0)
        torch.testing.assert_close(batch[index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pad", [1, 3])
def test_no_crop_sees_a_neighbour_of_the_image(pad):
    """Images share the black pixels between them: every corner of the first, a middle and the last."""
    bank = ImageBank(IMAGES, MEAN, STD, CPU, pad=pad)
    for index in (0, 7, 19):
        for top in (0, pad, 2 * pad):
            for left in (0, pad, 2 * pad):
                draws = Draws(torch.tensor([top]), torch.tensor([left]), None)
                (seen,) = bank.batch(torch.tensor([index]), draws)
                expected = reference(IMAGES[index], top, left, False, pad)
                torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)


def test_draws_are_even_over_their_range():
    draws = draw(30_000, Augmentation(pad=2, flip=True), torch.Generator().manual_seed(0))
    for offsets in (draws.top, draws.left):
        share = torch.bincount(offsets, minlength=5) / 30_000
        assert (share - 0.2).abs().max() < 0.012
    assert draws.flip.float().mean().item() == pytest.approx(0.5, abs=0.012)


def test_mirrors_are_drawn_apart_and_after_what_others_draw():
    """An augmentation that also turns images upside down draws the same crops and flips as one without."""
    both, one = (
        draw(30_000, Augmentation(2, True, upturn), torch.Generator().manual_seed(0))
        for upturn in (True, False)
    )
    assert one.upturn is None
    assert (both.top == one.top).all()
    assert (both.flip == one.flip).all()
    shares = torch.bincount(2 * both.flip + both.upturn, minlength=4) / 30_000
    assert (shares - 0.25).abs().max() < 0.012


def test_draws_can_be_sliced_like_the_order():
    draws = draw(10, Augmentation(pad=2, flip=True), torch.Generator().manual_seed(0))
    part = draws[4:6]
    assert isinstance(part, Draws)
    assert part.top.tolist() == draws.top[4:6].tolist()
