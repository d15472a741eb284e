"""Run records: complete, verifiable, and damage is noticed, set aside and repaired."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from hml_core.config import RunConfig
from hml_core.errors import RunError
from hml_core.runs import Run, RunFolder
from hml_core.runs import record as runs
from hml_core.trainer import fit


@pytest.fixture
def done(tiny, tmp_path) -> Run:
    return fit(tiny(recipe="hml1", epochs=2), runs_root=tmp_path, progress=False)


def test_a_record_holds_what_it_promises(done):
    names = {path.name for path in done.path.iterdir()}
    assert names == {*runs.RECORDED, "metrics.json"}
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
    frame = runs.load(tmp_path)
    assert len(frame) == 2
    row = frame.set_index("run_id").loc[done.run_id]
    assert row["recipe"] == "hml1"
    assert row["delta"] == 1e4
    assert row["last_balanced_accuracy"] == done.selection()["balanced_accuracy"]
    assert row["best_test_epoch"] in (1, 2)
    assert runs.load(tmp_path / "nowhere").empty


@pytest.mark.parametrize("name", [*runs.RECORDED, "metrics.json"])
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


@pytest.mark.parametrize("name", runs.RECORDED)
def test_a_missing_file_is_damage_too(name, done, tmp_path):
    (done.path / name).unlink()
    with pytest.warns(UserWarning, match="set aside"):
        assert fit(done.config, runs_root=tmp_path, progress=False).verify()


def test_a_damaged_run_is_left_out_of_the_frame_with_a_warning(done, tmp_path):
    (done.path / "metrics.json").write_text("{")
    with pytest.warns(UserWarning, match=f"{done.run_id} is damaged"):
        assert runs.load(tmp_path).empty


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


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="is damaged"):
        Run(tmp_path)
    assert isinstance(runs.failures(tmp_path), pd.DataFrame)
