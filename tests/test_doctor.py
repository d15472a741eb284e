"""`hml doctor`: what every run needs, and what only some do."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace

import pytest
import torch

from hml_core import datasets
from hml_core.errors import RunError
from hml_core.system import limits
from hml_lab import doctor


@pytest.fixture
def without_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_data_sets_that_are_not_there_are_notes_with_the_command(tmp_path):
    findings = {finding.what.split()[2]: finding for finding in doctor._data(tmp_path / "no")}
    assert set(findings) == {
        "cifar10",
        "cifar100",
        "isic2018",
        "isic2019",
        "isic2019_all",
        "isic2019_ham",
        "inat2018",
    }
    assert {finding.mark for finding in findings.values()} == {doctor.NOTE}
    assert findings["cifar10"].remedy == f"hml prepare cifar10 --data-root {tmp_path / 'no'}"
    assert findings["isic2019_all"].remedy.endswith(
        f"isic2019 --data-root {tmp_path / 'no'}/isic2019"
    )


def test_a_prepared_data_set_is_read_and_an_unfinished_one_says_why(tmp_path, monkeypatch):
    def load(config, folder):
        seen.append((config.dataset, folder))
        if config.dataset == "isic2018" and folder.name == "isic2018":
            return SimpleNamespace(train=range(7))
        return really(config, folder)

    seen, really = [], datasets.load
    monkeypatch.setattr(datasets, "load", load)
    (tmp_path / "isic2018").mkdir()
    (tmp_path / "inat2018").mkdir()
    findings = {finding.what.split()[2]: finding for finding in doctor._data(tmp_path)}
    assert findings["isic2018"] == doctor.Finding(
        doctor.OK, f"data set isic2018 in {tmp_path / 'isic2018'}: 7 training images"
    )
    assert findings["inat2018"].mark == doctor.NOTE
    assert f"cannot be used from {tmp_path}: " in findings["inat2018"].what
    assert ("inat2018", tmp_path / "inat2018") in seen


def test_weights_are_looked_for_and_compared(without_cache):
    finding = next(one for one in doctor._weights() if "efficientnet_b3" in one.what)
    assert finding.mark == doctor.NOTE
    assert "efficientnet_b3 are not in torch's cache" in finding.what
    name = finding.remedy.split(" into ")[0].rpartition("/")[2]
    without_cache.mkdir(parents=True)
    (without_cache / name).write_bytes(b"half of it")
    finding = next(one for one in doctor._weights() if "efficientnet_b3" in one.what)
    assert "damaged" in finding.what
    assert str(without_cache / name) in finding.remedy


@pytest.mark.parametrize("name", ["require_files", "require_semaphores", "require_loopback"])
def test_what_several_processes_lack_is_a_note(name, monkeypatch):
    assert doctor._several_processes().mark == doctor.OK

    def refuse(*_):
        raise RunError("This machine lacks it.")

    monkeypatch.setattr(limits, name, refuse)
    finding = doctor._several_processes()
    assert (finding.mark, finding.what) == (doctor.NOTE, "This machine lacks it.")


def test_optional_parts_say_what_they_lack(monkeypatch):
    wanted = ["numpy>=2", 'numpy>=2; extra == "whole"', 'no-such-package[x]>=1; extra == "docs"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    docs, whole = doctor._parts()
    assert (docs.mark, whole.mark) == (doctor.NOTE, doctor.OK)
    assert docs.what == "optional part [docs] lacks no-such-package"
    assert docs.remedy == "pip install 'hml-core[docs]'"


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{", b"\xff", b'{"display_name": 5}'])
def test_a_specification_of_the_kernel_that_is_none_is_a_finding(content, tmp_path, monkeypatch):
    file = tmp_path / "kernels" / "python3" / "kernel.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    finding = doctor._kernel()
    assert finding.mark == doctor.MISSING
    assert "the kernel 'python3'" in finding.what


def test_what_cannot_be_looked_at_hides_nothing_else(tmp_path, monkeypatch):
    def broken(*_):
        raise PermissionError(13, "Permission denied", "/a/b")

    whole = doctor.examine(tmp_path / "runs", tmp_path / "data")
    monkeypatch.setattr(doctor, "_weights", broken)
    monkeypatch.setattr(doctor, "_data", broken)
    findings = doctor.examine(tmp_path / "runs", tmp_path / "data")
    lost = [finding for finding in findings if "cannot be looked at" in finding.what]
    assert [finding.mark for finding in lost] == [doctor.MISSING] * 2
    assert "Permission denied" in lost[0].what
    assert {finding.what for finding in findings} - {one.what for one in lost} < {
        finding.what for finding in whole
    }
