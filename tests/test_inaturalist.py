"""iNaturalist 2018: what is loaded, how images reach the network, and that 8,142 classes cost little."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from hml_core import datasets, metrics, models, recipes
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles, Splits, inaturalist
from hml_core.errors import ConfigError, DataError
from hml_core.models import preprocessing
from hml_core.recipes import Stage
from hml_core.runs import Run
from hml_core.trainer import feeds, fit, update
from hml_core.trainer.evaluation import MOST_LOGITS, Evaluator
from hml_core.trainer.loop import Trainer
from hml_core.trainer.world import ALONE, Stopped
from tests.distributed.jobs import SMALL
from tests.quick import slow_but

CPU = torch.device("cpu")
CLASSES = 8142


def small(**fields) -> RunConfig:
    return RunConfig(**SMALL | {"recipe": "ce"} | fields)


# Config -------------------------------------------------------------------------------------------


def test_the_defaults_are_the_protocol_of_the_literature():
    config = RunConfig(dataset="inat2018", recipe="hml1")
    assert (config.model, config.epochs, config.image_size) == ("resnet50", 90, 224)
    assert (config.batch_size, config.micro_batch_size, config.learning_rate) == (256, 32, 0.1)
    assert (config.lr_schedule, config.weight_decay, config.momentum) == ("cosine", 1e-4, 0.9)
    assert (config.delta, config.weighting, config.ema_decay) == (1e4, "CS", 0.0)
    assert RunConfig(dataset="inat2018", recipe="ce", batch_size=512).learning_rate == 0.2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"micro_batch_size": 5}, "`micro_batch_size` to divide the `batch_size` 32"),
        ({"ema_decay": 1.0}, "`ema_decay` < 1"),
        ({"imbalance_type": "exp"}, "long-tailed by itself"),
        ({"augmentation": "crop_flip"}, "one of none, dermoscopy, resized_crop"),
        ({"subset_classes": -1}, "`subset_classes` ≥ 0"),
        ({"dataset": "digits", "image_size": None, "subset_images": 5}, "they are for image files"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        small(**fields)


# Data ---------------------------------------------------------------------------------------------


def test_classes_come_from_the_most_frequent_to_the_rarest_with_their_groups(miniature):
    splits = datasets.load(small(), miniature)
    counts = splits.class_counts
    assert len(counts) == 24
    assert (np.diff(counts) <= 0).all()
    assert counts.max() / counts.min() >= 20
    assert splits.synthetic
    assert len(splits.class_groups) == 24
    for index in (0, 100, len(splits.train) - 1):  # <supercategory>/<category id>/<file>
        group, category = splits.train.names[index].split("/")[1:3]
        label = splits.train.targets[index]
        assert splits.class_groups[label] == group
        assert splits.class_names[label] == f"Synthetica exempli{int(category):04d}"
    assert np.bincount(splits.test.targets).tolist() == [3] * 24


def test_a_subset_for_a_trial_keeps_the_shape_of_the_tail(miniature):
    whole = datasets.load(small(), miniature)
    classes = datasets.load(small(subset_classes=6), miniature)
    assert classes.num_classes == 6
    assert (classes.class_names[0], classes.class_names[-1]) == (
        whole.class_names[0],
        whole.class_names[-1],
    )
    assert set(classes.test.names) < set(whole.test.names)
    images = datasets.load(small(subset_images=200), miniature)
    expected = np.maximum(whole.class_counts * 200 // len(whole.train), 1)
    assert images.class_counts.tolist() == expected.tolist()
    again = datasets.load(small(subset_images=200), miniature)
    other = datasets.load(small(subset_images=200, subset_seed=1), miniature)
    assert images.train.names == again.train.names != other.train.names
    for fields in ({"subset_classes": 25}, {"subset_images": 10**6}):
        with pytest.raises(DataError, match=f"Expected `{next(iter(fields))}` ≤ "):
            datasets.load(small(**fields), miniature)


def test_validation_images_come_out_of_the_training_images(miniature):
    whole = datasets.load(small(), miniature)
    splits = datasets.load(small(validation_fraction=0.2), miniature)
    assert set(splits.train.names) | set(splits.validation.names) == set(whole.train.names)
    assert not set(splits.train.names) & set(splits.validation.names)
    assert (splits.class_counts >= 1).all()
    assert (np.bincount(splits.validation.targets, minlength=24) >= 1).all()
    with pytest.raises(DataError, match=r"keeps 1 image.*would leave none"):
        datasets.load(small(validation_fraction=0.2, subset_images=24), miniature)


def test_what_was_prepared_too_small_is_refused(miniature):
    with pytest.raises(DataError, match="`image_size` up to 56, got 57"):
        datasets.load(small(image_size=57), miniature)
    assert datasets.load(small(image_size=56), miniature)


@pytest.mark.parametrize("name", ["dataset", "authors"])
def test_constants_that_nobody_has_are_refused(name, miniature):
    assert small().normalisation == "imagenet"
    with pytest.raises(ConfigError, match="normalisation"):
        datasets.load(small(normalisation=name), miniature)


# Images -------------------------------------------------------------------------------------------


@pytest.fixture
def one_image(tmp_path):
    """A picture of 90 × 60 pixels whose red is the column, as a split of one."""
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[..., 0] = 2 * np.arange(90)
    Image.fromarray(pixels).save(tmp_path / "one.jpg", quality=100, subsampling=0)
    from hml_core.system import files

    sums = (files.sha256(tmp_path / "one.jpg"),)
    return LabelledFiles(tmp_path, ("one.jpg",), sums, np.zeros(1, dtype=np.int64), crops=True)


def test_networks_are_tested_on_the_middle_of_an_image(one_image):
    """As torchvision's presets: shorter side to 8/7 of the size, then the square in the middle."""
    seen = feeds._Files(one_image, 28, "resized_crop")[(0, None)]  # 28 of 32 pixels
    assert seen.shape == (3, 28, 28)
    assert seen.dtype == torch.uint8
    scale = 60 / 32  # 90 columns are 48, of which 10 … 37 are seen
    expected = 2 * ((torch.arange(10, 38) + 0.5) * scale - 0.5)
    assert (seen[0].float() - expected).abs().max() < 3
    assert inaturalist.SEEN == 224 / 256


