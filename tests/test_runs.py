"""Run records: complete, verifiable, and damage is noticed, set aside and repaired."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from hml_core.config import RunConfig
from hml_core.errors import ForeignRecordError, RunError, UnreachableRecordError
from hml_core.runs import Run, RunFolder, listing, record
from hml_core.runs.folder import shelve
from hml_core.system import files
from hml_core.trainer import fit
from hml_lab.cli import main
from tests.quick import slow_but


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """Trained once; no test writes into it."""
    config = RunConfig(dataset="digits", recipe="hml1", epochs=2, batch_size=64)
    return fit(config, runs_root=tmp_path_factory.mktemp("trained"), progress=False)


@pytest.fixture
def done(trained, tmp_path) -> Run:
    """A record of this test's own."""
    return Run(shutil.copytree(trained.path, tmp_path / trained.run_id))


@pytest.mark.parametrize("name", ["copy of it", "digits-exp20-ce-s0-0000000000"])
def test_a_record_in_a_folder_of_another_name_is_told_apart_from_a_damaged_one(name, done):
    moved = done.path.rename(done.path.with_name(name))
    with pytest.raises(RunError, match=f"it is the record of '{done.run_id}', and its folder was"):
        Run(moved)


def test_a_record_holds_what_it_promises(done):
    names = {path.name for path in done.path.iterdir()}
    assert names == {*record.RECORDED, "metrics.json"}
    environment = json.loads((done.path / "environment.json").read_text())
    assert environment["versions"]["torch"]
    assert environment["device_type"] == "cpu"
    assert "git_commit" in environment
    manifest = json.loads((done.path / "manifest.json").read_text())
    assert len(manifest["train_indices"]) == done.class_counts.sum()
    assert manifest["class_counts"] == done.class_counts.tolist()
    assert RunConfig.from_json((done.path / "config.json").read_text()) == done.config
    assert done.history["epoch"].tolist() == [1, 2]
    logits, targets = done.predictions
    assert logits.shape == (450, 10)
    assert targets.shape == (450,)
    assert done.verify() is done


def test_load_gives_a_row_for_each_finished_run(done, tiny, tmp_path):
    fit(tiny(epochs=1), runs_root=tmp_path, progress=False)
    frame = listing.load(tmp_path)
    assert len(frame) == 2
    row = frame.set_index("run_id").loc[done.run_id]
    assert row["recipe"] == "hml1"
    assert row["delta"] == 1e4
    assert row["last_balanced_accuracy"] == done.selection()["balanced_accuracy"]
    assert row["best_test_epoch"] in (1, 2)
    assert listing.load(tmp_path / "nowhere").empty


@pytest.mark.parametrize("name", [*record.RECORDED, "metrics.json"])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_flipped_byte_is_noticed_set_aside_and_retrained(name, where, done, tmp_path):
    path = done.path / name
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 2))] ^= 0x15
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged.*set aside"):
        again = fit(done.config, runs_root=tmp_path, progress=False)
    assert again.verify().selection() == done.selection()
    kept = list((tmp_path / ".damaged").iterdir())
    assert len(kept) == 1
    assert (kept[0] / name).read_bytes() == bytes(content)


@pytest.mark.parametrize("name", record.RECORDED)
def test_a_missing_file_is_damage_too(name, done, tmp_path):
    (done.path / name).unlink()
    with pytest.warns(UserWarning, match="set aside"):
        assert fit(done.config, runs_root=tmp_path, progress=False).verify()


def test_a_damaged_run_is_left_out_of_the_frame_with_a_warning(done, tmp_path):
    (done.path / "metrics.json").write_text("{")
    with pytest.warns(UserWarning, match=f"{done.run_id} is damaged"):
        assert listing.load(tmp_path).empty


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_set_aside(content, tiny, tmp_path):
    config = tiny(epochs=2)
    folder = RunFolder(tmp_path, config)
    folder.path.mkdir()
    (folder.path / "checkpoint.pt").write_bytes(content)
    with pytest.warns(UserWarning, match="checkpoint .* is damaged"):
        run = fit(config, runs_root=tmp_path, progress=False)
    assert run.verify()


