"""Training on ISIC: what is read and augmented, what it starts from, when it stops, what it says."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from data_prep.isic import archive, images, splits, synthetic
from data_prep.isic.prepare import prepare
from hml_core import datasets, metrics, models, runs, schedule
from hml_core.config import RunConfig, grid
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.models import imagenet, trained
from hml_core.runs import kept_weights
from hml_core.system import downloads, files
from hml_core.trainer import Trainer, feeds, fit
from hml_lab import plots, stats, tables
from tests.chaos.foreign import hole
from tests.quick import slow_but

CPU = torch.device("cpu")
SIDE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A synthetic archive, prepared; no test changes it."""
    folder = tmp_path_factory.mktemp("isic") / "archive"
    synthetic.make("isic2018", folder, 240, side=48)
    found = archive.read("isic2018", folder)
    prepare(found, folder / "prepared", images.Options(size=SIDE), workers=1, progress=False)
    return folder


@pytest.fixture
def own(root, tmp_path):
    """A copy of the prepared folder that a test may change."""
    return shutil.copytree(root / "prepared", tmp_path / "prepared")


def tiny(**fields) -> RunConfig:
    """A run of a second: a small network, small images."""
    small = {"model": "resnet8", "weights": "none", "frozen": 0.0, "image_size": SIDE, "epochs": 3}
    return RunConfig(**{"dataset": "isic2018", "batch_size": 32, **small, **fields})


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    configs = grid(
        recipe=["ce", "dhml1"], seed=[0, 1], dataset="isic2018", model="resnet8", weights="none",
        frozen=0.0, image_size=SIDE, epochs=4, batch_size=32,
    )  # fmt: skip
    return [fit(config, data_root=root, runs_root=folder, progress=False) for config in configs]


# What the data set brings ------------------------------------------------------------------------


def test_defaults_are_the_papers():
    config = RunConfig(dataset="isic2018", recipe="dhml1")
    assert (config.model, config.epochs, config.batch_size) == ("efficientnet_b3", 100, 128)
    assert (config.weights, config.frozen, config.image_size) == ("imagenet", 0.68, 300)
    assert (config.optimizer, config.early_stopping, config.stage_ends) == ("adam", 15, (50,))
    assert config.delta == 1e7
    assert RunConfig(dataset="isic2019", recipe="hml1").delta == 1e4
    assert RunConfig(dataset="isic2018", recipe="ce").delta is None
    assert config.run_id.startswith("isic2018-natural-dhml1-s0-")
    assert RunConfig.from_json(config.to_json()) == config


