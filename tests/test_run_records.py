"""``hml runs``: what lies in a folder of records, found, shown, checked and copied."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from hml_core import engines
from hml_core.config import grid
from hml_core.runs import Run
from hml_lab.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    configs = grid(recipe=["ce", "tau_norm"], seed=[0, 1], dataset="digits", epochs=2)
    engines.sweep(configs, runs_root=root, progress=False)
    return root


def call(*arguments, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["runs", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def test_runs_are_listed_and_chosen_by_their_fields(root):
    said = call("list", "--runs-root", root)
    assert "4 finished runs" in said
    assert all(path.parent.name in said for path in root.glob("*/metrics.json"))
    chosen = call("list", "--runs-root", root, "-w", "recipe", "ce", "-w", "seed", "01")
    assert "1 finished run in" in chosen
    assert "digits-exp20-ce-s1-" in chosen
    for name, value, found in (
        ("stage_ends", "[]", 1), ("stage_ends", "[0]", 0), ("seed", "[0, 1]", 0), ("seed", "true", 0),
        ("delta", "null", 1), ("compile", "false", 1), ("compile", "0", 0), ("recipe", "null", 0),
    ):  # fmt: skip
        one_run = ("-w", "recipe", "ce", "-w", "seed", 1)
        told = call("list", "--runs-root", root, *one_run, "-w", name, value)
        told = told.replace("no finished run", "0 finished run")
        assert f"{found} finished run" in told, (name, value)
    assert "have no field 'sede'" in call("list", "--runs-root", root, "-w", "sede", 1, code=1)
    assert call("list", "--runs-root", root, "--csv").startswith("run_id,")


def test_a_number_is_found_in_its_run(root):
    (path,) = root.glob("digits-exp20-ce-s1-*/metrics.json")
    run = Run(path.parent)
    for name in (run.run_id, "digits-exp20-ce-s1", run.run_id[-10:]):
        told = json.loads(call("show", name, "--runs-root", root))
        assert told["run_id"] == run.run_id
        assert told["last epoch"]["balanced_accuracy"] == run.selection()["balanced_accuracy"]
        assert told["config"] == run.config.to_dict()
    said = call("show", "digits-exp20-ce", "--runs-root", root, code=1)
    assert "2 runs fit 'digits-exp20-ce'" in said
    assert "…" not in said, "these are all"
    assert "is called 'other'" in call("show", "other", "--runs-root", root, code=1)


def test_records_are_checked_and_the_damaged_one_is_named(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert "4 finished runs" in call("verify", "--runs-root", copy)
    damaged = sorted(copy.glob("*/history.csv"))[2]
    damaged.write_text(damaged.read_text().replace("1", "2", 1))
    said = call("verify", "--runs-root", copy, code=1)
    assert damaged.parent.name in said
    assert "3 hold" in said
    assert "no finished run" in call("verify", "--runs-root", tmp_path / "nowhere", code=1)


def test_small_copies_hold(root, tmp_path):
    assert "4 records" in call("export", tmp_path / "records", "--runs-root", root)
    assert "4 hold" in call("verify", "--runs-root", tmp_path / "records")
    assert "no finished run" in call(
        "export", tmp_path / "x", "--runs-root", tmp_path / "no", code=1
    )