def test_a_checkpoint_with_one_flipped_byte_is_set_aside(tiny, tmp_path):
    config = tiny(epochs=2)
    folder = RunFolder(tmp_path, config)
    folder.path.mkdir()
    folder.checkpoint({"epoch": 1, "weights": torch.zeros(1000)})
    content = bytearray((folder.path / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder.path / "checkpoint.pt").write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert fit(config, runs_root=tmp_path, progress=False).verify()


def test_selections_without_validation_say_so(done):
    with pytest.raises(ValueError, match="`selection` to be one of"):
        done.selection("best")
    done.metrics["selections"]["best_validation"] = None
    with pytest.raises(ValueError, match="no validation split"):
        done.selection("best_validation")


def test_what_a_record_does_not_hold_is_said(done, tmp_path):
    """Features are those of image files; earlier versions kept no confidence."""
    with pytest.raises(ValueError, match=f"The run {done.run_id} holds no features"):
        _ = done.features
    done._arrays.pop("confidence")
    with pytest.raises(ValueError, match="too old to hold confidences"):
        _ = done.confidence
    (done.path / "predictions.npz").unlink()
    assert not Run(done.path).has_predictions
    with pytest.raises(RunError, match=r"is damaged: predictions\.npz is not there"):
        _ = Run(done.path).predictions


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_description_holds_what_is_no_json(value, done, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": [value]})
    assert not (tmp_path / "x.json").exists()
    text = (done.path / "metrics.json").read_text()
    metrics = json.loads(text)
    metrics["seconds"] = value
    (done.path / "metrics.json").write_text(json.dumps(files.sealed(metrics)))
    with pytest.raises(RunError, match="is damaged"):
        Run(done.path)


def test_a_record_in_the_folder_of_another_config_is_set_aside(done, tiny, tmp_path, monkeypatch):
    """Were two configs ever to have one id, neither would be taken for the other."""
    folder = RunFolder(tmp_path, tiny(recipe="hml2", epochs=2))
    folder.path = done.path
    with pytest.warns(UserWarning, match=r"damaged: it has another config\. It was set aside in"):
        assert folder.finished() is None
    assert (tmp_path / ".damaged" / f"{done.run_id}.0" / "metrics.json").exists()


def test_a_file_in_the_place_of_a_runs_folder_is_named(tiny, tmp_path):
    config = tiny(epochs=1)
    (tmp_path / config.run_id).write_text("mine")
    with pytest.raises(RunError, match=f"Cannot make the folder .*{config.run_id}"):
        fit(config, runs_root=tmp_path, progress=False)
    assert (tmp_path / config.run_id).read_text() == "mine"


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="is damaged"):
        Run(tmp_path)
    assert isinstance(listing.failures(tmp_path), pd.DataFrame)


# Ours and others' -----------------------------------------------------------------------------------


def test_only_what_we_left_half_written_is_removed_from_a_begun_run(tiny, tmp_path):
    config = tiny(epochs=1)
    folder = RunFolder(tmp_path, config)
    folder.path.mkdir()
    others = [".nfs000000000123", ".notes", ".metrics.json.swp", ".config.json.original"]
    for name in [*others, ".metrics.json.ab_d3f9h.new", ".checkpoint.pt.12345678.new"]:
        (folder.path / name).write_text("x")
    (folder.path / ".ipynb_checkpoints").mkdir()
    (folder.path / ".ipynb_checkpoints" / "a.ipynb").write_text("x")
    (folder.path / ".config.json.abcdefgh.new").mkdir()
    run = fit(config, runs_root=tmp_path, progress=False).verify()
    left = {path.name for path in run.path.glob(".*")}
    assert left == {*others, ".ipynb_checkpoints", ".config.json.abcdefgh.new"}
    assert (folder.path / ".ipynb_checkpoints" / "a.ipynb").exists()


def test_what_another_process_writes_at_this_moment_is_not_taken_for_left(tmp_path):
    with files.written_beside(tmp_path / "table.csv") as stream:
        files.remove_half_written(tmp_path, ["table.csv"])
        stream.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    killed = tmp_path / ".table.csv.ab_d3f9h.new"
    killed.touch()
    files.remove_half_written(tmp_path, ["table.csv"])
    assert not killed.exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_has_the_name_of_the_shelf_is_named_and_nothing_moves(kind, done, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shelf = tmp_path / ".damaged"
    shelf.write_text("mine") if kind == "file" else shelf.symlink_to(tmp_path / "elsewhere")
    (done.path / "history.csv").write_text("damaged")
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    with pytest.raises(RunError, match=r"history.csv is not .* cannot be set aside in .*\.damaged"):
        fit(done.config, runs_root=tmp_path, progress=False)
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("number", "may_write"), [(errno.ENOSPC, True), (errno.EACCES, False)], ids=["full", "closed"]
)
def test_a_shelf_that_takes_nothing_is_not_for_the_owner_of_the_record(
    number, may_write, done, tmp_path, monkeypatch
):
    def refused(source, target):
        raise OSError(number, os.strerror(number), source)

    (done.path / "history.csv").write_text("damaged")
    monkeypatch.setattr(os, "rename", refused)
    monkeypatch.setattr(os, "access", lambda path, mode: may_write)
    told = rf"\({os.strerror(number)}\): expected a folder there, or nothing"
    told += r"\." if may_write else ", and that you may write to it"
    with pytest.raises(RunError, match=told):
        shelve(done.path, "It is damaged.")


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    ("is_own", "expected"),
    [(False, "moves it"), (True, ", which is you, may write to it and to '.*'")],
)
def test_a_record_that_may_not_be_moved_stays_and_says_who_may(
    is_own, expected, is_there, done, tmp_path, monkeypatch
):
    """A folder that comes to another place must be one's own, and writable."""

    def refused(source, target):
        raise PermissionError(13, "Permission denied", source)

    if is_there:
        (tmp_path / ".damaged").mkdir()
    (done.path / "history.csv").write_text("damaged")
    monkeypatch.setattr(os, "rename", refused)
    monkeypatch.setattr(os, "geteuid", lambda: done.path.stat().st_uid + (not is_own))
    with pytest.raises(
        RunError,
        match=f"Permission denied.*: expected that whoever owns the run's folder *{expected}",
    ):
        fit(done.config, runs_root=tmp_path, progress=False)
    assert (done.path / "history.csv").read_text() == "damaged"
    assert (tmp_path / ".damaged").exists() == is_there


