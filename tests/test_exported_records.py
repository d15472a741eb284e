"""Records of runs: small, read and verified like the run, with every metric that needs no logits."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from hml_core import metrics
from hml_core.config import RunConfig
from hml_core.errors import RunError
from hml_core.runs import Run, RunFolder, compact_predictions, exporting, listing
from hml_core.runs.record import EXPORTED, RECORDED
from hml_core.system import files
from hml_core.trainer import fit
from hml_lab import plots, stats
from hml_lab.cli import main

MOST_BYTES = 150_000  # of a record


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    configs = [RunConfig(recipe=name, epochs=2, batch_size=64) for name in ("ce", "hml1")]
    return [fit(config, runs_root=root, progress=False) for config in configs]


@pytest.fixture
def records(whole, tmp_path) -> list[Run]:
    made = exporting.export(whole[0].path.parent, tmp_path / "records")
    return sorted((Run(path).verify() for path in made), key=lambda run: run.config.recipe)


def test_the_note_on_the_images_goes_along(whole, tmp_path):
    """What was RECOMPRESSED says so in every caption and title, wherever the records are copied to."""
    root = tmp_path / "runs"
    shutil.copytree(whole[0].path, root / whole[0].run_id)
    (root / "data_note.txt").write_text("RECOMPRESSED images\n")
    (path,) = exporting.export(root, tmp_path / "records")
    assert "RECOMPRESSED images" in plots.per_class_accuracy([Run(path)]).axes[0].get_title()


def test_a_record_is_read_like_the_run(whole, records):
    for run, record in zip(whole, records, strict=True):
        assert record.is_compact
        assert not run.is_compact
        assert record.metrics == run.metrics
        assert record.config == run.config
        assert record.manifest == run.manifest
        assert record.history.equals(run.history)
        for selection in ("last", "best_validation"):
            kept, there = record.test_classes(selection), run.test_classes(selection)
            np.testing.assert_array_equal(kept, there)
            assert kept.dtype == there.dtype
        np.testing.assert_array_equal(record.test_targets, run.test_targets)
    frames = [listing.load(one[0].path.parent) for one in (whole, records)]
    assert frames[0].equals(frames[1])
    assert fit(records[0].config, runs_root=records[0].path.parent, progress=False).is_compact
    assert not (records[0].path.parent / ".damaged").exists()


def test_metrics_without_logits_can_be_computed_again(whole, records):
    """Accuracies and confusion to the bit; calibration as far as float16 goes."""
    run, record = whole[1], records[1]
    for selection in ("last", "best_validation"):
        kept = record.test_predictions(selection)
        again = metrics.summary_of(kept, record.test_targets, record.class_counts)
        measured = run.selection(selection)
        for name, value in again.items():
            exact = name not in ("ece", "nll")
            assert value == pytest.approx(measured[name], abs=0 if exact else 2e-3, nan_ok=True)
        accuracy = metrics.per_class_accuracy(kept.classes, record.test_targets, 10)
        np.testing.assert_array_equal(accuracy, run.per_class_accuracy(selection))
        there = run.test_predictions(selection)
        np.testing.assert_allclose(kept.confidence, there.confidence, atol=5e-4)
        np.testing.assert_allclose(kept.log_probability, there.log_probability, rtol=5e-4)
    drawn = [plots.confusion_matrix(both, ["ce", "hml1"]) for both in (whole, records)]
    values = [figure.axes[0].images[0].get_array() for figure in drawn]
    np.testing.assert_array_equal(*values)


def test_a_bootstrap_over_images_gives_the_interval_of_the_run(whole, records):
    intervals = []
    for run in (whole[0], records[0]):
        classes, targets = run.test_classes(), run.test_targets

        def measure(chosen, classes=classes, targets=targets):
            return [metrics.quick(classes[chosen], targets[chosen], 10)["balanced_accuracy"]]

        intervals.append(stats.stratified_bootstrap(targets, measure, n_resamples=20))
    np.testing.assert_array_equal(*intervals)


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda run: run.predictions, "test logits"),
        (lambda run: run.test_logits("best_validation"), "test logits"),
        (lambda run: run.confidence, "the confidence of training images"),
        (lambda run: run.features, "features"),
    ],
)
def test_what_was_left_out_is_said(records, read, what):
    with pytest.raises(RunError, match=rf"is in compact form, without {what}: expected the folder"):
        read(records[0])
    with pytest.raises(ValueError, match="holds no test predictions of 'best_test'"):
        records[0].test_predictions("best_test")


COMPACT = (*EXPORTED, compact_predictions.ARRAYS, compact_predictions.SEAL, "manifest")


@pytest.mark.parametrize("name", COMPACT)
@pytest.mark.parametrize("damage", ["flipped", "gone", "cut off"])
def test_damage_is_noticed(records, name, damage):
    record, other = records
    path = record.path / name
    if name == "manifest":  # which both share
        (path,) = (record.path.parent / compact_predictions.MANIFESTS).iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x15
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[:-7])
    with pytest.raises(RunError, match=f"{record.run_id} is damaged"):
        Run(record.path).verify()
    if name == "manifest":
        with pytest.raises(RunError, match="is damaged"):
            Run(other.path).verify()
    else:
        Run(other.path).verify()


@pytest.mark.parametrize("gone", [*COMPACT, *RECORDED])
def test_each_record_says_itself_which_files_it_has(whole, records, tmp_path, gone):
    """A whole one has its predictions and manifest, an exported one what stands in their place."""
    root = tmp_path / "all"
    run = shutil.copytree(whole[0].path, root / whole[0].run_id).name
    everything = [root]
    if gone in COMPACT:
        shutil.copytree(records[0].path.parent, tmp_path / "small")
        everything.append(tmp_path / "small")
    for folder in everything:
        (folder / run / gone).unlink(missing_ok=True)
        if gone == "manifest":
            shutil.rmtree(folder / compact_predictions.MANIFESTS, ignore_errors=True)
            shutil.rmtree(folder / whole[1].run_id, ignore_errors=True)  # which shared it
        lost = folder.name == "small" or gone in (*RECORDED, "metrics.json")
        if lost:
            with pytest.warns(UserWarning, match=f"is damaged: .*{gone}.* is not"):
                assert run not in str(listing.load(folder))
        said = CliRunner().invoke(main, ["runs", "verify", "--runs-root", str(folder)])
        assert said.exit_code == lost, said.output
        number = len(listing.finished(folder))
        assert f"{number} finished run" in said.output
        assert f": {number - lost} hold" in said.output
        assert (f"The run {run} is damaged" in said.output) == lost


def test_a_record_without_predictions_says_that_it_was_exported_so(whole, tmp_path):
    """As those of ``results/records/cifar10_lt_short``; no other record holds without them."""
    folder = tmp_path / "small" / whole[0].run_id
    folder.mkdir(parents=True)
    for name in EXPORTED:
        shutil.copyfile(whole[0].path / name, folder / name)
    with pytest.raises(RunError, match=r"is damaged: manifest\.json is not there"):
        Run(folder).verify()
    metrics = (folder / "metrics.json").read_bytes()
    seal = compact_predictions.content(folder.name, None, metrics)[compact_predictions.SEAL]
    (folder / compact_predictions.SEAL).write_bytes(seal)
    record = Run(folder).verify()
    assert not record.has_predictions
    for read in (lambda: record.predictions, lambda: record.features, lambda: record.manifest):
        with pytest.raises(RunError, match="was exported without its"):
            read()
    (again,) = exporting.export(folder.parent, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert Run(again).verify().metrics == record.metrics


def test_a_run_that_is_not_finished_has_lost_nothing(whole, tmp_path):
    root = tmp_path / "runs"
    folder = shutil.copytree(whole[0].path, root / whole[0].run_id)
    (folder / "metrics.json").unlink()
    assert listing.finished(root) == [folder]
    with RunFolder(root, whole[0].config).locked():  # it is being written
        assert listing.finished(root) == []
    assert listing.finished(root) == [folder]
    for name in ("checkpoint.pt", "failed.json"):  # it goes on, or has said why not
        (folder / name).touch()
        assert listing.finished(root) == []
        (folder / name).unlink()
    (folder / "predictions.npz").unlink()
    assert listing.finished(root) == []


def test_the_stored_records_hold(repository):
    for note in sorted((repository / "results" / "records").glob("*/*/metrics.json")):
        Run(note.parent).verify()


def test_a_seal_belongs_to_its_own_metrics(records):
    first, second = (record.path for record in records)
    for name in (compact_predictions.ARRAYS, compact_predictions.SEAL):
        shutil.copyfile(first / name, second / name)
    with pytest.raises(RunError, match=r"compact\.json is not what was written"):
        Run(second).verify()


def test_the_same_call_adds_what_is_new_and_repairs_what_is_damaged(whole, tmp_path):
    root, target = tmp_path / "runs", tmp_path / "records"
    shutil.copytree(whole[0].path, root / whole[0].run_id)
    (first,) = exporting.export(root, target)
    written = (first / "metrics.json").stat().st_mtime_ns
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    shutil.copytree(whole[1].path, root / whole[1].run_id)
    assert len(exporting.export(root, target)) == 2
    assert (first / "metrics.json").stat().st_mtime_ns == written
    assert len(list((target / compact_predictions.MANIFESTS).iterdir())) == 1
    (first / "history.csv").write_text("epoch\n")
    with pytest.warns(UserWarning, match=r"is damaged: history.csv .* It was set aside in "):
        exporting.export(root, target)
    (damaged,) = (target / ".damaged").iterdir()
    assert (damaged / "history.csv").read_text() == "epoch\n"
    Run(first).verify()
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    # A record can be made of records.
    (again, _) = exporting.export(target, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before


def _newer(folder) -> None:
    metrics = files.unsealed(json.loads((folder / "metrics.json").read_text()))
    metrics["selections"]["last"]["balanced_accuracy"] = "high"
    files.write_json(folder / "metrics.json", files.sealed({**metrics, "format": 99}))


def _another_time(folder) -> None:
    metrics = files.unsealed(json.loads((folder / "metrics.json").read_text()))
    files.write_json(folder / "metrics.json", files.sealed({**metrics, "seconds": 1.0}))


def _linked(folder) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def _begun(folder) -> None:
    (folder / "metrics.json").unlink()
    (folder / "checkpoint.pt").write_bytes(b"of a run that goes on")


def test_no_manifest_is_written_where_a_link_leads(whole, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / compact_predictions.MANIFESTS).symlink_to("elsewhere")
    with pytest.raises(RunError, match="is a link, and nothing is written where it leads"):
        exporting.export(whole[0].path.parent, tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())


def _of_somebody(folder) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_of_somebody, "its config.json is not that of the run."),
        (_newer, "written by a version of this package that this one does not understand"),
        (_another_time, "it holds, and is the same run trained another time"),
        (_linked, "it is a link, or no folder"),
        (_begun, "it is a run that was begun"),
    ],
)
def test_what_lies_at_the_destination_is_never_written_over(whole, tmp_path, change, said):
    """Kept weights, a newer version's record, what a link leads to; the others are exported."""
    root, target = whole[0].path.parent, tmp_path / "records"
    folder = shutil.copytree(whole[0].path, target / whole[0].run_id)
    (folder / "weights.safetensors").write_bytes(b"kept")
    change(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = ["runs", "export", str(target), "--runs-root", str(root)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "Exported 1, and left 1 as they are." in result.output
    assert f"{folder}: " in result.output
    assert said in result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    Run(target / whole[1].run_id).verify()


def test_an_export_waits_for_nobody_who_works_on_the_record(whole, tmp_path):
    (record, _) = exporting.export(whole[0].path.parent, tmp_path)
    (record / "metrics.json").unlink()
    run = Run(whole[0].path.parent / record.name)
    with (
        RunFolder(tmp_path, run.config).locked(),
        pytest.raises(RunError, match=r"Exported 1, .*\n.*: a process works on it\."),
    ):
        exporting.export(whole[0].path.parent, tmp_path)
    exporting.export(whole[0].path.parent, tmp_path)  # what was left half exported is made whole
    Run(record).verify()
    assert not (tmp_path / ".damaged").exists()
    (record / "metrics.json").unlink()
    (record / "weights.safetensors").write_bytes(b"kept")
    exporting.export(whole[0].path.parent, tmp_path)
    (lost,) = (tmp_path / ".damaged").iterdir()
    assert (lost / "weights.safetensors").read_bytes() == b"kept"


def test_what_does_not_hold_is_not_published(whole, tmp_path):
    root = tmp_path / "runs"
    folder = shutil.copytree(whole[0].path, root / whole[0].run_id)
    (folder / "manifest.json").write_text("{}")
    (root / "going").mkdir()
    (root / "going" / "checkpoint.pt").write_bytes(b"of a run that is not finished")
    with pytest.warns(UserWarning, match=r"is damaged: manifest.json.* It is left out"):
        assert exporting.export(root, tmp_path / "records") == []
    shutil.copyfile(whole[0].path / "manifest.json", folder / "manifest.json")
    run = Run(folder)
    run.__dict__["_arrays"] = {"logits": np.eye(10), "targets": np.arange(10)}
    with pytest.raises(RunError, match=r"expected the same\. It was not exported"):
        exporting._packed(run)
    run.__dict__["_arrays"] = {"targets": np.arange(10)}
    with pytest.raises(RunError, match=r"cannot be read .*logits.* It was not exported"):
        exporting._packed(run)


N, LOGITS = np.arange(10), np.eye(10, dtype=np.float32)
UNSOUND = {
    "targets in columns": {"targets": N[:, None]},
    "one target": {"targets": np.int64(3)},
    "fewer targets": {"targets": N[:-1]},
    "no target": {"targets": N[:0]},
    "targets as text": {"targets": N.astype(str)},
    "targets beyond the classes": {"targets": N + 5},
    "targets below them": {"targets": N - 1},
    "parts of targets": {"targets": N * 0.5},
    "three dimensions": {"logits": LOGITS[:, :, None]},
    "one class": {"logits": LOGITS[:, :1]},
    "more classes": {"logits": np.tile(LOGITS, 2)},
    "NaN": {"logits": LOGITS * np.nan},
    "text": {"logits": LOGITS.astype(str)},
    "complex": {"logits": LOGITS.astype(np.complex64)},
    "whole numbers": {"logits": LOGITS.astype(int)},
    "a further set as text": {"more_targets": N.astype(str), "more_logits": LOGITS},
    "odd predictions": {"predictions": N.astype(str), "prediction_confidence": N},
}


@pytest.mark.parametrize("change", UNSOUND.values(), ids=UNSOUND)
def test_predictions_that_are_none_are_not_published_and_the_others_are(change, whole, tmp_path):
    """Their checksums hold: somebody else's program wrote them."""
    root = tmp_path / "runs"
    for run in whole:
        shutil.copytree(run.path, root / run.run_id)
    folder = root / whole[0].run_id
    np.savez(folder / "predictions.npz", **{"logits": LOGITS, "targets": N, **change})
    metrics = files.unsealed(json.loads((folder / "metrics.json").read_text()))
    metrics["files"]["predictions.npz"] = files.sha256(folder / "predictions.npz")
    files.write_json(folder / "metrics.json", files.sealed(metrics))
    with pytest.raises(RunError, match=rf"Exported 1, .*\n.*{folder.name}.* It was not exported"):
        exporting.export(root, tmp_path / "records")
    assert not (tmp_path / "records" / folder.name).exists()
    Run(tmp_path / "records" / whole[1].run_id).verify()


@pytest.mark.parametrize("kind", ["U5", "c8", "f4", "M8[s]", "?"])
def test_a_compact_record_with_something_else_is_named(kind, whole, tmp_path):
    """Its seal holds: somebody else's program wrote it."""
    exporting.export(whole[0].path.parent, tmp_path)
    run = Run(tmp_path / whole[0].run_id)
    arrays = dict(np.load(run._arrays_path))
    arrays["log_probability"] = arrays["log_probability"].astype("i8").astype(kind)
    np.savez(run._arrays_path, **arrays)
    said = "predictions_compact.npz': expected 'log_probability' to be whole numbers or float16"
    with pytest.raises(RunError, match=said):
        Run(run.path).test_predictions()


def test_curves_can_be_drawn_again_where_patients_are_known_and_images_few():
    """Of medical images, one test split or several; of others the classes and how sure they are."""
    logits = np.array([[2.0, -1.0], [0.5, 0.25], [-3.0, 1.0]], np.float32)
    arrays = {"logits": logits, "targets": np.array([0, 1, 1])}

    def kept(**more) -> list[str]:
        packed = np.load(io.BytesIO(compact_predictions.pack({**arrays, **more})))
        return sorted(name for name in packed.files if name.endswith("logits"))

    assert kept() == []
    assert kept(clusters=np.array([0, 0, 1])) == ["logits"]
    many = np.zeros((compact_predictions.MOST_NUMBERS, 2), np.float32)
    more = {"targets": np.zeros(len(many), int), "clusters": np.arange(len(many))}
    assert kept(logits=many, **more) == []


def test_a_record_of_cifar_100_stays_below_the_limit(records):
    """Predictions of CIFAR-100 without any order in them, at two epochs; beside them lie 45 kB."""
    random = np.random.default_rng(0)
    arrays = {
        "logits": 3 * random.standard_normal((10_000, 100)).astype(np.float32),
        "best_validation_logits": random.standard_normal((10_000, 100)).astype(np.float32),
        "targets": random.integers(0, 100, 10_000),
        "confidence": np.zeros((200, 100, 20), np.int32),
    }
    assert len(compact_predictions.pack(arrays)) < 105_000
    sealed = json.loads((records[0].path / compact_predictions.SEAL).read_text())
    assert set(sealed) == {"run_id", "metrics", "files", "checksum"}
    assert sum(path.stat().st_size for path in records[0].path.iterdir()) < MOST_BYTES