def test_networks_are_trained_on_cut_outs_that_their_seed_determines(one_image):
    reader = feeds._Files(one_image, 28, "resized_crop")
    one, same, other = (reader[(0, seed)] for seed in (1, 1, 2))
    assert one.shape == (3, 28, 28)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    slopes = [reader[(0, seed)][0].float().diff(dim=1).mean().item() for seed in range(40)]
    assert min(slopes) < 0 < max(slopes), "some are mirrored"
    assert np.std(np.abs(slopes)) > 0.5, "they differ in scale"


def test_both_readers_of_jpeg_agree(one_image, monkeypatch):
    data = (one_image.folder / "one.jpg").read_bytes()
    quick = feeds.decode(data)
    monkeypatch.setattr(preprocessing, "_jpeg_reader", lambda: None)
    slow = feeds.decode(data)
    assert (quick.int() - slow.int()).abs().max() <= 1
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torchvision.io", None)  # a version without it
    preprocessing._jpeg_reader.cache_clear()
    try:
        assert torch.equal(feeds.decode(data), slow)
    finally:
        preprocessing._jpeg_reader.cache_clear()


def test_the_number_of_workers_changes_nothing(miniature, monkeypatch):
    splits = datasets.load(small(), miniature)
    seen = []
    for workers in ("0", "2"):
        monkeypatch.setenv("HML_LOADER_WORKERS", workers)
        feed = feeds.FileFeed(splits.train, splits, 32, "resized_crop", CPU)
        stream = torch.Generator().manual_seed(0)
        places = torch.tensor([5, 3, 8])
        order = torch.arange(20)
        seen.append(torch.cat(list(feed.batches(order, 2, stream, places))))
    assert torch.equal(*seen)
    whole = torch.cat(list(feed.batches(order, 4, torch.Generator().manual_seed(0))))
    assert torch.equal(whole[places], seen[0]), "a place's draws depend on the place alone"


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_damaged_image_is_named_in_a_line_whoever_reads_it(workers, one_image, monkeypatch):
    monkeypatch.setenv("HML_LOADER_WORKERS", workers)
    (one_image.folder / "one.jpg").write_bytes(b"x")
    splits = Splits(
        "made up", one_image, None, one_image, ("a",), (0.5,) * 3, (0.5,) * 3, np.arange(1)
    )
    feed = feeds.FileFeed(one_image, splits, 28, "resized_crop", CPU)
    with pytest.raises(DataError, match=r"^'[^\n]*one\.jpg' is not the file that was prepared\.$"):
        list(feed.batches(torch.arange(1), 1, torch.Generator().manual_seed(0)))


