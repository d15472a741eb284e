"""One battery over the whole registry: what anybody may expect of every loss."""

from __future__ import annotations

import inspect

import pytest
import torch

from hml_core.losses import LOSSES

COUNTS = [500, 120, 40, 9, 2]
CLASSES = len(COUNTS)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]
every_loss = pytest.mark.parametrize("name", LOSSES)


def make(name: str, counts=COUNTS, weight=None, **options):
    takes = inspect.signature(LOSSES[name]).parameters
    if "class_counts" in takes:
        options["class_counts"] = counts
    if "weight" in takes and weight is not None:
        options["weight"] = weight
    return LOSSES[name](**options)


def batch(n: int = 32, dtype=torch.float64, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, CLASSES, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (n,), generator=generator)
    features = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    return logits.to(dtype), target, features.to(dtype)


def call(loss, logits, target, features):
    return loss(logits, target, features) if loss.needs_features else loss(logits, target)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_value_and_gradient_are_finite_at_extreme_logits(name, dtype, autocast):
    """Logits of ±1e4: p is exactly 0 or 1."""
    loss = make(name, weight=[0.1, 0.5, 1.0, 2.0, 4.0])
    logits = torch.full((2 * CLASSES, CLASSES), -1e4, dtype=dtype)
    target = torch.arange(CLASSES).repeat(2)
    logits[range(CLASSES), range(CLASSES)] = 1e4  # certain and right
    logits[range(CLASSES, 2 * CLASSES), [1, 2, 3, 4, 0]] = 1e4  # certain and wrong
    logits.requires_grad_()
    features = torch.zeros(2 * CLASSES, 4, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = call(loss, logits, target, features)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("delta_p", [1e-45, 1e-38, 1e-30, 1e-10])
def test_gradient_is_finite_at_tiny_probabilities(name, delta_p):
    import math

    logits = torch.zeros(1, CLASSES)
    logits[0, 0] = math.log(delta_p)
    logits.requires_grad_()
    value = call(make(name), logits, torch.tensor([0]), torch.ones(1, 4))
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


@every_loss
def test_gradcheck(name):
    loss = make(name, weight=[0.1, 0.5, 1.0, 2.0, 4.0])
    logits, target, features = batch(6)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: call(loss, z, target, features), (logits,))


@every_loss
def test_precision_is_float32_or_that_of_float64_logits(name):
    loss = make(name)
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert call(loss, *batch(dtype=dtype)).dtype == expected
    with torch.autocast("cpu", torch.bfloat16):
        inside = call(loss, *batch(dtype=torch.float32))
    assert inside.dtype == torch.float32
    assert inside == call(loss, *batch(dtype=torch.float32))


@every_loss
@pytest.mark.parametrize("device", DEVICES)
def test_the_device_is_kept(name, device):
    loss = make(name, weight=[1.0, 2.0, 3.0, 4.0, 5.0]).to(device)
    value = call(loss, *(tensor.to(device) for tensor in batch()))
    assert value.device.type == device
    here = call(make(name, weight=[1.0, 2.0, 3.0, 4.0, 5.0]), *batch())
    assert value.item() == pytest.approx(here.item(), rel=1e-9)


@every_loss
def test_the_names_of_the_classes_do_not_matter(name):
    order = torch.tensor([3, 0, 4, 1, 2])
    weight = torch.tensor([0.2, 0.5, 1.0, 2.0, 4.0])
    logits, target, features = batch()
    plain = call(make(name, weight=weight), logits, target, features)
    moved = make(name, counts=torch.tensor(COUNTS)[order].tolist(), weight=weight[order])
    permuted = call(moved, logits[:, order], torch.argsort(order)[target], features)
    assert permuted.item() == pytest.approx(plain.item(), rel=1e-12)


