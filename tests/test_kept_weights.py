"""Kept weights: they predict what the record says, change nothing else, and are there or are told of."""

from __future__ import annotations

import io
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from hml_core import datasets, engines, models, runs
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, RunError
from hml_core.models import described, preprocessing, trained
from hml_core.runs import Run, exporting, kept_weights
from hml_core.system import files
from hml_core.system.images import ImageError
from hml_core.trainer import NonFiniteLossError, Trainer, beginnings, feeds, fit, fitting
from tests.distributed import helpers
from tests.quick import slow_but

SELECTION = kept_weights.SELECTIONS
TIMED = ("seconds", "files", "checksum", "kept_weights", "trained_epochs", "branch")


def outcome(run: Run) -> tuple:
    metrics = {name: value for name, value in run.metrics.items() if name not in TIMED}
    history = run.history.drop(columns=[*runs.CLOCK]).to_csv()
    return metrics, history, {name: array.tobytes() for name, array in run._arrays.items()}


def content(run: Run) -> bytes:
    return (run.path / kept_weights.NAME).read_bytes()


def images_of(config: RunConfig) -> np.ndarray:
    return datasets.load(config).test.images.transpose(0, 3, 1, 2).copy()


def require_predicts(run: Run, which: str) -> None:
    """The network says of the test images what the record says, to the bit."""
    model = run.verify().model()
    wanted = run.test_logits(SELECTION[which])
    images = images_of(run.config)
    assert np.array_equal(model.logits(images).numpy(), wanted)
    assert model.described["epoch"] == run.selection(SELECTION[which])["epoch"]
    with torch.inference_mode():  # without what the evaluation does to be fast
        plain = model(torch.from_numpy(images)).softmax(1).numpy()
    apart = np.abs(plain - torch.from_numpy(wanted).softmax(1).numpy()).max()
    assert apart < (1e-5 if run.config.precision != "bf16" else 0.05)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_weights_that_nobody_would_take_are_not_kept(value, tiny, tmp_path, monkeypatch):
    """Infinity may be a mask's, or a variance's that overflows, at high rates, before the logits do."""
    plain = Trainer.weights

    def overflown(self):
        tensors = self.evaluator.kept["tensors"]
        name = next(name for name in tensors if name.endswith("running_var"))
        tensors[name] = torch.full_like(tensors[name], value)
        return plain(self)

    monkeypatch.setattr(Trainer, "weights", overflown)
    if value == math.inf:
        run = fit(tiny(epochs=1), runs_root=tmp_path, progress=False, keep_weights="last")
        assert run.model().logits(images_of(run.config)).isfinite().all()
        return
    said = r"cannot be kept: '.*running_var' became NaN by the end of epoch 1"
    with pytest.raises(NonFiniteLossError, match=said):
        fit(tiny(epochs=1), runs_root=tmp_path, progress=False, keep_weights="last")
    assert "cannot be kept" in runs.failures(tmp_path)["error"].item()
    assert not list(tmp_path.glob(f"*/{kept_weights.NAME}"))


# Every way in which what is evaluated differs from a plain network with its last weights.
WAYS = {
    "ce": {},
    "ldam": {"recipe": "ldam"},
    "ldam_drw": {"recipe": "ldam_drw"},
    "hml2": {"recipe": "hml2"},
    "crt": {"recipe": "crt"},
    "lws": {"recipe": "lws"},
    "tau_norm": {"recipe": "tau_norm"},
    "ncm": {"recipe": "ncm"},
    "logit adjustment afterwards": {"post_hoc_tau": 1.0},
    "average": {"ema_decay": 0.9},
    "average, lws": {"ema_decay": 0.9, "recipe": "lws"},
    "average, ncm": {"ema_decay": 0.9, "recipe": "ncm"},
    "average, tau_norm, adjusted": {"ema_decay": 0.9, "recipe": "tau_norm", "post_hoc_tau": 0.5},
    "cosine": {"head": "cosine"},
    "cosine, crt": {"head": "cosine", "recipe": "crt"},
    "bf16": {"precision": "bf16"},
    "seldom evaluated": {"evaluate_every": 3},
}


QUICK = (
    ("ce", "last"), ("lws", "best"), ("ncm", "last"), ("average, tau_norm, adjusted", "best"),
    ("bf16", "best"),
)  # fmt: skip