def test_runs_of_other_data_sets_keep_their_identity():
    """Fields that were added for image files do not enter the hash of the runs made before them."""
    config = RunConfig(dataset="digits", recipe="hml1", seed=3)
    matters = {"optimizer", "weights", "frozen", "early_stopping", "lr_schedule", "normalisation"}
    assert all(getattr(config, name) is not None for name in matters)
    assert config.run_id == "digits-exp20-hml1-s3-083061ac1b"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"augmentation": "crop_flip"}, "`augmentation` of 'isic2018'"),
        ({"imbalance_type": "exp"}, "long-tailed by itself"),
        ({"image_size": 0}, "`image_size`"),
        ({"frozen": 1.0}, "`frozen`"),
        ({"early_stopping": -1}, "`early_stopping`"),
        ({"optimizer": "lion"}, "`optimizer`"),
        ({"lr_schedule": "linear"}, "`lr_schedule`"),
        ({"normalisation": "zscore"}, "`normalisation`"),
        ({"model": "resnet8", "weights": "imagenet"}, "no `weights` for 'resnet8'"),
        ({"dataset": "digits", "image_size": 32}, "keep their size"),
        ({"dataset": "digits", "normalisation": "imagenet"}, "`normalisation`"),
        (
            {"dataset": "cifar10", "early_stopping": 3},
            "`early_stopping` watches a validation split",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        RunConfig(**{"dataset": "isic2018", **fields})


def test_classes_go_from_head_to_tail(root):
    found = datasets.load(tiny(), root)
    assert found.class_names[0] == "melanocytic nevus"
    assert (np.diff(found.class_counts) <= 0).all()
    assert found.synthetic
    assert found.channels == 3
    described = json.loads((root / "prepared" / "prepared.json").read_text())
    assert found.mean == pytest.approx(described["mean"])
    assert datasets.load(tiny(normalisation="imagenet"), root).mean[0] == 0.485
    assert datasets.load(tiny(normalisation="authors"), root).std[2] == 0.20363748


def test_melanoma_against_nevus_is_a_part_of_2019(tmp_path):
    folder = synthetic.make("isic2019", tmp_path / "a", 160, side=24)
    found = archive.read("isic2019", folder)
    prepare(found, folder / "prepared", images.Options(size=24), workers=1, progress=False)
    two = datasets.load(tiny(dataset="isic2019", image_size=24), folder)
    assert two.class_names == ("melanocytic nevus", "melanoma")
    everything = datasets.load(tiny(dataset="isic2019_all", image_size=24), folder)
    assert everything.num_classes == 8
    assert two.manifest()["sha256"] != everything.manifest()["sha256"]


def test_folders_that_cannot_be_trained_on_are_refused(own, root, tmp_path):
    def refused(said, config=None, folder=own):
        with pytest.raises(DataError, match=said):
            fit(config or tiny(), data_root=folder, runs_root=tmp_path / "runs", progress=False)
        assert not list((tmp_path / "runs").glob("isic*"))

    refused("hml prepare isic2018", folder=tmp_path / "nothing")
    refused("holds isic2018: expected isic2019", tiny(dataset="isic2019"))
    refused("prepared with size 32: expected `image_size` up to that, got 64", tiny(image_size=64))
    name = next((own / "images").iterdir())
    name.rename(own / "elsewhere.jpg")
    refused("1 prepared image.* are gone")
    (own / "elsewhere.jpg").rename(name)
    with (own / "manifest.csv").open("a") as stream:
        stream.write("x,NV,,train,images/x.jpg,0,0\n")
    refused("not what was prepared")
    (own / "prepared.json").write_text("{")
    refused("is damaged")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("split", "Train", r"`split` of 'ISIC_\d+' to be one of train, .*, got 'Train'"),
        ("class", "XXX", r"`class` of 'ISIC_\d+' to be one of MEL, .*, got 'XXX'"),
        ("class", "", "got ''"),
        ("part", ["ham"], "`part` to say its name"),
        ("part", "ham", "`part` to say its name"),
    ],
)
def test_what_is_sealed_and_cannot_be_is_named(column, value, said, root, tmp_path):
    """Whoever changes a description can make its checksum anew."""
    folder = shutil.copytree(root / "prepared", tmp_path / "own", copy_function=os.link)
    described = files.unsealed(json.loads((folder / "prepared.json").read_text()))
    if column == "part":
        described["part"] = value
    else:
        path = folder / "manifest.csv"
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
        manifest.loc[3, column] = value
        path.unlink()  # it is the same file as the original's
        manifest.to_csv(path, index=False)
        described["manifest_sha256"] = files.sha256(path)
    (folder / "prepared.json").unlink()
    (folder / "prepared.json").write_text(json.dumps(files.sealed(described)))
    with pytest.raises(DataError, match=f"is damaged: expected .*{said}"):
        datasets.load(tiny(), folder)


def without_df(root, folder, absent: str, instead: str):
    """Prepared with a split of one's own, in which no image of DF is in ``absent``."""
    found = archive.read("isic2018", root)
    records = found.records.assign(split=splits.by_lesion(found.records, 0))
    records.loc[(records["class"] == "DF") & (records["split"] == absent), "split"] = instead
    records[["id", "split"]].to_csv(folder / "split.csv", index=False)
    options = images.Options(size=SIDE)
    prepare(
        found, folder / "out", options, split_csv=folder / "split.csv", workers=1, progress=False
    )
    return folder / "out"


def test_a_class_that_cannot_be_trained_is_named(root, tmp_path):
    with pytest.raises(DataError, match="class DF has no train image"):
        datasets.load(tiny(), without_df(root, tmp_path, "train", "test"))