@pytest.mark.parametrize("name", ["failed.json", "checkpoint.pt"])
def test_a_folder_in_the_place_of_a_file_of_ours_is_named(name, tiny, tmp_path):
    config = tiny(epochs=1)
    (tmp_path / config.run_id / name / "mine").mkdir(parents=True)
    with pytest.raises(RunError, match=name):
        fit(config, runs_root=tmp_path, progress=False)
    assert (tmp_path / config.run_id / name / "mine").is_dir()


def of_another_version(run: Run, change) -> None:
    """Rewrite a record as a version that has more to say would have: sealed, with all its sums."""
    metrics = json.loads((run.path / "metrics.json").read_text())
    config = json.loads((run.path / "config.json").read_text())
    del metrics["checksum"]
    change(metrics, config)
    (run.path / "config.json").write_text(json.dumps(config, sort_keys=True) + "\n")
    for name in metrics["files"]:
        if (run.path / name).exists():
            metrics["files"][name] = files.sha256(run.path / name)
    files.write_json(run.path / "metrics.json", files.sealed(metrics))


@pytest.mark.parametrize(
    "text", ["no JSON", "[" * 100_000, "9" * 5000, b"\xff", "[]"], ids=lambda text: text[:7]
)
def test_an_environment_in_another_form_is_named(text, done):
    """The record holds, sealed anew, and is read; what it tells of its making is not."""
    (done.path / "environment.json").write_bytes(text.encode() if isinstance(text, str) else text)
    of_another_version(done, lambda *_: None)
    listing.load(done.path.parent)
    shown = ["runs", "show", done.run_id, "--runs-root", str(done.path.parent)]
    result = CliRunner().invoke(main, shown)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert f"Cannot read '{done.path / 'environment.json'}': " in result.output


