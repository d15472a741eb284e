"""Losses are modules: they move to a device with what they hold, one without float64, too."""

from __future__ import annotations

import pytest
import torch

from hml_core.losses import LOSSES, HardMiningLoss, wrapping


@pytest.mark.parametrize("name", LOSSES)
def test_losses_move_to_a_device_without_float64(name):
    """Apple's MPS; here a stand-in that refuses as it does."""
    needed = (
        {"class_counts": [9, 3, 1]} if "class_counts" in wrapping.parameters(LOSSES[name]) else {}
    )
    if "weight" in wrapping.parameters(LOSSES[name]):
        needed["weight"] = [0.5, 1.0, 1.5]
    loss = LOSSES[name](**needed)
    before = {key: value.clone() for key, value in loss.named_buffers()}

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.clone()

    loss._apply(move)
    for key, value in loss.named_buffers():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), before[key].double())


def test_another_error_of_a_move_is_not_hidden():
    def fail(tensor):
        raise TypeError("no such thing")

    with pytest.raises(TypeError, match="no such thing"):
        HardMiningLoss(weight=[1.0, 2.0])._apply(fail)