# Training -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.begun_first
@pytest.mark.parametrize("recipe", ["hml2", "crt"])
def test_a_run_resumes_in_the_middle_of_an_epoch_to_the_same_bits(
    recipe, miniature, tmp_path, monkeypatch
):
    config = small(recipe=recipe, epochs=3, stage_ends=(2,), ema_decay=0.9)
    where = {"data_root": miniature, "progress": False, "checkpoint_steps": 5}
    whole = fit(config, runs_root=tmp_path / "whole", **where)
    plain, done = update.Update.__call__, []

    def interrupted(self, batch):
        if len(done) == 12 * 2 + 7:  # an epoch has 12 steps
            raise KeyboardInterrupt
        done.append(batch)
        return plain(self, batch)

    monkeypatch.setattr(update.Update, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(config, runs_root=tmp_path / "runs", **where)
    done.clear()
    resumed = fit(config, runs_root=tmp_path / "runs", **where)
    assert len(done) == 12 * 3 - (12 * 2 + 5), "no step before the checkpoint is done again"
    assert resumed.predictions[0].tobytes() == whole.predictions[0].tobytes()
    assert resumed.confidence.tobytes() == whole.confidence.tobytes()
    columns = ["train_loss", "train_accuracy", "test_accuracy"]
    assert resumed.history[columns].equals(whole.history[columns])


def test_the_previous_checkpoint_stays_until_the_new_one_is_whole(miniature, tmp_path, monkeypatch):
    """The disk fills up in the middle of writing: the run goes on from the one before."""
    from hml_core.errors import RunError
    from hml_core.system import files

    config = small()
    where = {"data_root": miniature, "progress": False, "checkpoint_steps": 4}
    plain, written = files._write_and_rename, []

    def full(path, data):
        if path.name == "checkpoint.pt":
            written.append(path)
            if len(written) == 2:
                raise OSError(28, "No space left on device")
        plain(path, data)

    monkeypatch.setattr(files, "_write_and_rename", full)
    with pytest.raises(RunError, match="No space left"):
        fit(config, runs_root=tmp_path, **where)
    kept = torch.load(written[0], weights_only=True)
    assert kept["current"]["step"] == 4
    assert fit(config, runs_root=tmp_path, **where).history["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("raised", "expected", "kept"),
    [
        (Stopped("SIGTERM"), Stopped, True),
        (torch.OutOfMemoryError("no room"), torch.OutOfMemoryError, True),
        (IndexError("no such stage"), None, False),
    ],
    ids=["stopped", "memory", "unfit"],
)
def test_only_a_checkpoint_that_does_not_fit_is_set_aside(
    raised, expected, kept, miniature, tmp_path, monkeypatch
):
    config = small(epochs=1, subset_images=200)
    where = {"data_root": miniature, "runs_root": tmp_path, "progress": False}
    plain = Trainer.restore
    monkeypatch.setattr(update.Update, "__call__", fails_at_step(2))
    with pytest.raises(KeyboardInterrupt):
        fit(config, checkpoint_steps=1, **where)
    monkeypatch.undo()
    checkpoint = tmp_path / config.run_id / "checkpoint.pt"
    assert checkpoint.exists()

    def restore(self, state):
        if self.world is ALONE:
            raise raised
        plain(self, state)

    monkeypatch.setattr(Trainer, "restore", restore)
    if expected is None:
        with pytest.warns(UserWarning, match="unusable \\(no such stage\\)"):
            fit(config, **where)
    else:
        with pytest.raises(expected):
            fit(config, **where)
    assert checkpoint.exists() == kept
    assert (tmp_path / ".damaged").exists() != kept


def fails_at_step(number: int):
    """In place of an update: the plain one, and Ctrl-C at that step."""
    plain, done = update.Update.__call__, []

    def counted(self, batch):
        if len(done) == number - 1:
            raise KeyboardInterrupt
        done.append(1)
        return plain(self, batch)

    return counted


def test_gradients_and_statistics_of_micro_batches_are_those_of_their_mean(miniature):
    """Against the definition: mean of the micro-batches' gradients, running statistics by hand."""
    config = small(momentum=0.0, weight_decay=0.0, learning_rate=0.5, epochs=1)
    splits = datasets.load(config, miniature)
    one, other = (Trainer(config, splits, CPU) for _ in range(2))
    batches = []

    def kept(batch):
        batches.append(batch)
        return one.phase.update(batch)

    running = one.train_epoch()
    one.enter_stage(0)
    one.build_step()
    one.phase.step = kept
    next(running)
    running.close()
    (batch,) = batches
    assert [len(part.target) for part in batch] == [8] * 4
    model = other.model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients, means = [], []
    for part in batch:
        model.load_state_dict(before)
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(other.feed.images(part.payload)), part.target
        )
        loss.backward()
        gradients.append(model.conv1.weight.grad.clone())
        means.append((model.bn1.running_mean - 0.9 * before["bn1.running_mean"]) / 0.1)
    expected = before["conv1.weight"] - 0.5 * torch.stack(gradients).mean(dim=0)
    torch.testing.assert_close(one.model.conv1.weight, expected, rtol=1e-4, atol=1e-6)
    mean = 0.9 * before["bn1.running_mean"] + 0.1 * torch.stack(means).mean(dim=0)
    torch.testing.assert_close(one.model.bn1.running_mean, mean, rtol=1e-4, atol=1e-6)
    assert {layer.momentum for layer, _ in one.phase.update.norms} == {0.1}


