"""What a network's convolutions take by themselves: no trainer of this network can be faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hml_core import models


def convolutions(
    model_name: str, batch_size: int, dtype: torch.dtype, device: torch.device, *, backward: bool
) -> Callable[[], None]:
    """All convolutions of a network once, each on tensors of its own, channels-last.

    In the order in which any trainer must do them: all forward, then all backward from the last to the
    first, by when the inputs have left the cache.
    """
    model = models.build(model_name, 100).to(device, memory_format=torch.channels_last)
    forwards: list[Callable[[], Any]] = []
    backwards: list[Callable[[], Any]] = []

    def like(tensor: Tensor) -> Tensor:
        made = torch.randn(tensor.shape, device=device)
        return made.to(dtype, memory_format=torch.channels_last)

    def record(layer: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        x, gradient, weight = like(inputs[0]), like(output), layer.weight.detach().to(dtype)
        place = layer.stride, layer.padding, layer.dilation, False, [0, 0], 1
        wanted = [layer.in_channels != 3, True, False]  # images need no gradient
        forwards.append(lambda: torch.ops.aten.convolution(x, weight, None, *place))
        backwards.append(
            lambda: torch.ops.aten.convolution_backward(gradient, x, weight, [0], *place, wanted)
        )

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(record)
    with torch.no_grad():
        model(torch.zeros(batch_size, 3, 32, 32, device=device))

    @torch.inference_mode()
    def call() -> None:
        for one in forwards:
            one()
        for one in reversed(backwards if backward else []):
            one()

    return call
