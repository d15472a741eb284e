"""Training steps as CUDA graphs: captured once, replayed without Python or a launch for each kernel.

A step of a small network is hundreds of kernels that each take microseconds, fewer than their launches
cost. Captured as one graph they are launched together. What is captured reads and writes fixed memory:
inputs are copied into it before a replay, and the outputs lie in it until the next one.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Any], tuple[Tensor, ...]]
Replay = Callable[[], None]

WARM_UP_STEPS = 3  # libraries choose their algorithms, the optimiser makes its state


class GraphedStep:
    """A step that is captured for each shape of its batch and replayed from then on.

    The first steps of a shape run eagerly, and so do all steps where the capture fails, with a warning.

    Parameters
    ----------
    step : callable
        Takes a batch (tensors in tuples or dataclasses, None allowed, all on the device) and returns
        tensors. It must not wait for the device, nor read anything that changes from step to step
        but its batch and the contents of tensors that stay where they are.
    capture : callable, optional
        From a step and its fixed batch to (replay, outputs). Default: :func:`capture_cuda`.
    allowed : callable, optional
        Asked after the first steps of a shape: whether the step may be captured at all.
    """

    def __init__(
        self,
        step: Step,
        capture: Callable[[Step, Any], tuple[Replay, tuple[Tensor, ...]]] | None = None,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.allowed = allowed
        self.step = step
        self.capture = capture_cuda if capture is None else capture
        self.steps_of_shape: Counter[tuple] = Counter()
        self.captured: dict[tuple, tuple[list[Tensor], Replay, tuple[Tensor, ...]]] = {}
        self.failure: str | None = None

    def __call__(self, batch: Any) -> tuple[Tensor, ...]:
        """One step; the tensors returned hold until the next one."""
        tensors = tensors_of(batch)
        shape = tuple(tensor.shape for tensor in tensors)
        self.steps_of_shape[shape] += 1
        is_warm = self.steps_of_shape[shape] > WARM_UP_STEPS
        if self.failure or not is_warm or not self.allowed():
            return self.step(batch)
        if shape not in self.captured:
            fixed = copy.deepcopy(batch)
            try:
                replay, outputs = self.capture(self.step, fixed)
            except RuntimeError as error:
                self.failure = str(error)
                warnings.warn(
                    f"The training step could not be captured as a CUDA graph and runs eagerly, which "
                    f"is slower and gives the same: {error}",
                    stacklevel=2,
                )
                return self.step(batch)
            self.captured[shape] = tensors_of(fixed), replay, outputs
        fixed_tensors, replay, outputs = self.captured[shape]
        for target, source in zip(fixed_tensors, tensors, strict=True):
            target.copy_(source)
        replay()
        return outputs


# What follows is reached on a GPU alone: tests/test_cuda.py is run there.
def capture_cuda(step: Step, batch: Any) -> tuple[Replay, tuple[Tensor, ...]]:  # pragma: no cover
    """Record the kernels of one step on the current device. Recording computes nothing.

    Raises
    ------
    RuntimeError
        Where something in the step cannot be recorded, such as waiting for the device.
    """
    graph = torch.cuda.CUDAGraph()
    # A stream of its own: torch's default one belongs to the device that captured first. Other threads
    # (a loader's, that pins memory) may use CUDA meanwhile. What others wait for comes before what goes
    # beside it (devices.Beside).
    stream = torch.cuda.Stream(priority=-1)
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = step(batch)
    return graph.replay, outputs


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in nested tuples and dataclasses, in order."""
    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [tensor for part in value for tensor in tensors_of(part)]
