"""Nothing is executed that lies where others may write: the current folder, a cache in TMPDIR."""

from __future__ import annotations

import importlib
import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

from data_prep import parallel
from hml_core.engines.jobs import Place
from hml_core.engines.torchrun import _run
from hml_core.errors import RunError
from hml_core.models import training
from hml_core.models.cifar import resnet8
from hml_core.system import devices, processes, scratch
from hml_lab.notebooks import batch


class Started(Exception):
    """What would have been started, and in which environment."""


@pytest.fixture
def started(monkeypatch):
    def tell(command, env=None, **_):
        raise Started([str(part) for part in command], env or os.environ)

    monkeypatch.setattr(subprocess, "Popen", tell)


def _prepare(tmp_path):
    row = SimpleNamespace(id="a", file="a.png")
    work = iter([(row, b"no image")])
    return list(parallel.in_parallel(parallel.why, work, tmp_path, None, 1))


def test_workers_import_nothing_of_the_current_folder(tmp_path, monkeypatch):
    """Those of multiprocessing start with ``python -c``, which looks there first."""
    for name in ("multiprocessing", "random", "data_prep"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w'); raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError):  # `why` takes something else: it was found and called
        _prepare(tmp_path)
    assert not (tmp_path / "executed").exists()
    assert processes.SAFE_PATH not in os.environ


def test_torchrun_and_its_processes_import_nothing_of_the_current_folder(started, tmp_path):
    with pytest.raises(Started) as told:
        _run(["x"], Place(tmp_path), tmp_path)
    assert told.value.args[1][processes.SAFE_PATH] == "1"


def test_the_jobs_of_a_batch_import_nothing_of_the_current_folder(started, tmp_path):
    job = batch.Job(tmp_path / "a.ipynb", tmp_path / "b.ipynb")
    with pytest.raises(Started) as told:
        batch._executed(0, job, 1, {}, 1)
    command = told.value.args[0]
    assert command[command.index("hml_core") - 2 :][:2] == ["-P", "-m"]


def test_the_way_to_modules_is_the_one_before(monkeypatch):
    for before in (None, "", "1"):
        monkeypatch.delenv(processes.SAFE_PATH, raising=False)
        if before is not None:
            monkeypatch.setenv(processes.SAFE_PATH, before)
        with processes.only_installed_modules():
            assert os.environ[processes.SAFE_PATH] == "1"
        assert os.environ.get(processes.SAFE_PATH) == before


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of this test's own; what is registered for the end is kept here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(scratch.TORCH_CACHE, raising=False)
    monkeypatch.setattr("getpass.getuser", lambda: "a:user")
    ends: list = []
    monkeypatch.setattr(scratch.atexit, "register", ends.append)
    yield SimpleNamespace(usual=tmp_path / "torchinductor_a_user", ends=ends)
    os.environ.pop(scratch.TORCH_CACHE, None)


def test_compiled_code_is_kept_where_torch_keeps_it(temporary):
    scratch.keep_compiled_code_private()
    assert os.environ[scratch.TORCH_CACHE] == str(temporary.usual)
    assert temporary.usual.stat().st_mode & 0o777 == 0o700
    del os.environ[scratch.TORCH_CACHE]
    scratch.keep_compiled_code_private()  # it is there, and ours
    assert os.environ[scratch.TORCH_CACHE] == str(temporary.usual)
    other = str(temporary.usual.with_name("other"))
    os.environ[scratch.TORCH_CACHE] = other  # as somebody wished
    scratch.keep_compiled_code_private()
    assert os.environ[scratch.TORCH_CACHE] == other
    os.environ[scratch.TORCH_CACHE] = "/dev/null/nope"
    with pytest.raises(
        RunError, match="`TORCHINDUCTOR_CACHE_DIR` to name a folder, got '/dev/null/nope'"
    ):
        scratch.keep_compiled_code_private()


def _writable(place):
    place.mkdir()
    place.chmod(0o777)


def _somebodys(place):
    place.mkdir()
    os.chown(place, 65534, 65534)


@pytest.mark.parametrize(
    "made",
    [
        lambda place: place.touch(),
        lambda place: place.symlink_to(place.parent),
        lambda place: place.symlink_to("nowhere"),
        _writable,
        pytest.param(
            _somebodys, marks=pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="root")
        ),
    ],
)
def test_a_folder_of_compiled_code_that_others_may_write_to_is_left(made, temporary):
    """What lies in it is executed: another one is made, and gone in the end."""
    made(temporary.usual)
    scratch.keep_compiled_code_private()
    own = os.environ[scratch.TORCH_CACHE]
    assert own != str(temporary.usual)
    assert os.stat(own).st_mode & 0o777 == 0o700
    assert not scratch.keeps_headers_private()
    (end,) = temporary.ends
    end()
    assert not os.path.exists(own)


@pytest.mark.parametrize("is_ours", [True, False])
def test_headers_that_others_may_have_compiled_are_not_used(is_ours, temporary, monkeypatch):
    """torch keeps them in its usual place, whatever folder it is told to use."""
    (temporary.usual.mkdir if is_ours else temporary.usual.touch)()
    os.environ[scratch.TORCH_CACHE] = str(temporary.usual.with_name("other"))
    asked = []
    monkeypatch.setattr(training.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "compile", lambda function, options: asked.append(options))
    training.features_of(resnet8(3), torch.device("cpu"), None, compiled=True)
    assert asked == [{"cpp_cache_precompile_headers": is_ours}]
    config = importlib.import_module("torch._inductor.config")
    assert hasattr(config, "cpp_cache_precompile_headers")


def test_what_cannot_be_compiled_is_told_before_the_first_step(temporary, monkeypatch):
    """/tmp is mounted so on many servers, and on many there is no compiler."""
    with monkeypatch.context() as patch:
        patch.setattr(training.shutil, "which", lambda _: None)
        with pytest.raises(RunError, match="needs a C\\+\\+ compiler"):
            training.features_of(resnet8(3), torch.device("cpu"), None, compiled=True)
    monkeypatch.setattr(training.shutil, "which", lambda name: name)
    noexec = SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID)
    monkeypatch.setattr(training.os, "statvfs", lambda place: noexec)
    with pytest.raises(RunError, match="where nothing is executed"):
        training.features_of(resnet8(3), torch.device("cpu"), None, compiled=True)


def test_training_and_exporting_look_after_it(monkeypatch):
    asked = []
    monkeypatch.setattr(scratch, "keep_compiled_code_private", lambda: asked.append("asked"))
    monkeypatch.setattr("torch.use_deterministic_algorithms", lambda *_, **__: asked.append("set"))
    with devices.algorithms(deterministic=False):
        assert asked == ["asked", "set"]


def test_without_a_folder_for_temporary_files_there_is_no_cache(temporary, monkeypatch):
    def fail():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    scratch.keep_compiled_code_private()
    assert scratch.TORCH_CACHE not in os.environ
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("no entry")))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(temporary.usual.parent))
    scratch.keep_compiled_code_private()
    assert os.environ[scratch.TORCH_CACHE].endswith(f"torchinductor_{os.getuid()}")