def test_what_a_record_says_does_nothing_to_a_terminal(done):
    told = {"device": "\x9b2J\u202e\x7f", "versions": {}}
    (done.path / "environment.json").write_text(json.dumps(told))
    of_another_version(done, lambda *_: None)
    shown = ["runs", "show", done.run_id, "--runs-root", str(done.path.parent)]
    said = CliRunner().invoke(main, shown).output
    assert not {"\x9b", "\u202e", "\x7f"} & {*said}
    assert json.loads(said)["environment"] == told


NEWER = {
    "a field of the config": lambda metrics, config: config.update(new_field=1),
    "a value of the config": lambda metrics, config: config.update(precision="fp4"),
    "another identity": lambda metrics, config: metrics.update(config_hash="0" * 64),
    "a file more": lambda metrics, config: metrics["files"].update({"attention.npz": "0" * 64}),
    "a file less": lambda metrics, config: metrics["files"].pop("manifest.json"),
    "a part less": lambda metrics, config: metrics.pop("selections"),
    "selections by list": lambda metrics, config: metrics.update(selections=[1, 2]),
    "no last epoch": lambda metrics, config: metrics["selections"].update(last=None),
    "a metric as text": lambda metrics, config: metrics["selections"]["last"].update(
        balanced_accuracy="high"
    ),
    "no balanced accuracy": lambda metrics, config: metrics["selections"]["last"].pop(
        "balanced_accuracy"
    ),
    "an epoch as text": lambda metrics, config: metrics["selections"]["last"].update(epoch="last"),
    "texts in a list": lambda metrics, config: metrics["selections"]["best_test"].update(
        per_class_accuracy=["high"]
    ),
    "counts as text": lambda metrics, config: metrics.update(class_counts="many"),
    **{
        f"{name} {value!r}": lambda metrics, config, name=name, value=value: metrics.update(
            {name: value}
        )
        for name, values in {
            "kept_weights": [
                {},
                {"which": "first", "epoch": 1},
                {"which": "last", "epoch": "1"},
                3,
            ],
            "further_tests": [
                -1,
                {"more": {}},
                {"more": {"images": 1, "clusters": 1, "sha256": "0"}},
            ],
            "initialisation": ["x", {"weights": 3}],
            "branch": [3, {}, {"epoch": 1, "from": 3}],
            "class_groups": ["ab", ["a"], 3],
            "own": [3],
            "seconds": ["3", True, None],
            "trained_epochs": ["3", -1],
            "synthetic": ["no"],
            "images_note": [3],
            "class_names": [[*"abcdefghi", "\ud800"]],
        }.items()
        for value in values
    },
    **{
        f"{name} {value!r} at an epoch": lambda metrics, config, name=name, value=value: metrics[
            "selections"
        ]["last"].update({name: value})
        for name, values in {
            "balanced_accuracy": [{"a": 1}, [1], None, True],
            "few": ["0", []],
            "macro_auc": [{}],
            "per_class_accuracy": [1, [1.0], {"a": 1}],
            "epoch": [1.0, -1, True],
            "sensitivity": [0.5],
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("change", NEWER.values(), ids=NEWER)
def test_a_whole_record_of_another_version_is_named_and_never_shelved(change, done, tmp_path):
    of_another_version(done, change)
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    with pytest.raises(ForeignRecordError, match="is whole, and was written by a version"):
        fit(done.config, runs_root=tmp_path, progress=False)
    with pytest.warns(UserWarning, match=f"{done.run_id} is whole.*left out"):
        assert listing.load(tmp_path).empty
    assert not (tmp_path / ".damaged").exists()
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before


@pytest.mark.begun_first
@pytest.mark.parametrize("name", slow_but([*NEWER][::5], NEWER))
def test_a_record_of_another_version_that_is_damaged_is_damaged(name, done, tmp_path):
    of_another_version(done, NEWER[name])
    (done.path / "history.csv").write_text("")
    with pytest.warns(UserWarning, match="damaged.*set aside"):
        assert fit(done.config, runs_root=tmp_path, progress=False).verify()


def test_a_history_that_holds_and_lacks_a_column_does_not_stop_the_others(done, tiny, tmp_path):
    fit(tiny(epochs=1), runs_root=tmp_path, progress=False)
    (done.path / "history.csv").write_text("epoch\n1\n2\n")
    of_another_version(done, lambda metrics, config: None)
    with pytest.warns(UserWarning, match=f"{done.run_id} holds, but not what"):
        assert len(listing.load(tmp_path)) == 1


def test_many_runs_in_a_process_do_not_only_write(monkeypatch):
    from hml_core.trainer import recorder

    now = [100.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now[0])
    pace = recorder.Pace()

    def write(seconds):
        with pace.writing():
            now[0] += seconds

    write(0.01)
    now[0] += 10
    assert pace.factor() == 1.0, "a run alone keeps its interval"
    for _ in range(20):  # runs that all write, second after second
        write(0.5)
        now[0] += 0.5
    spent, elapsed = 10.01, 30.01
    assert pace.factor() == pytest.approx(spent / elapsed / recorder.WRITING_SHARE, rel=0.01)


@pytest.mark.parametrize("name", ["metrics.json", "config.json", "predictions.npz", "history.csv"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_a_record_that_cannot_be_read_now_is_not_damaged(name, number, done, tmp_path, monkeypatch):
    """A disk, a network or a right that fails tells nothing of what lies there: nothing is moved."""
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    opened = files.opened

    def fail(path, limit=None):
        if Path(path).name == name:
            raise OSError(number, os.strerror(number))  # as a read does: without the file's name
        return opened(path, limit)

    monkeypatch.setattr(files, "opened", fail)
    told = rf"{done.run_id} cannot be read now \('.*': {os.strerror(number)}\)\. It is left"
    with pytest.raises(UnreachableRecordError, match=told):
        fit(done.config, runs_root=tmp_path, progress=False)
    with pytest.warns(UserWarning, match=told):
        assert listing.load(tmp_path).empty
    result = CliRunner().invoke(main, ["runs", "verify", "--runs-root", str(tmp_path)])
    assert result.exit_code == 1
    assert "cannot be read now" in result.output
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before
    assert not (tmp_path / ".damaged").exists()


def test_a_record_of_somebody_else_s_own_hides_no_others(done, tmp_path, monkeypatch):
    """Of a folder that only its owner may open, in a `runs_root` of several users."""
    closed = tmp_path / "closed"
    closed.mkdir()
    exists, opened = Path.exists, files.opened

    def refuse(call):
        def ask(path, *more, **named):
            if closed in Path(path).parents:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *more, **named)

        return ask

    monkeypatch.setattr(Path, "exists", refuse(exists))
    monkeypatch.setattr(files, "opened", refuse(opened))
    with pytest.warns(
        UserWarning, match=r"The run closed cannot be read now \('.*metrics\.json': "
    ):
        assert listing.load(tmp_path)["run_id"].tolist() == [done.run_id]


@pytest.mark.parametrize("linked", ["", ".locks"])
def test_nothing_is_written_through_a_link_in_the_place_of_a_folder(linked, tiny, tmp_path):
    """Anybody who shares `runs_root` knows the ids of runs beforehand."""
    config, victim = tiny(epochs=1), tmp_path / "victim"
    victim.mkdir()
    (victim / "config.json").write_text("mine")
    root = tmp_path / "runs"
    root.mkdir()
    (root / (linked or config.run_id)).symlink_to(victim)
    with pytest.raises(RunError, match="is a link"):
        fit(config, runs_root=root, progress=False)
    assert {path.name: path.read_text() for path in victim.iterdir()} == {"config.json": "mine"}


def test_a_finished_record_may_be_read_through_a_link(done, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / done.run_id).symlink_to(done.path)
    assert fit(done.config, runs_root=tmp_path / "linked", progress=False).metrics == done.metrics


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("config.json", '"recipe": "hml1"', '"recipe": "hmlQ"'),
        ("config.json", '"model": "resnet8"', '"model": "resnetX"'),
        ("metrics.json", '"run_id": ', '"run_iX": '),
    ],
)
def test_a_byte_that_makes_an_unknown_method_of_a_known_one_is_damage(name, before, after, done):
    """The record is moved aside and the run trained anew: nobody is asked to bring that method."""
    content = (done.path / name).read_text()
    assert before in content
    (done.path / name).write_text(content.replace(before, after))
    with pytest.raises(RunError, match=f"The run {done.run_id} is damaged"):
        Run(done.path)
    again = fit(done.config, runs_root=done.path.parent, progress=False)
    assert again.verify().run_id == done.run_id