@pytest.mark.parametrize("mix", ["none", "remix"])
@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": "ce"},
        {"recipe": "cs_ce"},
        {"recipe": "cb_focal"},
        {"recipe": "hml1"},
        {"recipe": "hml1", "mean_over": "weights"},
        {"recipe": "hml1", "mean_over": "weights", "weight_placement": "inner"},
    ],
    ids=lambda fields: "-".join(fields.values()),
)
def test_micro_batches_add_up_to_the_mean_of_the_batch(fields, mix, miniature):
    """A weighted mean divides by the weights of the whole batch, not of each part of it."""
    config = small(**fields, mix=mix)
    trainer = Trainer(config, datasets.load(config, miniature), CPU)
    last = len(config.stages) - 1
    trainer.enter_stage(last)
    trainer.build_step()
    _, batches = trainer.batches.of_epoch(0, "instance")
    batch, update = next(batches), trainer.phase.update
    assert len(batch) == 4
    by_weights = fields.get("mean_over") == "weights" or fields["recipe"] == "cs_ce"
    assert (len({float(share) for share in update._shares(batch)}) > 1) == by_weights
    logits = [torch.randn(len(part.target), 24, requires_grad=True) for part in batch]
    parts = zip(logits, batch, update._shares(batch), strict=True)
    sum(update.criterion_of(one, part) * share for one, part, share in parts).backward()
    whole = torch.cat([one.detach() for one in logits]).requires_grad_()
    target = torch.cat([part.target for part in batch])
    if mix == "none":
        update.criterion(whole, target).backward()
    else:
        labels = [torch.cat(values) for values in zip(*map(update._other_labels, batch))]
        update.criterion.mixed(whole, target, *labels).backward()
    torch.testing.assert_close(torch.cat([one.grad for one in logits]), whole.grad)


def test_the_average_of_the_weights_is_what_is_evaluated(miniature):
    config = small(ema_decay=0.5, epochs=1)
    splits = datasets.load(config, miniature)
    trainer = Trainer(config, splits, CPU)
    seen = []
    for _ in trainer.train_epoch():
        seen.append(trainer.model.linear.weight.detach().clone())
    average = seen[0]
    for weight in seen[1:]:
        average = 0.5 * average + 0.5 * weight
    torch.testing.assert_close(trainer.phase.averaged.module.linear.weight, average)
    evaluated = []
    trainer.evaluator.evaluate = lambda model, *_: evaluated.append(model) or {}
    trainer.end_epoch()
    assert evaluated == [trainer.phase.averaged.module]


