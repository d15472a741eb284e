"""What makes training fast changes nothing: each fast path against the plain one."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from benchmarks import data, gpu, images, plain, report, train_step
from hml_core import datasets, models, sampling
from hml_core.config import RunConfig
from hml_core.datasets import LabelledImages, Splits
from hml_core.models import cifar, inference, training
from hml_core.system import devices, seeds
from hml_core.trainer import Trainer, feeds, fit, fitting
from hml_core.trainer.cuda_graphs import WARM_UP_STEPS, GraphedStep, tensors_of
from hml_core.trainer.update import MicroBatch, Update

CPU = torch.device("cpu")


# Captured steps -----------------------------------------------------------------------------------


class PretendCapture:
    """A CUDA graph's contract on a CPU: fixed inputs, fixed outputs, nothing computed while recording."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, step, batch):
        self.captures += 1
        (part,) = batch
        size = len(part.target)
        outputs = (torch.zeros(()), torch.zeros(size), torch.zeros((), dtype=torch.int64))

        def replay() -> None:
            for fixed, new in zip(outputs, step(batch), strict=True):
                fixed.copy_(new)

        return replay, outputs


def end(config: RunConfig, splits: Splits) -> tuple:
    """Weights, losses and confidences after a whole run."""
    one = Trainer(config, splits, CPU)
    while one.epoch < config.epochs:
        for _ in one.train_epoch():
            pass
        one.end_epoch()
    return (
        torch.cat([tensor.flatten() for tensor in one.model.state_dict().values()]),
        [row["train_loss"] for row in one.history],
        torch.stack(one.confidence),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": "hml1"},
        {"recipe": "ldam_drw", "batch_size": 50},
        {"recipe": "crt"},
        {"recipe": "ib"},
        {"recipe": "ce", "mix": "remix"},
    ],
    ids=lambda fields: "-".join(str(value) for value in fields.values()),
)
def test_a_step_takes_all_that_changes_from_its_batch(fields, tiny, monkeypatch):
    """Replayed on fixed memory, a run is the same to the bit: nothing reaches the step another way."""
    config = tiny(epochs=6, **fields)
    splits = datasets.load(config)
    expected = end(config, splits)
    captures = PretendCapture()
    build = Trainer.build_step

    def graphed(self):
        build(self)
        self.phase.step = GraphedStep(self.phase.update, captures)

    monkeypatch.setattr(Trainer, "build_step", graphed)
    weights, losses, confidence = end(config, splits)
    assert captures.captures >= len(config.stages), "captured anew in every stage"
    assert torch.equal(weights, expected[0])
    assert losses == expected[1]
    assert torch.equal(confidence, expected[2])


def test_every_shape_of_batch_is_captured_once():
    captures = PretendCapture()

    def total(batch):
        (part,) = batch
        return part.target.sum().float(), part.target.float(), part.target.sum()

    step = GraphedStep(total, captures)
    for size in (4, 4, 4, 3, 4, 4, 3, 3, 3, 4):
        target = torch.arange(size)
        loss, confidence, hits = step((MicroBatch((target,), target, None),))
        assert loss == hits == target.sum()
        assert torch.equal(confidence, target.float())
    assert captures.captures == 2


def test_a_step_that_cannot_be_captured_runs_eagerly_and_says_so():
    def refuse(step, batch):
        raise RuntimeError("operation not permitted when stream is capturing")

    step = GraphedStep(lambda batch: (batch[0] + 1,), refuse)
    batch = (torch.zeros(2),)
    with pytest.warns(UserWarning, match="runs eagerly.*not permitted when stream is capturing"):
        results = [step(batch)[0] for _ in range(6)]
    assert all(torch.equal(result, torch.ones(2)) for result in results)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        step(batch)


def test_a_step_that_may_not_be_captured_is_not():
    captures, target = PretendCapture(), torch.arange(2)
    batch = (MicroBatch((target,), target, None),)
    allowed = [False] * 5 + [True] * 3
    results = target.sum().float(), target.float(), target.sum()
    step = GraphedStep(lambda batch: results, captures, lambda: allowed.pop(0))
    for _ in range(WARM_UP_STEPS + 5):
        assert step(batch) is results
        assert captures.captures == 0
    step(batch)
    assert captures.captures == 1


def test_tensors_are_found_in_what_feeds_hand_out():
    a, b, c = torch.zeros(3)
    assert [id(t) for t in tensors_of((MicroBatch((a, None), b, None),))] == [id(a), id(b)]
    assert [id(t) for t in tensors_of((a, (b, c)))] == [id(a), id(b), id(c)]


# Chance -------------------------------------------------------------------------------------------


def test_layers_with_dropout_repeat_whatever_was_drawn_before():
    """EfficientNet draws in every step, from a stream of the run's own."""
    assert models.draws(models.build("efficientnet_b0", 10))
    assert not models.draws(models.build("resnet32", 10))
    config = RunConfig(dataset="cifar10", recipe="ce", model="efficientnet_b0", batch_size=4)
    made = images.splits(8, test=4)

    def losses(global_seed: int) -> list[float]:
        torch.manual_seed(global_seed)
        one = Trainer(config, made, CPU)
        for _ in one.train_epoch():
            torch.rand(global_seed)  # another run that takes its turn
        return one.history[0]["train_loss"]

    assert losses(1) == losses(2)