@pytest.mark.begun_first
@pytest.mark.parametrize(("way", "which"), slow_but(QUICK, itertools.product(WAYS, SELECTION)))
def test_the_network_predicts_what_the_record_says(way, which, tiny, tmp_path):
    config = tiny(**{"epochs": 10, "learning_rate": 0.5, **WAYS[way]})
    require_predicts(fit(config, runs_root=tmp_path, progress=False, keep_weights=which), which)


def test_the_best_epoch_is_not_the_last(tiny, tmp_path):
    """Else the test above could not tell the two apart."""
    config = tiny(epochs=10, learning_rate=0.5)
    best, last = (
        fit(config, runs_root=tmp_path / which, progress=False, keep_weights=which)
        for which in ("best", "last")
    )
    assert best.selection("best_validation")["epoch"] < 10
    assert content(best) != content(last)


@pytest.mark.slow
def test_a_run_that_stops_between_two_evaluations_is_evaluated_where_it_stops(tiny, tmp_path):
    config = tiny(epochs=30, learning_rate=0.5, early_stopping=2, evaluate_every=3)
    run = fit(config, runs_root=tmp_path / "rare", progress=False, keep_weights="last")
    stopped = run.selection()["epoch"]
    assert stopped % 3
    found = run.model().logits(images_of(config)).numpy()
    assert np.array_equal(found, run.test_logits())
    # What it says of that epoch is what a run says that looks at every epoch.
    alone = tiny(epochs=30, learning_rate=0.5)
    often = fit(alone, runs_root=tmp_path / "often", progress=False).history.set_index("epoch")
    last = run.history.iloc[-1]
    assert last["epoch"] == stopped
    for name in ("train_loss", "test_accuracy", "validation_balanced_accuracy"):
        assert last[name] == often.loc[stopped, name]
    assert last["test_accuracy"] == run.selection()["top1"]


@pytest.mark.parametrize("which", slow_but(["best"], SELECTION))
def test_neither_the_run_nor_its_bits_depend_on_what_is_kept(which, tiny, tmp_path):
    config = tiny(recipe="lws", epochs=10, ema_decay=0.9)
    plain = fit(config, runs_root=tmp_path / "plain", progress=False)
    kept = fit(config, runs_root=tmp_path / "kept", progress=False, keep_weights=which)
    assert outcome(plain) == outcome(kept)
    assert (plain.run_id, plain.keeps()) == (kept.run_id, False)
    assert kept.keeps(which)
    assert not (plain.path / kept_weights.NAME).exists()


# Finished runs --------------------------------------------------------------------------------------


def test_a_finished_run_without_weights_says_what_to_do_and_stays(tiny, tmp_path):
    config = tiny()
    done = fit(config, runs_root=tmp_path, progress=False)
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    told = rf"{done.run_id} is finished without weights.*`retrain` \(`--retrain`\)"
    with pytest.raises(RunError, match=told):
        fit(config, runs_root=tmp_path, progress=False, keep_weights="last")
    with pytest.raises(RunError, match="Of 2 runs, 1 lack the weights"):
        engines.sweep(
            [config, tiny(seed=1)], runs_root=tmp_path, progress=False, keep_weights="last"
        )
    with pytest.raises(RunError, match=r"kept no weights.*--keep-weights last"):
        done.model()
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before
    assert not (tmp_path / tiny(seed=1).run_id).exists()


def test_it_is_trained_anew_where_told_and_only_once(tiny, tmp_path):
    config = tiny()
    done = fit(config, runs_root=tmp_path, progress=False)
    before = outcome(done)
    with pytest.warns(UserWarning, match=r"set aside in .*\.replaced"):
        again = fit(config, runs_root=tmp_path, progress=False, keep_weights="last", retrain=True)
    assert outcome(again) == before
    require_predicts(again, "last")
    aside = tmp_path / ".replaced" / f"{done.run_id}.0"
    assert files.sha256(aside / "predictions.npz") == done.metrics["files"]["predictions.npz"]
    written = (again.path / "metrics.json").stat().st_mtime_ns
    for wishes in ({"keep_weights": "last", "retrain": True}, {"keep_weights": "last"}, {}):
        found = fit(config, runs_root=tmp_path, progress=False, **wishes)
        assert (found.path / "metrics.json").stat().st_mtime_ns == written
    assert len(list((tmp_path / ".replaced").iterdir())) == 1


