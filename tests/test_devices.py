"""What a run computes on and in: found out before anything is trained, or refused with what is there."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys

import pytest
import torch

from hml_core.errors import DeviceError
from hml_core.system import devices, interruptions, limits

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that torch sees so many GPUs of a kind; nothing is computed on them."""

    def pretend(number: int, name: str = "A100", capability: tuple[int, int] = (8, 0)) -> None:
        for function, value in (
            ("is_available", number > 0),
            ("device_count", number),
            ("get_device_name", name),
            ("get_device_capability", capability),
        ):
            monkeypatch.setattr(torch.cuda, function, lambda *_, value=value: value)

    return pretend


def test_auto_is_the_first_gpu_or_the_cpu(gpus):
    gpus(2)
    assert devices.resolve() == devices.resolve("cuda") == CUDA
    assert devices.resolve("cuda:1") == torch.device("cuda", 1)
    assert devices.resolve("cpu") == CPU
    gpus(0)
    assert devices.resolve() == CPU


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:2", r"'cuda:2' is not there: this machine shows 2 CUDA device\(s\).*hml doctor"),
        ("gpu", "to be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got 'gpu'"),
        (None, "to be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got None"),
        ("mps", "a CPU or CUDA `device`, got 'mps'"),
    ],
)
def test_a_device_that_cannot_train_is_refused(device, said, gpus):
    gpus(2)
    with pytest.raises(DeviceError, match=said):
        devices.resolve(device)


def test_precision_follows_what_a_gpu_is_fast_at(gpus):
    gpus(1, "A100", (8, 0))
    assert devices.autocast_dtype("auto", CUDA) == torch.bfloat16
    assert devices.autocast_dtype("bf16", CUDA) == torch.bfloat16
    assert devices.autocast_dtype("float32", CUDA) is None
    gpus(1, "T4", (7, 5))
    assert devices.autocast_dtype("auto", CUDA) is None
    with pytest.raises(DeviceError, match="T4 has no bf16 units: expected `precision` 'auto'"):
        devices.autocast_dtype("bf16", CUDA)


def test_a_record_names_the_processor_on_every_system(gpus, tmp_path, monkeypatch):
    """Where there is no /proc/cpuinfo, and where that is silent on it (ARM), the platform's name does."""
    gpus(1, "A100")
    assert devices.describe(CUDA) == "A100"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(devices, "Path", lambda path: told)
    assert devices.describe(CPU) == f"riscv64, {limits.usable_cores()} cores"
    assert not devices.cpu_has_bf16()
    told.write_text("processor\t: 0\nBogoMIPS\t: 50\n")
    assert devices.describe(CPU).startswith("riscv64, ")
    told.write_text("model name\t: Xeon: a\nflags\t\t: fpu avx512_bf16\nmodel name\t: other\n")
    assert devices.describe(CPU).startswith("Xeon: a, ")
    assert devices.cpu_has_bf16()


def test_without_glibc_freed_memory_goes_back_to_the_system(monkeypatch):
    def missing(name):
        raise OSError("no such library")

    keep = devices.keep_freed_memory.__wrapped__
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl has no mallopt
    assert keep() is False


WHERE_OPENMP_GIVES_FEWER = """
import ctypes, torch
from hml_core.system import devices
torch.set_num_threads(4)
devices.resolve("cpu")
openmp = ctypes.CDLL(None)
print(torch.get_num_threads(), openmp.omp_get_dynamic(), min(openmp.omp_get_max_active_levels(), 2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings libgomp on Linux")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OMP_THREAD_LIMIT": " 1 "}, "1 0 2"),  # blanks are read over
        ({"OMP_THREAD_LIMIT": "8", "OMP_DYNAMIC": "true", "OMP_MAX_ACTIVE_LEVELS": "0"}, "4 0 1"),
    ],
)
def test_no_more_threads_are_taken_than_openmp_gives(variables, expected):
    """With OMP_THREAD_LIMIT=1 and two threads a backward pass never ended."""
    command = [sys.executable, "-c", WHERE_OPENMP_GIVES_FEWER]
    said = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert said.stdout.strip() == expected, said.stderr


def test_threads_of_another_kind_are_left_alone(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    devices.resolve("cpu")
    assert torch.get_num_threads() == before


def test_a_signal_while_the_compiler_is_loaded_waits_until_that_is_whole(monkeypatch):
    """It left modules half loaded; what failed then, in giving back the setting, hid the signal."""
    begun, whole = [], []

    def choose(does, *, warn_only=False):
        begun.append(does)
        if len(begun) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        elif not whole:
            raise AttributeError("a module that is half loaded")
        whole.append(does)

    monkeypatch.setattr(torch, "use_deterministic_algorithms", choose)
    with (
        pytest.raises(interruptions.Interrupted),
        interruptions.interruptible(),
        devices.algorithms(True),
    ):
        pytest.fail("the signal was lost")
    assert whole