@pytest.mark.parametrize("absent", slow_but(["test"], ["validation", "test"]))
def test_a_class_that_a_split_cannot_judge_is_trained_and_left_out_of_its_means(
    absent, root, tmp_path
):
    folder = without_df(root, tmp_path, absent, "train")
    run = fit(tiny(epochs=1), data_root=folder, runs_root=tmp_path / "runs", progress=False)
    label = run.class_names.index("dermatofibroma")
    recalls = run.per_class_accuracy("last")
    assert run.class_counts[label] > 0
    assert np.isnan(recalls[label]) == (absent == "test")
    assert np.isfinite(np.delete(recalls, label)).all()
    assert run.selection("last")["balanced_accuracy"] == pytest.approx(np.nanmean(recalls))
    scores = run.history["validation_balanced_accuracy"]
    assert scores.notna().all()
    plots.per_class_accuracy([run], selection="last")
    plots.balanced_accuracy([run], selection="last")
    plots.confusion_matrix([run], ["ce"], selection="last")
    plots.features(run)
    chosen = {"positive_class": "dermatofibroma", "selection": "last"}
    roc = plots.roc_curves([run], "dermatofibroma", selection="last")
    (text,) = [t.get_text() for t in roc.legends[0].get_texts()]
    assert ("no test image of dermatofibroma" in text) == (absent == "test")
    cells = tables.bootstrap_intervals([run], n_resamples=20, **chosen)
    assert (cells.loc["CE", "Sensitivity"] == "–") == (absent == "test")
    assert cells.loc["CE", "Specificity"] != "–"


def test_an_image_that_changed_since_is_named_before_its_result_counts(own, tmp_path):
    manifest = (own / "manifest.csv").read_text().splitlines()
    file = next(line for line in manifest if ",train," in line).split(",")[4]
    (own / file).write_bytes(b"not an image")
    with pytest.raises(DataError, match=file):
        fit(tiny(), data_root=own, runs_root=tmp_path / "runs", progress=False)


# Batches -----------------------------------------------------------------------------------------


def batches(root, seed=None, augmented=True, number=20, config=None):
    config = config or tiny()
    found = datasets.load(config, root)
    feed = feeds.make(found.train, found, config, CPU, augmented=augmented)
    stream = None if seed is None else torch.Generator().manual_seed(seed)
    order = torch.arange(number).flip(0)
    return torch.cat([feed.images(p) for p in feed.batches(order, 8, stream)])


def test_batches_do_not_depend_on_workers_or_cache(root, monkeypatch):
    monkeypatch.setenv("HML_LOADER_WORKERS", "0")
    expected = batches(root, 1)
    assert expected.shape == (20, 3, SIDE, SIDE)
    monkeypatch.setenv("HML_LOADER_WORKERS", "2")
    assert batches(root, 1).equal(expected)
    monkeypatch.setenv("HML_IMAGE_CACHE_GB", "0")
    assert batches(root, 1).equal(expected)
    assert not batches(root, 2).equal(expected)


def test_workers_share_one_cache(root, monkeypatch):
    monkeypatch.setenv("HML_LOADER_WORKERS", "2")
    found = datasets.load(tiny(), root)
    feed = feeds.make(found.train, found, tiny(), CPU)
    first = torch.cat(list(feed.batches(torch.arange(16), 4)))
    assert feed.files.cache.known[:16].all()
    monkeypatch.setattr(feeds._Files, "_opened", lambda *a: pytest.fail("read again"))
    assert torch.cat(list(feed.batches(torch.arange(16), 4))).equal(first)


def test_validation_and_test_are_clean(root):
    """The pixels of the files, normalised; the same every time."""
    from PIL import Image

    config = tiny()
    found = datasets.load(config, root)
    feed = feeds.make(found.test, found, config, CPU)
    (payload,) = feed.batches(torch.arange(4), 4)
    for index in range(4):
        with Image.open(found.test.folder / found.test.names[index]) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=float) / 255
        expected = (pixels - found.mean) / found.std
        assert feed.images(payload)[index].numpy() == pytest.approx(
            expected.transpose(2, 0, 1), abs=1e-5
        )