def test_a_sweep_trains_those_anew_that_lack_weights(tiny, tmp_path):
    first, second = tiny(), tiny(seed=1)
    fit(first, runs_root=tmp_path, progress=False)
    fit(second, runs_root=tmp_path, progress=False, keep_weights="last")
    written = (tmp_path / second.run_id / "metrics.json").stat().st_mtime_ns
    with pytest.warns(UserWarning, match="set aside"):
        frame = engines.sweep(
            [first, second], runs_root=tmp_path, progress=False, keep_weights="last", retrain=True
        )
    assert (frame["status"] == "done").all()
    assert (tmp_path / second.run_id / "metrics.json").stat().st_mtime_ns == written
    require_predicts(Run(tmp_path / first.run_id), "last")


def test_weights_of_another_epoch_are_no_substitute_and_of_the_same_are(tiny, tmp_path):
    config = tiny(epochs=10, learning_rate=0.5)
    done = fit(config, runs_root=tmp_path, progress=False, keep_weights="last")
    with pytest.raises(RunError, match=r"with the weights of its epoch 10 \(last\), not of 'best'"):
        fit(config, runs_root=tmp_path, progress=False, keep_weights="best")
    done.metrics["selections"]["best_validation"]["epoch"] = 10
    assert done.keeps("best")


def test_nothing_is_moved_before_the_images_are_there(tiny, tmp_path):
    config = tiny(dataset="imagefolder", model="resnet8", epochs=1, imbalance_ratio=1.0)
    tree = folder_of_images(tmp_path / "tree")
    done = fit(config, data_root=tree, runs_root=tmp_path / "runs", progress=False)
    with pytest.raises(ConfigError, match=r"no validation split.*expected `keep_weights` 'last'"):
        fit(
            config, data_root=tree, runs_root=tmp_path / "runs", progress=False,
            keep_weights="best", retrain=True,
        )  # fmt: skip
    assert done.verify().run_id == config.run_id
    assert not (tmp_path / "runs" / ".replaced").exists()


