"""Networks: published sizes and names, both heads, no global random state."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hml_core import models
from hml_core.models import cifar


def parameters(model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("classes", "expected"), [(10, 464_154), (100, 470_004)])
def test_resnet32_has_the_published_number_of_parameters(classes, expected):
    assert parameters(models.resnet32(classes)) == expected


@pytest.mark.parametrize(
    ("name", "depth"), [("resnet8", 8), ("resnet14", 14), ("resnet20", 20), ("resnet32", 32)]
)
def test_depth_counts_convolutions_and_classifier(name, depth):
    model = models.build(name, 10)
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert convolutions + 1 == depth


def test_parameter_names_are_those_of_published_checkpoints():
    names = {name.split(".")[0] for name in models.resnet32(10).state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2", "layer3", "linear"}
    state = models.resnet32(10).state_dict()
    assert state["layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert state["layer3.4.bn2.running_var"].shape == (64,)
    models.resnet32(10).load_state_dict(state)


@pytest.mark.parametrize("head", models.HEADS)
def test_logits_and_features_have_their_shapes(head):
    model = models.resnet8(7, head=head, in_channels=1).eval()
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model(images).shape == (3, 7)
    assert model.features(images).shape == (3, 64)
    assert torch.equal(model(images), model.classifier(model.features(images)))


def test_shortcut_pads_channels_and_skips_pixels():
    """Option A of He et al. 2016: no parameters; with silent convolutions the block is the shortcut."""
    block = cifar.BasicBlock(16, 32, stride=2)
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_cosine_head_is_bounded_by_its_scale_and_ignores_norms():
    head = models.CosineLinear(5, 3, scale=4.0)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    logits = head(x)
    assert logits.abs().max() <= 4.0 + 1e-5
    assert torch.allclose(logits, head(100 * x), atol=1e-5)
    reference = 4 * F.cosine_similarity(x[:, None], head.weight[None], dim=2)
    assert torch.allclose(logits, reference, atol=1e-5)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="`model` to be one of resnet8"):
        models.build("resnet33", 10)
    with pytest.raises(ValueError, match="`head` to be one of linear, cosine"):
        models.build("resnet8", 10, "spherical")