@pytest.mark.parametrize("recipe", ["ce", "ldam_drw", "ib_focal", "hml2", "chml2"])
def test_deterministic_algorithms_suffice_and_are_left_as_they_were(recipe, tiny, tmp_path):
    config = tiny(recipe=recipe, deterministic=True, mix="none")
    during = []
    step = Update.__call__

    def watched(self, batch):
        during.append(torch.are_deterministic_algorithms_enabled())
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "__call__", watched)
        fit(config, runs_root=tmp_path, progress=False)
    assert all(during)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize(("model", "searches"), [("resnet32", True), ("efficientnet_b3", False)])
def test_algorithms_are_searched_for_where_a_network_has_few_shapes(model, searches):
    before = torch.backends.cudnn.benchmark
    for deterministic in (False, True):
        config = RunConfig(model=model, deterministic=deterministic)
        with fitting._Settings(CPU, config):
            assert torch.backends.cudnn.benchmark == (searches and not deterministic)
        assert torch.backends.cudnn.benchmark == before


# Against the plain trainer ------------------------------------------------------------------------


def test_the_augmentation_is_distributed_as_torchvisions():
    """A single bright pixel shows where the crop and the mirror put it; χ² test of homogeneity."""
    pixels = np.zeros((1, 11, 11, 1), dtype=np.uint8)
    pixels[0, 5, 4] = 255
    part = LabelledImages(np.repeat(pixels, 6000, axis=0), np.zeros(6000, dtype=np.int64))
    made = Splits("one pixel", part, None, part, ("0",), (0.0,), (1.0,), np.arange(6000))
    config = RunConfig(dataset="cifar10", recipe="ce")  # crop by 4, mirror
    torch.manual_seed(0)
    with seeds.seeded(0, "plain"):
        theirs = torch.cat([x for x, _ in plain.loader(part, made, 500, augmentation="crop_flip")])
    feed = feeds.make(part, made, config, CPU, augmented=True)
    stream = seeds.generator(0, "augmentation")
    ours = torch.cat(
        [feed.images(payload) for payload in feed.batches(torch.arange(6000), 500, stream)]
    )
    counts = np.stack([(found > 0.5).sum(dim=(0, 1)).flatten().numpy() for found in (ours, theirs)])
    assert counts.sum(axis=1).tolist() == [6000, 6000]
    counts = counts[:, counts.sum(axis=0) > 0]
    assert counts.shape[1] == 9 * 11  # rows 1 to 9; columns 0 to 8 and, mirrored, 2 to 10
    assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