def folder_of_images(root):
    """Three classes of six colour images, with a red, a green and a blue square."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, name in enumerate(("blue", "green", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = random.integers(0, 99, (16, 16, 3), np.uint8)
                pixels[4:12, 4:12, 2 - label] = 250
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def test_a_notebook_asks_for_them_once_for_all_its_runs(tiny, tmp_path):
    from hml_lab.experiment import Experiment

    configs = [tiny(recipe=recipe, epochs=2) for recipe in ("ce", "ncm")]
    where = {"runs_root": tmp_path, "results_root": tmp_path}
    experiment = Experiment("mine", configs, keep_weights="best", **where)
    for run in [*experiment.runs, *experiment.where(recipe="ncm").runs]:
        require_predicts(run, "best")
    assert Experiment("mine", configs, train=False, keep_weights="last", **where).runs


# Interrupted, branched off, on every engine -----------------------------------------------------------


def cut_off(config, root, epoch, monkeypatch, **wishes) -> None:
    """Train, with a checkpoint at the end of every epoch, and be killed in the next one."""
    plain = Trainer.train_epoch

    def killed(self):
        if self.epoch == epoch:
            raise KeyboardInterrupt
        return plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "CHECKPOINT_INTERVAL_S", 0.0)
        patch.setattr(Trainer, "train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(config, runs_root=root, progress=False, **wishes)


@pytest.mark.parametrize(
    ("recipe", "which"),
    slow_but([("lws", "best")], itertools.product(["ce", "lws", "ncm"], SELECTION)),
)
def test_a_run_that_was_killed_keeps_the_same(recipe, which, tiny, tmp_path, monkeypatch):
    config = tiny(recipe=recipe, epochs=10, learning_rate=0.5, ema_decay=0.9)
    whole = fit(config, runs_root=tmp_path / "whole", progress=False, keep_weights=which)
    cut_off(config, tmp_path, 9, monkeypatch, keep_weights=which)
    resumed = fit(config, runs_root=tmp_path, progress=False, keep_weights=which)
    assert content(resumed) == content(whole)
    require_predicts(resumed, which)


@pytest.mark.slow
def test_a_run_that_was_begun_without_can_keep_its_last_and_not_a_best_that_is_over(
    tiny, tmp_path, monkeypatch
):
    config = tiny(epochs=10, learning_rate=0.5)
    whole = fit(config, runs_root=tmp_path / "whole", progress=False, keep_weights="best")
    best = whole.selection("best_validation")["epoch"]
    cut_off(config, tmp_path, 9, monkeypatch)
    with pytest.raises(RunError, match=rf"its best epoch so far, {best}, were not kept.*`retrain`"):
        fit(config, runs_root=tmp_path, progress=False, keep_weights="best")
    assert (tmp_path / config.run_id / "checkpoint.pt").exists()
    require_predicts(fit(config, runs_root=tmp_path, progress=False, keep_weights="last"), "last")

    cut_off(config, tmp_path / "anew", 9, monkeypatch)
    with pytest.warns(UserWarning, match="were not kept.*set aside"):
        anew = fit(
            config, runs_root=tmp_path / "anew", progress=False, keep_weights="best", retrain=True
        )
    assert content(anew) == content(whole)

    cut_off(config, tmp_path / "just", best, monkeypatch)  # the best epoch is the last so far
    just = fit(config, runs_root=tmp_path / "just", progress=False, keep_weights="best")
    assert content(just) == content(whole)


def test_a_run_that_nobody_wants_the_weights_of_any_more_has_none(tiny, tmp_path, monkeypatch):
    config = tiny(epochs=4)
    cut_off(config, tmp_path, 3, monkeypatch, keep_weights="best")
    (tmp_path / config.run_id / kept_weights.NAME).write_bytes(b"of a kill before the end")
    run = fit(config, runs_root=tmp_path, progress=False).verify()
    assert not run.keeps()
    assert not (run.path / kept_weights.NAME).exists()


@pytest.mark.parametrize(
    ("engine", "which", "recipes"),
    slow_but(
        [("interleave:3", "last", "ce lws ncm")],
        [
            ("interleave:3", "last", "ce lws ncm"),
            ("serial", "best", "ce hml1 lws tau_norm ncm"),
            ("interleave:3", "last", "ce hml1 lws tau_norm ncm"),
        ],
    ),
)
def test_a_run_that_begins_where_another_was_keeps_the_same(engine, which, recipes, tiny, tmp_path):
    fields = {"epochs": 10, "learning_rate": 0.5}
    configs = [tiny(recipe=recipe, **fields) for recipe in recipes.split()]
    place = {"runs_root": tmp_path / "shared", "progress": False, "keep_weights": which}
    frame = engines.sweep(configs, engine=engine, **place)
    assert (frame["status"] == "done").all(), frame["error"].tolist()
    for config in configs:
        run = Run(tmp_path / "shared" / config.run_id)
        alone = fit(config, runs_root=tmp_path / "alone", progress=False, keep_weights=which)
        assert content(run) == content(alone), config.recipe
        require_predicts(run, which)
    assert Run(tmp_path / "shared" / configs[-1].run_id).trained_epochs == 0


@pytest.mark.parametrize("which", slow_but(["best"], SELECTION))
def test_a_beginning_without_weights_is_none_for_who_needs_the_best(which, tiny, tmp_path):
    ce, other, ncm = (
        tiny(recipe=recipe, epochs=10, learning_rate=0.5) for recipe in ("ce", "tau_norm", "ncm")
    )
    place = {"runs_root": tmp_path, "progress": False}
    with beginnings.kept(tmp_path):  # another sweep, so that they stay
        engines.sweep([ce, ncm, other], **place)
        kept = tmp_path / "aside"
        (tmp_path / ncm.run_id).rename(kept)
        (tmp_path / other.run_id).rename(tmp_path / "aside, too")
        engines.sweep([ncm, other], keep_weights=which, **place)
    run = Run(tmp_path / ncm.run_id)
    require_predicts(run, which)
    alone = fit(ncm, runs_root=tmp_path / "alone", progress=False, keep_weights=which)
    assert content(run) == content(alone)


@pytest.mark.parametrize("engine", slow_but(["a group of two"], ["dask", "a group of two"]))
def test_in_other_processes(engine, tiny, tmp_path, forked_workers):
    """Each of two processes evaluates its share; micro-batches make the batch whatever their number.

    (That torchrun is told what is to be kept: tests/engines/test_torchrun.py.)
    """
    configs = [tiny(recipe=recipe, epochs=3, micro_batch_size=32) for recipe in ("ce", "ncm")]
    if engine == "dask":
        place = {"runs_root": tmp_path, "progress": False, "keep_weights": "best"}
        frame = engines.sweep(configs, engine=engine, **place)
        assert (frame["status"] == "done").all(), frame["error"].tolist()
    else:
        file = tmp_path / "configs.json"
        file.write_text(json.dumps([config.to_dict() for config in configs]))
        status, said = helpers.run("train", tmp_path, tmp_path, file, "best")
        assert status == 0, said
    for config in configs:
        run = Run(tmp_path / config.run_id).verify()
        found = run.model().probabilities(images_of(config))
        wanted = torch.from_numpy(run.test_logits("best_validation")).softmax(1).numpy()
        assert np.abs(found - wanted).max() < 1e-6  # shares are other batches than the whole


# Damage and copies ------------------------------------------------------------------------------------


@pytest.fixture
def kept(tiny, tmp_path) -> Run:
    return fit(tiny(epochs=2), runs_root=tmp_path / "runs", progress=False, keep_weights="last")


@pytest.mark.parametrize("damage", ["flipped", "cut off", "emptied"])
def test_damage_is_noticed(damage, kept):
    path = kept.path / kept_weights.NAME
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes({"flipped": damaged, "cut off": damaged[:-7], "emptied": b""}[damage])
    for read in (kept.verify, kept.model):
        with pytest.raises(RunError, match=r"damaged: weights\.safetensors is not what was"):
            read()
    with pytest.warns(UserWarning, match=r"damaged.*weights\.safetensors.*set aside"):
        again = fit(kept.config, runs_root=kept.path.parent, progress=False, keep_weights="last")
    require_predicts(again, "last")


def test_weights_may_be_removed_and_the_record_holds(kept):
    (kept.path / kept_weights.NAME).unlink()
    assert not kept.verify().keeps()
    assert fit(kept.config, runs_root=kept.path.parent, progress=False).run_id == kept.run_id
    with pytest.raises(RunError, match=r"its weights were removed.*`retrain`"):
        fit(kept.config, runs_root=kept.path.parent, progress=False, keep_weights="last")
    with pytest.raises(RunError, match="has lost its weights"):
        kept.model()


def test_a_sealed_file_of_another_form_is_named(kept):
    """Of a version to come, or by somebody who makes his own."""
    from safetensors.torch import save_file

    path = kept.path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(RunError, match="does not hold the weights of a network"):
        kept_weights.read(path)


def test_records_for_publication_leave_weights_behind_unless_asked(kept, tmp_path):
    (record,) = exporting.export(kept.path.parent, tmp_path / "records")
    assert not (record / kept_weights.NAME).exists()
    assert not Run(record).verify().keeps()
    (record,) = exporting.export(kept.path.parent, tmp_path / "records", weights=True)
    assert content(Run(record).verify()) == content(kept)
    found = Run(record).model().logits(images_of(kept.config)).numpy()
    assert np.array_equal(found, kept.test_logits())
    (record / kept_weights.NAME).write_bytes(b"damaged")
    with pytest.warns(
        UserWarning, match="weights.safetensors is not what was written. It was set as"
    ):
        exporting.export(kept.path.parent, tmp_path / "records")
    assert not Run(record).verify().keeps()


# Bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"keep_weights": "first"}, "`keep_weights` to be one of last, best, or None, got 'first'"),
        ({"keep_weights": True}, "`keep_weights` to be one of"),
        ({"retrain": True}, "expected `keep_weights` with it"),
        ({"keep_weights": "last", "retrain": "yes"}, "`retrain` to be true or false"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_anything_is_written(
    wishes, message, tiny, tmp_path
):
    from hml_lab.experiment import Experiment

    root = tmp_path / "runs"
    for act in (
        lambda: fit(tiny(), runs_root=root, progress=False, **wishes),
        lambda: engines.sweep([tiny()], runs_root=root, progress=False, **wishes),
        lambda: Experiment("mine", [tiny()], runs_root=root, **wishes),
    ):
        with pytest.raises(ConfigError, match=message):
            act()
    assert not root.exists()


def test_without_safetensors_it_is_said_at_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs safetensors.*pip install"):
        fit(tiny(), runs_root=tmp_path, progress=False, keep_weights="last")
    assert not list(tmp_path.iterdir())


class Peculiar(torch.nn.Module):
    """A backbone that is registered under the same name with and without a state of its own."""

    out_features = 4
    extra = False

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(in_channels * 64, 4)
        self.twin = self.layer  # one tensor, two names

    def forward(self, x):
        return self.twin(x.flatten(1))


@pytest.fixture
def peculiar(monkeypatch):
    monkeypatch.setattr(models, "MODELS", models.MODELS)
    models.register(Peculiar, name="peculiar", image_size=8)
    yield
    del models.MODELS["peculiar"]


def test_a_network_of_ones_own_comes_back_where_it_is_registered(peculiar, tiny, tmp_path):
    config = tiny(model="peculiar", epochs=2)
    run = fit(config, runs_root=tmp_path, progress=False, keep_weights="last")
    require_predicts(run, "last")
    entry = models.MODELS.pop("peculiar")
    with pytest.raises(RunError, match=r"model 'peculiar'.*not registered here.*--import"):
        Run(run.path).model()
    models.MODELS["peculiar"] = entry


def test_a_state_that_is_no_tensor_is_refused_before_training(
    peculiar, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        Peculiar,
        "get_extra_state",
        lambda self: {"seen": 1} if self.training else {},
        raising=False,
    )
    monkeypatch.setattr(Peculiar, "set_extra_state", lambda self, state: None, raising=False)
    models.register(Peculiar, name="peculiar", image_size=8)
    config = tiny(model="peculiar", epochs=1)
    with pytest.raises(ConfigError, match=r"'peculiar' cannot be kept: 'backbone\._extra_state'"):
        fit(config, runs_root=tmp_path, progress=False, keep_weights="last")
    assert not (tmp_path / config.run_id).exists()


# Files of images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("crops", [False, True], ids=["whole", "middle"])
def test_an_image_is_the_same_to_the_evaluation_and_to_a_kept_network(crops, tmp_path):
    """Of any shape and format: decoded, turned, resized, cut out and normalised alike."""
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, shape in (("a.jpg", (40, 70, 3)), ("b.png", (64, 33, 3)), ("c.jpg", (28, 28, 3))):
        pixels = random.integers(0, 255, shape, np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    names = tuple(sorted(path.name for path in tmp_path.iterdir()))
    sums = tuple(files.sha256(tmp_path / name) for name in names)
    part = datasets.LabelledFiles(tmp_path, names, sums, np.arange(3), crops)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.1, 0.3)
    splits = datasets.Splits("mine", part, None, part, ("a", "b", "c"), mean, std, np.arange(3))
    config = RunConfig(dataset="isic2018", image_size=28)
    feed = feeds.make(part, splits, config, torch.device("cpu"))
    (payload,) = feed.batches(torch.arange(3), 3)
    prepared = feeds.preprocessing_of(splits, config)
    again = preprocessing.Preprocessing.from_dict(json.loads(json.dumps(prepared.to_dict())))
    assert again == prepared
    images = torch.stack([again.image((tmp_path / name).read_bytes()) for name in names])
    assert torch.equal(images, payload)
    assert torch.equal(again.normalised(images), feed.images(payload))


def test_images_that_a_kept_network_cannot_take_are_named():
    def encoded(width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "png")
        return buffer.getvalue()

    five = preprocessing.Preprocessing((8, 8), 5, "whole", (0.5,) * 5, (0.2,) * 5)
    with pytest.raises(ImageError, match="no image of 5 channels: the network takes arrays only"):
        five.image(encoded(8, 8))
    cut = preprocessing.Preprocessing((224, 224), 3, "middle", (0.5,) * 3, (0.2,) * 3, shorter=256)
    with pytest.raises(ImageError, match=r"60000 × 2 pixels: too long .* resized to 256"):
        cut.image(encoded(60_000, 2))
    assert cut.image(encoded(300, 200)).shape == (3, 224, 224)


def test_streamed_images_are_predicted_as_in_the_record(miniature, tmp_path, monkeypatch):
    from hml_core.models import prediction

    monkeypatch.setenv("HML_LOADER_WORKERS", "0")
    config = RunConfig(
        dataset="inat2018", model="resnet8", image_size=32, epochs=1, batch_size=32,
        micro_batch_size=8, precision="float32", learning_rate=0.005,
    )  # fmt: skip
    run = fit(
        config, data_root=miniature, runs_root=tmp_path, progress=False, keep_weights="last"
    ).verify()
    test = datasets.load(config, miniature).test
    paths = [test.folder / name for name in test.names]
    table = prediction.predict(run.model(), paths, progress=False)
    found = table[[f"p({name})" for name in run.class_names]].to_numpy()
    wanted = torch.from_numpy(run.test_logits()).softmax(1).numpy()
    assert np.abs(found - wanted).max() < 1e-6
    assert (found.argmax(1) == run.test_classes()).all()


ODD = {
    "evaluated_at_a_time": [0, -5, "8", 10**18, 1.5, True],
    "logit_scale": [None, "x", [1], math.inf, math.nan],
    "class_scales": [10**12, -1, "x"],
    "class_names": ["ab", [], [None] * 10, {"a": 1}, ["\ud800"] * 10, ["a"] * 100_000],
    "precision": ["fp8", None, []],
    "head": [[1]],
    "head_scale": ["x"],
    "model": [5, None],
    "post_hoc": [{}],
    "preprocessing": [None, [1], {}],
}
ODD_PREPROCESSING = {
    "size": ["x", [0, 0], ["a", "b"], {}, [10**6, 10**6], [8]],
    "channels": [3 * 10**7, 0, "1"],
    "mean": ["x", {}, [0.5, 0.5], [math.inf]],
    "std": ["x", [0.0], [-1.0], [1, 2]],
    "resizing": ["none", None],
    "shorter": ["x", -1],
    "in_memory": [1],
    "more": [1],
}
ODD_TENSORS = {
    "shift": [
        torch.zeros(3),
        torch.zeros(()),
        torch.zeros(7, 10),
        torch.zeros(10, dtype=torch.bool),
        torch.zeros(10, dtype=torch.complex64),
    ],
    "network.linear.bias": [torch.full((10,), math.nan)],
    "network.linear.weight": [torch.zeros(10, 64, dtype=torch.complex64)],
}
CASES = [
    *(("description", name, value) for name, values in ODD.items() for value in values),
    *(
        ("preprocessing", name, value)
        for name, values in ODD_PREPROCESSING.items()
        for value in values
    ),
    *(("tensors", name, value) for name, values in ODD_TENSORS.items() for value in values),
]


@pytest.fixture(scope="module")
def weights():
    """Tensors and description of a network, as a run keeps them."""
    network = models.build("resnet8", 10, in_channels=1)
    preprocessed = {
        "size": [8, 8], "channels": 1, "resizing": "whole", "mean": [0.5], "std": [0.5], "shorter": 0,
        "in_memory": True,
    }  # fmt: skip
    told = {
        "model": "resnet8", "class_names": list("abcdefghij"), "dataset": "digits", "logit_scale": 1.0,
        "synthetic": False, "precision": "auto", "evaluated_at_a_time": 250,
        "preprocessing": preprocessed,
    }  # fmt: skip
    return trained.kept(network, network.classifier, None, told)


def test_a_description_as_a_run_keeps_it_is_taken(weights, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(kept_weights.to_bytes(*weights))
    assert kept_weights.read(path).class_names == tuple("abcdefghij")
    told = json.loads(json.dumps(weights[1]))
    told["preprocessing"] |= {"resizing": "middle", "shorter": 10}
    described.require(told, weights[0])
    told["preprocessing"]["shorter"] = 7
    with pytest.raises(ValueError, match="`shorter` of `preprocessing` is less than its `size`"):
        described.require(told, weights[0])


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_description_that_no_network_has_is_refused(case, weights, tmp_path):
    """Whoever changes a file can make its checksum anew; nothing of it is taken for granted."""
    (where, name, value), (tensors, told) = CASES[case], weights
    tensors, told = dict(tensors), json.loads(json.dumps(told))
    changed = {"tensors": tensors, "description": told, "preprocessing": told["preprocessing"]}
    changed[where][name] = value
    path = tmp_path / "weights.safetensors"
    path.write_bytes(kept_weights.to_bytes(tensors, told))
    with pytest.raises(RunError, match="does not hold the weights of a network as this version"):
        kept_weights.read(path)
