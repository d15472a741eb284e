"""What other code relies on: signatures, registry, buffers, no waiting for the device, clear refusals."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hml_core.losses import LOSSES, HardMiningLoss, LDAMLoss, hard_mining_value, outlier_cut
from tests.losses.test_common import CLASSES, batch, call, every_loss, make

WEIGHT = [0.1, 0.5, 1.0, 2.0, 4.0]
SIGNATURES = {
    "cross_entropy": "(weight=None, label_smoothing=0.0, mean_over='weights')",
    "focal": "(gamma=1.0, weight=None, weighting='outer', reduction='mean')",
    "hard_mining": "(delta=10000.0, weight=None, weighting='outer', scale=1.0, reduction='mean', "
    "mean_over='images')",
    "ldam": "(class_counts, max_margin=0.5, scale=30.0, weight=None, label_smoothing=0.0, "
    "mean_over='weights')",
    "balanced_softmax": "(class_counts, label_smoothing=0.0)",
    "logit_adjusted": "(class_counts, tau=1.0, label_smoothing=0.0)",
    "influence_balanced": "(alpha=1000.0, epsilon=0.001, gamma=None, weight=None)",
    "balanced_hard_mining": "(class_counts, delta=inf, scale=1.0, reduction='mean')",
}
VARIANTS = [
    *((name, {}) for name in LOSSES),
    *(("focal", {"gamma": gamma, "weighting": "inner"}) for gamma in (0.0, 0.01, 0.5, 3.0)),
    *(
        ("hard_mining", {"delta": delta, "weighting": weighting, "scale": 10.0})
        for delta in (1e-3, 1.0, 1e10, 1e30, math.inf)
        for weighting in ("outer", "inner")
    ),
    *(("balanced_hard_mining", {"delta": delta, "scale": 10.0}) for delta in (1e-3, 1e4, 1e30)),
    *(("influence_balanced", {"gamma": gamma}) for gamma in (0.0, 0.01, 2.0)),
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"mean_over": "images"}),
    ("hard_mining", {"mean_over": "weights"}),
    ("ldam", {"mean_over": "images", "label_smoothing": 0.1}),
]


def test_the_registry_holds_every_loss_with_its_signature():
    found = {}
    for name, kind in LOSSES.items():
        parameters = inspect.signature(kind).parameters.values()
        found[name] = str(
            inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
        )
    assert found == SIGNATURES


def test_only_the_influence_balanced_loss_needs_features_and_only_ldam_scales_logits():
    assert [name for name, kind in LOSSES.items() if kind.needs_features] == ["influence_balanced"]
    scales = {name: make(name).logit_scale for name in LOSSES}
    assert scales == {name: 30.0 if name == "ldam" else 1.0 for name in LOSSES}


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [30.0, 103.0, 1e4])
def test_every_option_is_finite_from_certainly_right_to_certainly_wrong(name, options, dtype, size):
    """p = 1, p = 0 and, in float32, p among the subnormal numbers; gradients of features, too."""
    loss = make(name, weight=WEIGHT, **options)
    logits = torch.full((3 * CLASSES, CLASSES), -size, dtype=dtype)
    target = torch.arange(CLASSES).repeat(3)
    rows = torch.arange(3 * CLASSES)
    logits[rows, (target + rows // CLASSES) % CLASSES] = size  # right, wrong, wrong
    logits[2 * CLASSES :] /= 2
    logits.requires_grad_()
    features = torch.ones(3 * CLASSES, 4, dtype=dtype, requires_grad=loss.needs_features)
    value = call(loss, logits, target, features)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    if loss.needs_features:
        assert features.grad.isfinite().all()


def test_easy_samples_and_outliers_are_silent_and_the_limit_keeps_the_outliers():
    logits = torch.tensor([[30.0, 0.0], [1.0, 0.0], [-30.0, 0.0]], requires_grad=True)
    target = torch.zeros(3, dtype=torch.int64)
    cut = HardMiningLoss(1e4, reduction="none")(logits, target)
    (gradient,) = torch.autograd.grad(cut.sum(), logits)
    assert cut[[0, 2]].abs().max() < 1e-4 < cut[1]
    assert gradient[[0, 2]].abs().max() < 1e-4 < gradient[1].abs().max()
    kept = HardMiningLoss(math.inf, reduction="none")(logits, target)
    torch.testing.assert_close(kept[2], torch.tensor(30.0))


def test_ldam_without_margin_is_cross_entropy_of_the_scaled_cosines():
    logits, target, _ = batch()
    cosines = logits.tanh()
    expected = make("cross_entropy", weight=WEIGHT)(30 * cosines, target)
    for margin, tolerance in ((0.0, 1e-12), (1e-9, 1e-6)):
        found = make("ldam", weight=WEIGHT, max_margin=margin)(cosines, target)
        assert found.item() == pytest.approx(expected.item(), rel=tolerance)


def test_the_rarest_class_has_the_largest_margin():
    margins = LDAMLoss([10000, 16, 1], max_margin=0.5).margins
    torch.testing.assert_close(margins, torch.tensor([0.05, 0.25, 0.5], dtype=torch.float64))


@every_loss
def test_buffers_follow_the_module(name):
    """Weights and counts move with .to() and come back from a state_dict."""
    loss = make(name, weight=WEIGHT)
    assert all(buffer.device.type == "meta" for buffer in make(name).to("meta").buffers())
    assert not list(loss.parameters())
    assert ("weight" in loss.state_dict()) == (
        "weight" in inspect.signature(LOSSES[name]).parameters
    )
    other = make(name, weight=[1.0] * CLASSES, counts=[1] * CLASSES)
    other.load_state_dict(loss.state_dict())
    assert call(other, *batch()) == call(loss, *batch())


def test_weights_are_kept_in_double_precision_as_a_copy():
    given = np.array([1 / 3, 2 / 3, 1.0, 1.5, 2.5])
    loss = HardMiningLoss(weight=given)
    before = call(loss, *batch())
    given[:] = 1
    assert loss.weight.dtype == torch.float64
    assert loss.weight[0].item() == 1 / 3
    assert call(loss, *batch()) == before


@pytest.mark.parametrize("as_type", [list, tuple, np.array, torch.tensor])
def test_weights_and_counts_come_as_any_sequence(as_type):
    assert call(make("ldam", as_type([5, 4, 3, 2, 1]), as_type(WEIGHT)), *batch()).isfinite()


def test_read_only_arrays_are_taken_without_a_warning():
    given = np.array(WEIGHT)
    given.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HardMiningLoss(weight=given)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_step_never_waits_for_the_device(name, options):
    """Fake tensors hold no numbers: .item(), bool() or an index by mask would raise."""
    logits, target, features = batch(dtype=torch.float32)
    loss = make(name, weight=WEIGHT, **options)
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # the buffers are real
    logits, target, features = (mode.from_tensor(t) for t in (logits, target, features))
    with mode, torch.autocast("cpu", torch.bfloat16):
        logits.requires_grad_()
        value = call(loss, logits, target, features)
        value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.shape == logits.shape


@every_loss
def test_it_compiles_into_one_graph(name):
    loss = make(name, weight=WEIGHT)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    data = batch()
    torch.testing.assert_close(call_compiled(compiled, loss, data), call(loss, *data))


def call_compiled(compiled, loss, data):
    return compiled(*data) if loss.needs_features else compiled(*data[:2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hard_mining", {"delta": "1e4"}, "`delta` > 0 to be a number, got '1e4'"),
        ("hard_mining", {"delta": None}, "`delta` > 0 to be a number, got None"),
        ("hard_mining", {"delta": -math.inf}, "`delta` > 0, got -inf"),
        ("hard_mining", {"delta": 1e31}, "`delta=math.inf` is the loss without the cut"),
        ("hard_mining", {"scale": math.inf}, "`scale` > 0 to be finite"),
        ("focal", {"gamma": math.inf}, "`gamma` ≥ 0 to be finite"),
        ("focal", {"gamma": math.nan}, "`gamma` ≥ 0, got nan"),
        ("focal", {"weighting": "Inner"}, "`weighting` to be one of outer, inner, got 'Inner'"),
        ("focal", {"reduction": None}, "`reduction` to be one of mean, sum, none, got None"),
        ("ldam", {"max_margin": -0.1}, "`max_margin` ≥ 0, got -0.1"),
        ("ldam", {"counts": 5}, "`class_counts` of shape"),
        ("ldam", {"counts": [3, math.nan]}, "`class_counts` ≥ 1"),
        ("ldam", {"counts": ["many", "few"]}, "`class_counts` to be one number for each class"),
        ("balanced_softmax", {"counts": [3, 0]}, "`class_counts` ≥ 1"),
        ("logit_adjusted", {"counts": [3, 0]}, "`class_counts` ≥ 1"),
        ("logit_adjusted", {"tau": math.inf}, "`tau` ≥ 0 to be finite"),
        ("influence_balanced", {"gamma": -1.0}, "`gamma` ≥ 0"),
        ("ldam", {"mean_over": "batch"}, "`mean_over` to be one of weights, images, got 'batch'"),
        ("hard_mining", {"mean_over": None}, "`mean_over` to be one of weights, images, got None"),
        ("cross_entropy", {"label_smoothing": math.nan}, "`label_smoothing` ≥ 0 .* got nan"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


@pytest.mark.parametrize("name", [n for n in LOSSES if "weight=" in SIGNATURES[n]])
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 0.0], "`weight` to be positive and finite, got \\[1.0, 0.0\\]"),
        ([1.0, math.nan], "`weight` to be positive and finite"),
        ([1.0, math.inf], "`weight` to be positive and finite"),
        ([], "`weight` of shape \\(C,\\)"),
        (2.0, "`weight` of shape \\(C,\\)"),
        ([[1.0], [1.0, 2.0]], "`weight` to be one number for each class"),
    ],
)
def test_bad_weights_are_refused_by_every_loss_that_takes_them(name, weight, message):
    with pytest.raises(ValueError, match=message):
        make(name, weight=weight)


def test_features_of_whole_numbers_are_refused():
    logits, target, _ = batch()
    with pytest.raises(ValueError, match="`features` to be floating point, got"):
        make("influence_balanced")(logits, target, torch.ones(32, 4, dtype=torch.int64))


@pytest.mark.parametrize("delta", [1.0, 1e4, 1e10, math.inf])
@pytest.mark.parametrize("weighting", ["outer", "inner"])
def test_the_plotted_curve_is_the_trained_loss(delta, weighting):
    p = torch.linspace(1e-6, 1 - 1e-6, 101, dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()], dim=1)
    loss = HardMiningLoss(delta, [2.5, 1.0], weighting, scale=10.0, reduction="none")
    trained = loss(logits, torch.zeros(101, dtype=torch.int64))
    drawn = hard_mining_value(p, delta, 2.5, weighting, scale=10.0)
    torch.testing.assert_close(drawn, trained, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("delta", [0.1, 0.5, 0.9])
def test_a_tiny_delta_cuts_everything(delta):
    """More than half of the loss is gone at every p: there is no p above the cut."""
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert (hard_mining_value(p, delta) < hard_mining_value(p, math.inf) / 2).all()
    assert outlier_cut(delta) == 1.0


def test_without_a_cut_it_falls_at_zero():
    assert outlier_cut(math.inf) == outlier_cut(math.inf, 4.0, "inner") == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "`delta` > 0"),
        ((1e4, 0.0), "`weight` > 0"),
        ((1e4, 1.0, "middle"), "`weighting` to be one of outer, inner"),
    ],
)
def test_the_curves_refuse_what_the_loss_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        outlier_cut(*arguments)
    with pytest.raises(ValueError, match=message):
        hard_mining_value(torch.tensor(0.5), *arguments)