@pytest.mark.slow
def test_a_compiled_network_trains_as_a_plain_one(miniature, tmp_path, monkeypatch):
    """torch.compile gets the network's features; with its reference backend the result is the same."""
    compiled = []
    plain = torch.compile

    def watched(function, **_):
        compiled.append(function)
        return plain(function, backend="eager")

    monkeypatch.setattr(torch, "compile", watched)
    ends = [
        fit(
            small(compile=choice, epochs=1, subset_images=64),
            data_root=miniature,
            runs_root=tmp_path,
            progress=False,
        )
        for choice in (False, True)
    ]
    assert len(compiled) == 1
    np.testing.assert_allclose(ends[0].predictions[0], ends[1].predictions[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "recipe",
    slow_but(
        ["crt", "hml2"],
        ["ce", "ldam_drw", "balanced_softmax", "crt", "tau_norm", "hml1", "hml2"],
    ),
)
def test_every_recipe_of_the_table_trains_the_real_network(recipe, miniature, tmp_path):
    """ResNet-18, as torchvision has it, in bf16 and channels-last where the machine does that."""
    ends = (1,) if len(recipes.get(recipe).stages) == 2 else ()
    quick = {"model": "resnet18", "subset_images": 48, "batch_size": 16, "precision": "auto"}
    config = small(recipe=recipe, stage_ends=ends, **quick)
    run = fit(config, data_root=miniature, runs_root=tmp_path, progress=False)
    assert run.class_groups
    assert run.history["waiting_seconds"].between(0, run.history["seconds"]).all()


@pytest.mark.slow
def test_where_logits_are_too_many_predictions_are_kept(miniature, tmp_path, monkeypatch):
    """The same run with and without room for its logits: the same metrics but the AUC."""
    config = small(epochs=2, recipe="hml1")
    where = {"data_root": miniature, "progress": False}
    kept = fit(config, runs_root=tmp_path / "kept", **where)
    monkeypatch.setattr("hml_core.trainer.evaluation.MOST_LOGITS", 0)
    monkeypatch.setattr("hml_core.trainer.evaluation.ROWS", 7)
    reduced = fit(config, runs_root=tmp_path / "reduced", **where)
    ours, theirs = (run.selection("last") for run in (reduced, kept))
    assert np.isnan(ours.pop("macro_auc"))
    assert not np.isnan(theirs.pop("macro_auc"))
    for name, value in theirs.items():  # float32 before and after it was stored
        assert ours[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name
    assert np.array_equal(reduced.test_classes(), kept.test_classes())
    with pytest.raises(ValueError, match="holds no test logits"):
        _ = reduced.predictions
    assert Run(reduced.path).verify().test_targets.tolist() == kept.test_targets.tolist()


# At full width ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_losses_of_8142_classes_take_less_than_3_percent_of_a_step():
    """ResNet-50's own step is measured here, on a quarter of the images' size to be quick."""
    counts = np.geomspace(1000, 2, CLASSES).astype(int)
    model = models.build("resnet50", CLASSES).to(memory_format=torch.channels_last).train()
    images = torch.randn(8, 3, 112, 112).to(memory_format=torch.channels_last)
    target = torch.randint(CLASSES, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), target).backward()
        optimizer.step()

    step_s = best_of(step, 3)
    features = torch.randn(8, 2048)
    logits = torch.randn(8, CLASSES, requires_grad=True)
    for name in ("ldam", "balanced_softmax", "hard_mining", "cross_entropy"):
        weighting = "CS" if name == "hard_mining" else "none"
        criterion = update.build_loss(Stage(name, {}, weighting), counts)
        extra = (features,) if criterion.needs_features else ()
        loss_s = best_of(
            lambda c=criterion, e=extra: torch.autograd.grad(c(logits, target, *e), logits), 5
        )
        assert loss_s < 0.03 * step_s, (name, loss_s, step_s)


def best_of(call, number: int) -> float:
    times = []
    for _ in range(number):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def test_metrics_of_24426_images_and_8142_classes_take_seconds():
    """From random features, as an evaluation goes: no logits of all images at a time."""
    number = 3 * CLASSES
    random = np.random.default_rng(0)
    targets = np.tile(np.arange(CLASSES), 3)
    counts = np.geomspace(1000, 2, CLASSES).astype(int)
    assert number * CLASSES > MOST_LOGITS
    evaluator = object.__new__(Evaluator)
    evaluator.__dict__.update(
        config=RunConfig(dataset="inat2018", recipe="ce"),
        world=ALONE,
        keeps_logits=False,
        is_finite=True,
    )
    weight = torch.from_numpy(random.standard_normal((16, CLASSES)).astype(np.float32))
    features = weight.T[targets] + torch.from_numpy(
        random.standard_normal((number, 16)).astype(np.float32)
    )
    started = time.process_time()
    outcome = evaluator._outcome(lambda rows: rows @ weight, features, 1.0, targets)
    found = metrics.summary_of(outcome.predictions, targets, counts)
    assert time.process_time() - started < 15
    assert outcome.logits is None
    logits = features[:50] @ weight
    assert outcome.predictions.classes[:50].tolist() == logits.argmax(dim=1).tolist()
    expected = torch.nn.functional.cross_entropy(
        logits.double(), torch.from_numpy(targets[:50]), reduction="none"
    )
    np.testing.assert_allclose(-outcome.predictions.log_probability[:50], expected, rtol=1e-5)
    assert 0.01 < found["top1"] == pytest.approx(found["balanced_accuracy"])