def test_the_loss_goes_as_with_the_plain_trainer():
    """The same batches in the same order: five steps in float32, to rounding."""
    config = RunConfig(
        dataset="cifar100",
        recipe="ce",
        precision="float32",
        augmentation="none",
        batch_size=16,
        epochs=20,
        learning_rate=1e-3,  # a larger one blows rounding up from step to step
    )
    made = images.splits(80, test=16)
    ours, theirs = Trainer(config, made, CPU), plain.PlainTrainer(config, made, CPU)
    order = sampling.epoch_indices(
        torch.from_numpy(made.train.targets), generator=seeds.generator(config.seed, "order", 0)
    )
    theirs.train_loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(theirs.train_loader.dataset, order.tolist()), batch_size=16
    )
    for _ in ours.train_epoch():
        pass
    assert theirs.train_epoch() == pytest.approx(ours.history[0]["train_loss"], rel=1e-4)
    for mine, other in zip(
        ours.model.state_dict().values(), theirs.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_on_real_images_both_are_as_accurate(tmp_path):
    """Handwritten digits, 4 seeds each: the means differ by less than the seeds make them."""
    found = {"ours": [], "plain": []}
    for seed in range(4):
        config = RunConfig(dataset="digits", recipe="ce", epochs=12, seed=seed)
        run = fit(config, runs_root=tmp_path, progress=False)
        found["ours"].append(run.selection("last")["top1"])
        made = datasets.load(config)
        theirs = plain.PlainTrainer(config, made, CPU)
        with seeds.seeded(seed, "plain"):
            for _ in range(config.epochs):
                theirs.train_epoch()
        found["plain"].append(theirs.evaluate())
    test = scipy.stats.ttest_ind(found["ours"], found["plain"], equal_var=False)
    assert min(map(min, found.values())) > 0.7, found
    assert test.pvalue > 0.01, found


# Evaluation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_folded_batch_norms_give_the_same_features(fused, monkeypatch, tiny):
    if not fused:
        monkeypatch.setattr(inference, "fused_convolution", lambda dtype: None)
    config = tiny(epochs=3)
    one = Trainer(config, datasets.load(config), CPU)
    for _ in one.train_epoch():
        pass
    one.model.eval()
    x = one.evaluator.feeds["test"].bank.batch(torch.arange(200))
    with torch.inference_mode():
        expected = one.model.features(x)
        for dtype, tolerance in ((None, 1e-4), (torch.bfloat16, 5e-2)):
            features = inference.features_of(one.model, CPU, dtype)(x)
            assert features.dtype == torch.float32
            torch.testing.assert_close(features, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("value", [float("nan"), 1e37])
def test_a_network_that_diverged_does_not_look_sound(value):
    """The fused operator's ReLU turns NaN into 0."""
    model = models.build("resnet8", 10).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        model.layer1[0].conv1.weight.fill_(value)
        model.layer2[0].conv1.weight.fill_(value)
    images = torch.rand(20, 3, 16, 16)
    assert not model.features(images).isfinite().all()
    assert not inference.features_of(model, CPU, None)(images).isfinite().all()


def test_the_fused_operator_is_there_where_it_is_expected():
    """Only its speed hangs on it, but we would not notice otherwise."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    assert inference.fused_convolution(torch.float32) is not None
    if devices.cpu_has_bf16():
        assert inference.fused_convolution(torch.bfloat16) is not None


def test_without_the_fused_operator_features_are_the_same(monkeypatch):
    """A build of torch without oneDNN, and a processor that has no bf16."""
    torch.manual_seed(0)
    model = models.build("resnet8", 10).to(memory_format=torch.channels_last).eval()
    images = torch.rand(20, 3, 16, 16)
    expected = inference.features_of(model, CPU, None)(images)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = inference.features_of(model, CPU, None)
    torch.testing.assert_close(plain(images), expected)
    assert plain.fused is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    operators = types.SimpleNamespace(_is_mkldnn_bf16_supported=lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    assert inference.fused_convolution(torch.bfloat16) is None


def test_evaluation_follows_the_weights(tiny, tmp_path):
    """Folded weights are copies: they must be made anew after every epoch."""
    run = fit(tiny(epochs=6), runs_root=tmp_path, progress=False)
    assert run.history["test_accuracy"].nunique() > 1


# Benchmarks ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_on_cifar_100_stays_below_one_and_a_half_gib():
    """Without bf16 units activations are float32, 300 MiB in place of 150."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the process's memory from /proc")
    assert train_step.memory() < (1.5 if devices.cpu_has_bf16() else 1.6) * 1024


def test_a_benchmark_writes_a_row_for_each_candidate_with_hardware_and_versions(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(data, "REPETITIONS", 1)
    monkeypatch.setattr(data, "IMAGES", 256)
    monkeypatch.setattr(sys, "argv", ["data"])
    data.main()
    frame = pd.read_csv(tmp_path / "data.csv")
    assert frame["what"].tolist()[2:] == ["ours", "memory alone (floor)"]
    assert frame["ratio"][0] == 1.0
    assert frame["to_floor"].tolist()[-1] == 1.0
    assert {"device", "torch", "python", "git_commit"} <= set(frame.columns)
    assert "Written:" in capsys.readouterr().out


def test_ratios_are_medians_over_the_first_and_over_the_floor():
    seconds = {"a": [4.0, 8.0, 4.0], "b": [2.0, 2.0, 9.0], "c": [1.0]}
    rows = report.compare(seconds, floor="c", parts=2)
    assert [row["median_s"] for row in rows] == [2.0, 1.0, 0.5]
    assert [row["ratio"] for row in rows] == [1.0, 2.0, 4.0]
    assert [row["to_floor"] for row in rows] == [4.0, 2.0, 1.0]


def test_the_gpu_benchmark_asks_for_a_gpu(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="Needs a GPU"):
        gpu.main()


@pytest.mark.slow
def test_the_gpu_benchmark_measures_what_it_says(monkeypatch):
    """In miniature on a CPU, but for the GPU's memory: it must not fail where minutes are dear."""
    for name, value in {
        "SPLITS": lambda: images.splits(128, 16),
        "EPOCHS": 2,
        "EVALUATE_EVERY": 1,
        "RUNS": 2,
        "SHORT_EPOCHS": 2,
        "REPETITIONS": 1,
        "PLAIN_EPOCHS": 1,
        "WORKERS": 0,
        "_memory": lambda train, runs, device: 100.0 * runs,
    }.items():
        monkeypatch.setattr(gpu, name, value)
    rows = gpu.measure(CPU)
    assert [row["n"] for row in rows] == [1, 1, 1, 1, 1, 1]
    assert rows[1]["ratio"] == rows[0]["median_s"] / rows[1]["median_s"]
    assert rows[3]["what"] == "2 runs, interleave:2"
    assert rows[5]["mib"] == 100.0


def test_a_network_that_computes_otherwise_is_taken_as_it_is(monkeypatch):
    """Neither folded for evaluation nor put into kernels, which know the package's own alone."""

    class Doubled(cifar.CifarResNet):
        def features(self, x):
            return 2 * super().features(x)

    network = cifar.resnet8(10).eval()
    network.__class__ = Doubled
    x = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network.features(x)
        found = inference.features_of(network, CPU, None)(x)
        assert torch.allclose(found, expected)
    monkeypatch.setattr(training, "has_triton", lambda device: True)
    assert (
        training.features_of(network, torch.device("cuda", 0), torch.bfloat16) == network.features
    )