def test_augmentation_stays_near_the_image_and_varies(root):
    clean = batches(root, augmented=False)
    first, second = batches(root, 1), batches(root, 2)
    changed = (first - second).abs().mean(dim=(1, 2, 3))
    assert (changed > 0.01).all()
    # Brightness and contrast move by a tenth, so that an image keeps its mean about.
    assert (first.mean(dim=(2, 3)) - clean.mean(dim=(2, 3))).abs().max() < 2.0
    assert batches(root, 1, config=tiny(augmentation="none")).equal(clean)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HML_LOADER_WORKERS", "many"), ("HML_LOADER_WORKERS", "1e5"), ("HML_IMAGE_CACHE_GB", "-1")],
)
def test_a_wrong_variable_is_named(root, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(DataError, match=variable):
        batches(root)


# What a network starts from ----------------------------------------------------------------------


def test_the_first_tensors_are_frozen(root):
    config = tiny(model="efficientnet_b0", frozen=0.68, image_size=SIDE)
    trainer = Trainer(config, datasets.load(config, root), CPU)
    tensors = list(trainer.model.parameters())
    frozen = [not tensor.requires_grad for tensor in tensors]
    assert frozen == [i < int(0.68 * len(tensors)) for i in range(len(tensors))]
    before = [tensor.detach().clone() for tensor in tensors]
    next(trainer.train_epoch())
    changed = [not old.equal(new) for old, new in zip(before, tensors, strict=True)]
    assert not any(c for c, f in zip(changed, frozen, strict=True) if f)
    assert all(c for c, f in zip(changed, frozen, strict=True) if not f)
    assert isinstance(trainer.phase.optimizer, torch.optim.Adam)


@pytest.mark.parametrize("name", slow_but(["resnet18"], ["efficientnet_b3", "resnet18"]))
def test_a_file_of_weights_is_taken(name, tmp_path):
    donor = models.build(name, 5)
    torch.save(
        {**donor.backbone.state_dict(), "classifier.1.weight": torch.ones(2)}, tmp_path / "w"
    )
    model = models.build(name, 3)
    started = models.load_weights(model, str(tmp_path / "w"))
    digest = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    assert started == {"weights": "w", "sha256": digest}
    for key, value in donor.backbone.state_dict().items():
        assert model.backbone.state_dict()[key].equal(value)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert model.features(torch.zeros(2, 3, 64, 64)).shape == (2, model.linear.in_features)


@pytest.mark.parametrize(
    "form", ["state_dict", "model", "several GPUs", "safetensors", "of a run", "of a run's file"]
)
def test_weights_are_found_however_a_file_holds_them(form, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    donor = models.build("resnet18", 5)
    state, path = donor.backbone.state_dict(), tmp_path / "w"
    if form == "safetensors":
        safetensors.save_file(state, path)
    elif form == "of a run's file":
        kept, _ = trained.kept(donor, donor.classifier, None, {})
        path.write_bytes(kept_weights.to_bytes(kept, {}))
    else:
        held = {
            "state_dict": {"epoch": 3, "state_dict": state},
            "model": {"model": state},
            "several GPUs": {f"module.{key}": value for key, value in state.items()},
            "of a run": donor.state_dict(),
        }[form]
        torch.save(held, path)
    model = models.build("resnet18", 3)
    models.load_weights(model, str(path))
    for key, value in state.items():
        assert model.backbone.state_dict()[key].equal(value)


def test_damaged_safetensors_and_those_of_another_network_are_refused(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, path = models.build("resnet18", 3), tmp_path / "w.safetensors"
    content = safetensors.save({"conv1.weight": torch.zeros(64, 3, 7, 7)})
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'w\.safetensors' does not hold .* resnet18"):
        models.load_weights(model, str(path))
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="Cannot read the weights"):
        models.load_weights(model, str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.to("meta"), "does not hold the weights of"),
        (lambda one: one.to_sparse(), "does not hold the weights of"),
        (lambda one: one.to(torch.complex64), "does not hold the weights of"),
        (lambda one: one > 0, "does not hold the weights of"),
        (lambda one: one * float("nan"), "holds weights that are no numbers: conv1.weight"),
    ],
    ids=["without values", "sparse", "complex", "bool", "NaN"],
)
def test_weights_that_cannot_be_taken_are_refused(change, said, tmp_path):
    state = models.build("resnet18", 5).backbone.state_dict()
    torch.save(state | {"conv1.weight": change(state["conv1.weight"])}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=said):
        models.load_weights(models.build("resnet18", 3), str(tmp_path / "w.pth"))