@every_loss
def test_equal_weights_of_one_are_no_weights(name):
    assert call(make(name), *batch()).item() == pytest.approx(
        call(make(name, weight=[1.0] * CLASSES), *batch()).item(), rel=1e-12
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": 0.0}),
        ("focal", {"gamma": 0.0, "weighting": "inner"}),
        ("logit_adjusted", {"tau": 0.0}),
        ("balanced_softmax", {"counts": [7] * CLASSES}),
        ("logit_adjusted", {"counts": [7] * CLASSES}),
        ("ldam", {"max_margin": 0.0, "scale": 1.0}),
        ("cross_entropy", {"label_smoothing": 0.0}),
    ],
)
def test_the_limits_are_cross_entropy(name, options):
    logits, target, features = batch()
    plain = call(make("cross_entropy"), logits, target, features)
    assert call(make(name, **options), logits, target, features).item() == pytest.approx(
        plain.item(), rel=1e-12
    )


@pytest.mark.parametrize("name", ["focal", "hard_mining"])
def test_reductions_agree_and_the_mean_divides_by_the_batch(name):
    weight = [0.1, 0.5, 1.0, 2.0, 4.0]
    each = call(make(name, weight=weight, reduction="none"), *batch())
    assert each.shape == (32,)
    total = call(make(name, weight=weight, reduction="sum"), *batch())
    mean = call(make(name, weight=weight), *batch())
    assert total.item() == pytest.approx(each.sum().item())
    assert mean.item() == pytest.approx(each.sum().item() / 32)


@pytest.mark.parametrize("name", ["focal", "hard_mining"])
def test_a_weight_of_one_makes_inner_and_outer_the_same(name):
    inner = make(name, weight=[1.0] * CLASSES, weighting="inner")
    assert call(inner, *batch()) == call(make(name), *batch())


@every_loss
def test_wrong_shapes_and_types_are_refused(name):
    loss = make(name, weight=[1.0] * CLASSES)
    logits, target, features = batch()
    with pytest.raises(ValueError, match="`logits` to be floating point of shape"):
        call(loss, logits[0], target, features)
    with pytest.raises(ValueError, match="`logits` to be floating point"):
        call(loss, logits.long(), target, features)
    with pytest.raises(ValueError, match="`target` to be int64 of shape \\(32,\\)"):
        call(loss, logits, target[:-1], features)
    with pytest.raises(ValueError, match="`target` to be int64"):
        call(loss, logits, target.float(), features)
    with pytest.raises(ValueError, match="Expected logits of 5 classes"):
        call(loss, logits[:, :4], target.clamp_max(3), features)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hard_mining", {"delta": 0.0}, "`delta` > 0, got 0.0"),
        ("hard_mining", {"delta": float("nan")}, "`delta` > 0, got nan"),
        ("hard_mining", {"scale": -1.0}, "`scale` > 0"),
        ("hard_mining", {"weighting": "middle"}, "`weighting` to be one of outer, inner"),
        ("hard_mining", {"reduction": "max"}, "`reduction` to be one of mean, sum, none"),
        ("hard_mining", {"weight": [1.0, -1.0]}, "`weight` to be positive"),
        ("hard_mining", {"weight": [[1.0]]}, "`weight` of shape \\(C,\\)"),
        ("focal", {"gamma": -0.1}, "`gamma` ≥ 0"),
        ("ldam", {"counts": [3, 0]}, "`class_counts` ≥ 1"),
        ("ldam", {"scale": 0.0}, "`scale` > 0"),
        ("logit_adjusted", {"tau": -1.0}, "`tau` ≥ 0"),
        ("influence_balanced", {"alpha": 0.0}, "`alpha` > 0"),
        ("influence_balanced", {"epsilon": 0.0}, "`epsilon` > 0"),
        ("cross_entropy", {"label_smoothing": 1.0}, "`label_smoothing` < 1"),
    ],
)
def test_bad_arguments_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_features_must_fit_the_batch():
    logits, target, features = batch()
    with pytest.raises(ValueError, match="`features` of shape \\(32, d\\)"):
        LOSSES["influence_balanced"]()(logits, target, features[:5])
