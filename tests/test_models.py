"""Networks: published sizes and names, both heads, no global random state."""

from __future__ import annotations

import io

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
    with pytest.raises(ValueError, match="`num_classes` to be at least 1, got 0"):
        models.build("resnet8", 0)
    with pytest.raises(ValueError, match="resnet50 takes images of 3 channels, got 1"):
        models.build("resnet50", 10, in_channels=1)


def test_class_vectors_of_a_cosine_head_start_at_norm_one():
    """As in LDAM-DRW: a gradient turns a vector by an angle that falls with the square of its norm."""
    weight = models.resnet32(100, head="cosine").linear.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(100))


@pytest.mark.parametrize("name", ["resnet8", "resnet32", "resnet18"])
@pytest.mark.parametrize("classes", [7, 100])
def test_networks_differ_in_their_head_alone(name, classes):
    """With one seed every other parameter is the same, so that runs with either head are paired."""
    states = []
    for head in models.HEADS:
        torch.manual_seed(5)
        states.append(models.build(name, classes, head).state_dict())
    rest = [key for key in states[0] if not key.startswith("linear.")]
    assert len(rest) > 20
    assert all(torch.equal(states[0][key], states[1][key]) for key in rest)


@pytest.mark.parametrize("classes", [10, 64, 100])
def test_published_cosine_heads_load_strictly(classes):
    """LDAM-DRW's checkpoints hold class vectors in columns, (64, C)."""

    class NormedLinear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(64, classes))

        def forward(self, x):
            return F.normalize(x, dim=1).mm(F.normalize(self.weight, dim=0))

    torch.manual_seed(3)
    published = models.resnet32(classes)
    published.linear = NormedLinear()
    ours = models.resnet32(classes, head="cosine")
    buffer = io.BytesIO()
    torch.save(published.state_dict(), buffer)
    buffer.seek(0)
    ours.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), published.eval()(images))
    again = models.resnet32(classes, head="cosine")
    again.load_state_dict(ours.state_dict())  # ours stay as they are, those of 64 classes, too
    assert torch.equal(again.linear.weight, ours.linear.weight)