def test_a_file_of_other_weights_is_refused(tmp_path):
    torch.save(models.build("resnet18", 5).backbone.state_dict(), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"'w.pth' does not hold .* efficientnet_b0"):
        models.load_weights(models.build("efficientnet_b0", 5), str(tmp_path / "w.pth"))
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04")
    for path in ("damaged.pth", "missing.pth"):
        with pytest.raises(DataError, match="Cannot read the weights"):
            models.load_weights(models.build("resnet18", 5), str(tmp_path / path))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """ResNet-18's "ImageNet" weights on a loopback server, in torch.hub's naming with the hash."""
    from torchvision.models import ResNet18_Weights

    folder = tmp_path / "server"
    folder.mkdir()
    state = models.build("resnet18", 5).backbone.state_dict()
    torch.save({**state, "fc.weight": torch.ones(1)}, folder / "w")
    digest = hashlib.sha256((folder / "w").read_bytes()).hexdigest()
    name = f"resnet18-{digest[:8]}.pth"
    (folder / "w").rename(folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    handler = functools.partial(quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/{name}"
        entry = ResNet18_Weights.DEFAULT.value
        before = entry.url
        object.__setattr__(entry, "url", address)
        yield folder / name, state, digest
        object.__setattr__(entry, "url", before)
        server.shutdown()


def test_imagenet_weights_are_downloaded_and_recorded(published):
    _, state, digest = published
    model = models.build("resnet18", 3)
    started = models.load_weights(model, "imagenet")
    assert started["weights"] == "imagenet"
    assert started["sha256"] == digest
    assert model.backbone.state_dict()["conv1.weight"].equal(state["conv1.weight"])


def test_a_damaged_download_is_refused(published):
    path, _, _ = published
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="are damaged"):
        models.load_weights(models.build("resnet18", 3), "imagenet")


@pytest.mark.parametrize("make", [hole, os.mkfifo, os.mkdir], ids=["hole", "pipe", "folder"])
def test_what_is_no_file_in_the_place_of_weights_is_named(make, published):
    path, _, _ = published
    cached = Path(torch.hub.get_dir()) / "checkpoints" / path.name
    cached.parent.mkdir(parents=True)
    make(cached)
    with pytest.raises(DataError, match=rf"Cannot read '.*{path.name}': it (has|is no)"):
        models.load_weights(models.build("resnet18", 3), "imagenet")


def test_a_server_of_weights_that_falls_silent_counts_as_unreachable(published, monkeypatch):
    from torchvision.models import ResNet18_Weights

    brief = functools.partial(downloads.patience, 0.2)
    monkeypatch.setattr(imagenet.downloads, "patience", brief)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/resnet18-01234567.pth"
        object.__setattr__(ResNet18_Weights.DEFAULT.value, "url", address)
        with pytest.warns(UserWarning, match=r"cannot be reached \(.*timed out"):
            started = models.load_weights(models.build("resnet18", 3), "imagenet")
    assert started["weights"] == "random"


def test_a_disk_without_room_for_weights_is_no_server_that_is_not_reached(published, monkeypatch):
    """A run that starts at random instead would be another one."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.hub, "download_url_to_file", full)
    with pytest.raises(DataError, match=r"cannot be stored in .*: No space left on device"):
        models.load_weights(models.build("resnet18", 3), "imagenet")


def test_weights_without_end_are_ended(published, monkeypatch):
    monkeypatch.setattr(imagenet.files, "LARGEST_DATA", 1000)
    with pytest.raises(RunError, match="gives more than 1,000 bytes"):
        models.load_weights(models.build("resnet18", 3), "imagenet")


def test_unreachable_weights_are_said_and_recorded(published, root, tmp_path):
    path, _, _ = published
    path.unlink()
    config = tiny(model="resnet18", weights="imagenet", epochs=1)
    with pytest.warns(UserWarning, match="cannot be reached"):
        run = fit(config, data_root=root, runs_root=tmp_path / "runs", progress=False)
    assert run.initialised_from == "random"
    assert "not reachable" in run.metrics["initialisation"]["why"]
    with pytest.warns(UserWarning, match="was found finished; it started at random") as told:
        again = fit(config, data_root=root, runs_root=tmp_path / "runs", progress=False)
    assert again.path == run.path
    assert f"The run {run.run_id}" in str(told[0].message)


# Training ----------------------------------------------------------------------------------------


def test_official_is_the_cycle_that_never_leaves_its_foot():
    config = RunConfig(dataset="isic2018", recipe="hml1", protocol="official")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    cycle = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=1e-5, max_lr=1e-3, mode="triangular2", cycle_momentum=False
    )
    expected = []
    for _ in range(config.epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    rates = schedule.learning_rates(config)
    assert rates == pytest.approx(expected, rel=1e-6)
    assert rates.min() == pytest.approx(1e-5)
    assert rates.max() < 6e-5
    long = RunConfig(
        dataset="isic2018", protocol="official", epochs=9000, early_stopping=0, image_size=8
    )
    assert schedule.learning_rates(long)[2000] == pytest.approx(1e-3)
    assert schedule.learning_rates(long)[6000] == pytest.approx(5.05e-4)  # half as high


def test_controlled_is_one_cycle_for_every_recipe():
    rates = schedule.learning_rates(RunConfig(dataset="isic2018", recipe="ce"))
    assert rates.argmax() in (49, 50)
    assert rates.max() == pytest.approx(1e-3, rel=0.02)
    assert rates[[0, -1]] == pytest.approx(1e-5, rel=1.1)
    assert (schedule.learning_rates(RunConfig(dataset="isic2018", recipe="dhml1")) == rates).all()


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(root, tmp_path):
    config = tiny(recipe="dhml1", epochs=4)
    whole = fit(config, data_root=root, runs_root=tmp_path / "whole", progress=False)
    trainer = Trainer(config, datasets.load(config, root), CPU)
    folder = runs.RunFolder(tmp_path / "parts", config)
    folder.begin({}, trainer.splits.manifest())
    for _ in range(3):
        list(trainer.train_epoch())
        trainer.end_epoch()
    folder.checkpoint(trainer.state())
    again = fit(config, data_root=root, runs_root=tmp_path / "parts", progress=False)
    assert again.predictions[0].tobytes() == whole.predictions[0].tobytes()
    assert again.confidence.tobytes() == whole.confidence.tobytes()
    assert again.features.tobytes() == whole.features.tobytes()
    for name, chosen in whole.metrics["selections"].items():
        assert again.metrics["selections"][name] == chosen


@pytest.mark.slow
def test_early_stopping_waits_for_the_last_stage(root, tmp_path):
    """With a rate of next to nothing the first epoch stays the best."""
    still = {"learning_rate": 1e-12, "early_stopping": 2, "epochs": 12, "augmentation": "none"}
    one = fit(tiny(**still), data_root=root, runs_root=tmp_path, progress=False)
    best = one.metrics["selections"]["best_validation"]["epoch"]
    assert len(one.history) == one.metrics["selections"]["last"]["epoch"] == best + 2
    two = fit(
        tiny(recipe="hml1", stage_ends=(6,), **still),
        data_root=root,
        runs_root=tmp_path,
        progress=False,
    )
    assert len(two.history) == 8
    assert two.confidence.shape[0] == 8
    off = tiny(**{**still, "early_stopping": 0, "epochs": 5})
    assert len(fit(off, data_root=root, runs_root=tmp_path, progress=False).history) == 5


def test_the_record_holds_what_the_pictures_need(finished):
    run = finished[0]
    counts = run.confidence.sum(axis=2)  # (E, C): every training image once an epoch
    assert (counts == run.class_counts).all()
    assert run.test_logits("best_validation").shape == run.predictions[0].shape
    assert run.features.shape == (len(run.predictions[1]), 64)
    assert run.synthetic
    best = run.selection("best_validation")
    predictions = run.test_logits("best_validation").argmax(axis=1)
    measured = metrics.quick(predictions, run.predictions[1], len(run.class_names))
    assert best["balanced_accuracy"] == pytest.approx(measured["balanced_accuracy"])
    melanoma = run.class_names.index("melanoma")
    truth = run.predictions[1] == melanoma
    assert best["sensitivity"] == pytest.approx((predictions[truth] == melanoma).mean())
    assert best["specificity"] == pytest.approx((predictions[~truth] != melanoma).mean())


@pytest.mark.begun_first
@pytest.mark.slow
def test_it_learns_something(root, tmp_path):
    """Fifteen epochs beat the guess of one class: 1/7 balanced accuracy."""
    config = tiny(epochs=15, early_stopping=0, learning_rate=1e-2)
    run = fit(config, data_root=root, runs_root=tmp_path, progress=False)
    assert run.selection("last")["balanced_accuracy"] > 0.35


# Metrics, tables, figures ------------------------------------------------------------------------


def test_macro_auc_is_scikit_learns():
    random = np.random.default_rng(0)
    logits = random.normal(size=(60, 4))[random.integers(0, 60, 200)]  # with ties
    targets = random.integers(0, 4, 200)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = roc_auc_score(targets, probability, multi_class="ovr")
    assert metrics.macro_auc(logits, targets) == pytest.approx(expected)
    assert metrics.macro_auc(logits, np.minimum(targets, 2)) == pytest.approx(
        np.mean([roc_auc_score(np.minimum(targets, 2) == c, probability[:, c]) for c in range(3)])
    )
    assert np.isnan(metrics.macro_auc(logits, np.zeros(200, dtype=int)))


def test_one_against_rest():
    found = metrics.one_against_rest(np.array([1, 1, 0, 2]), np.array([1, 0, 1, 2]), 1)
    assert found == {"sensitivity": 0.5, "specificity": 0.5}
    assert np.isnan(metrics.one_against_rest(np.array([0]), np.array([0]), 1)["sensitivity"])


def test_stratified_bootstrap_covers_the_truth():
    """Mean over classes of Bernoulli outcomes: the interval is about that of its standard error."""
    targets = np.repeat([0, 1], [400, 100])
    hits = np.random.default_rng(1).random(500) < np.where(targets == 0, 0.9, 0.5)

    def balanced(chosen):
        return np.array([np.mean([hits[chosen][targets[chosen] == c].mean() for c in (0, 1)])])

    low, high = stats.stratified_bootstrap(targets, balanced)
    error = 0.5 * np.sqrt(0.09 / 400 + 0.25 / 100)
    assert (high - low)[0] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert low[0] < balanced(np.arange(500))[0] < high[0]
    with pytest.raises(ValueError, match="confidence"):
        stats.stratified_bootstrap(targets, balanced, confidence=1.5)


def test_tables_say_what_they_are(finished):
    frame = runs.load(finished[0].path.parent)
    assert "SYNTHETIC images: nothing below is a result" in tables.protocol(frame)
    table = tables.comparison(frame, metrics=tables.DERMOSCOPY_METRICS, selection="best_validation")
    assert {"AUC", "Sensitivity", "Specificity"} <= set(table.columns)
    beside = tables.beside_author_runs(frame)
    assert (
        beside.loc["DHML1", "Authors"] == "81.7 ± 1.4"
    )  # their ten runs of L_f, then weighted L_c
    assert beside.loc["CE", "n of theirs"] == "10"
    differs = "resnet8, 4 epochs, 32 pixels, random initialisation"
    assert set(beside["Comparable"]) == {f"no: ours SHORTENED ({differs}); another split"}
    full = frame.assign(
        model="efficientnet_b3", epochs=100, image_size=300, initialised_from="imagenet"
    )
    assert set(tables.beside_author_runs(full)["Comparable"]) == {"no: another split"}
    intervals = tables.bootstrap_intervals(finished, positive_class="melanoma", n_resamples=50)
    mean = 100 * frame[frame["recipe"] == "ce"]["best_validation_macro_auc"].mean()
    assert intervals.loc["CE", "AUC"].startswith(f"{mean:.1f} [")


def test_departures_from_the_published_protocol_are_named(finished):
    shown = datasets.departures("isic2018", runs.load(finished[0].path.parent).iloc[0])
    assert shown == "resnet8, 4 epochs, 32 pixels, random initialisation"
    published = {"model": "efficientnet_b3", "epochs": 100, "image_size": 300}
    assert not datasets.departures("isic2018", {**published, "initialised_from": "imagenet"})
    assert datasets.departures("isic2018", {**published, "initialised_from": "random"})


def test_confidence_columns_sum_to_all_images(finished):
    made = plots.confidence(finished)
    pictures = [ax.images[0].get_array() for ax in made.axes if ax.images]
    assert len(pictures) == 4
    shares = plots.dermoscopy._shares(finished[:2], 0)
    assert shares.sum(axis=0) == pytest.approx(100)
    assert "SYNTHETIC" in made.get_suptitle()


def test_roc_is_that_of_the_class(finished):
    (ax,) = plots.roc_curves(finished, "melanoma").axes
    run_areas = []
    for run in finished[:2]:
        truth = run.predictions[1] == run.class_names.index("melanoma")
        logits = run.test_logits("best_validation").astype(float)
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        run_areas.append(roc_auc_score(truth, probability[:, run.class_names.index("melanoma")]))
    label = ax.figure.legends[0].get_texts()[0].get_text()
    assert f"AUC {100 * np.mean(run_areas):.1f}" in label
    with pytest.raises(ValueError, match="positive_class"):
        plots.roc_curves(finished, "wart")


def test_features_show_every_test_image(finished):
    made = plots.features(finished[-1])
    drawn = sum(len(c.get_offsets()) for c in made.axes[0].collections)
    assert drawn == len(finished[-1].predictions[1])
