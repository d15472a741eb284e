"""Kernels of our own for training give the library's numbers; where they cannot be built, it computes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess

import pytest
import torch

from hml_core.models import training
from hml_core.models.cifar import resnet8
from tests import forks

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="torch was built without Triton"
)

# Triton's interpreter runs kernels without a GPU. Of 3 images of 9 pixels, with odd halves, some of many
# parts are not full.
COMPARED = """
import copy, json, torch
from hml_core.models import fused
from hml_core.models.cifar import resnet8
torch.manual_seed(0)
for channels, pixels in {16: 64, 32: 32, 64: 16}.items():
    fused.PIXELS[channels] = fused.ROWS[channels] = pixels
    fused.PARTS[channels] = 2
fused.PROGRAMS, fused.SUMS = 2, 64
ours = resnet8(10).to(memory_format=torch.channels_last).train()
theirs = copy.deepcopy(ours)
features = fused.FusedFeatures(ours, torch.float32)
images = torch.randn(3, 3, 9, 9).contiguous(memory_format=torch.channels_last)
direction = torch.randn(3, 64)
for model, compute in ((ours, features), (theirs, theirs.features)):
    for _ in range(2):  # gradients add up, running statistics move on
        (compute(images) * direction).sum().backward()
def apart(one, other):
    return float((one - other).norm() / other.norm().clamp(min=1e-6))
pairs = zip(ours.named_parameters(), theirs.parameters(), strict=True)
gradients = {name: apart(p.grad, q.grad) for (name, p), q in pairs if q.grad is not None}
pairs = zip(ours.named_buffers(), theirs.buffers(), strict=True)
buffers = {name: apart(p.float(), q.float()) for (name, p), q in pairs}
bits = features(images)
fused.MOST_ELEMENTS = 1
theirs.load_state_dict(ours.state_dict())
too_many = torch.equal(features(images), theirs.features(images))
ours.eval(), theirs.eval()
theirs.load_state_dict(ours.state_dict())
fused.MOST_ELEMENTS = 2**31
frozen = torch.equal(features(images), theirs.features(images))
print(json.dumps([gradients, buffers, too_many, frozen]))
"""


@pytest.mark.slow
@needs_triton
def test_kernels_give_what_the_library_gives():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    process = forks.Python(["-c", COMPARED], env=environment, stdout=subprocess.PIPE)
    gradients, buffers, too_many, frozen = json.loads(process.communicate()[0])
    assert len(gradients) == 21
    assert max(gradients.values()) < 1e-5, gradients
    assert max(buffers.values()) < 1e-5, buffers
    assert too_many, "tensors that 32 bits cannot number go through the library"
    assert frozen, "a network that is not trained goes through the library"


def test_a_cpu_computes_with_the_library():
    model = resnet8(10)
    assert training.features_of(model, torch.device("cpu"), torch.bfloat16) == model.features


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU builds the kernels")
def test_where_kernels_cannot_be_built_the_library_computes_and_that_is_said():
    model = resnet8(10)
    training.has_triton.cache_clear()
    with pytest.warns(UserWarning, match="slower and gives the same"):
        features = training.features_of(model, torch.device("cuda", 0), torch.bfloat16)
    assert features == model.features
    training.has_triton.cache_clear()


def test_a_float32_run_computes_with_the_library():
    model = resnet8(10)
    assert training.features_of(model, torch.device("cuda", 0), None) == model.features


@needs_triton
def test_a_gpu_in_bf16_computes_with_kernels_of_its_own_for_networks_of_this_family(monkeypatch):
    from hml_core.models.fused import FusedFeatures

    monkeypatch.setattr(training, "has_triton", lambda device: True)
    place = torch.device("cuda", 0), torch.bfloat16
    assert isinstance(training.features_of(resnet8(10), *place), FusedFeatures)
    other = torch.nn.Module()
    other.features = torch.nn.Linear(2, 2)
    assert training.features_of(other, *place) is other.features
    compiled = training.features_of(resnet8(10), *place, compiled=True)
    assert not isinstance(compiled, FusedFeatures), "who asks for torch.compile gets it"


def test_without_triton_nothing_is_said(monkeypatch, recwarn):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not training.has_triton.__wrapped__(torch.device("cuda", 0))
    assert not recwarn.list
