"""Where a run computes and in which precision, found out once and before anything is trained."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from hml_core.errors import DeviceError
from hml_core.system import interruptions, limits, scratch


def resolve(device: str | torch.device = "auto") -> torch.device:
    """The device to use: "auto" is the first CUDA device where there is one, else the CPU.

    Raises
    ------
    DeviceError
        For a device that this machine does not have.
    """
    _heed_openmp()
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"Expected `device` to be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {device!r}."
        ) from error
    if chosen.type == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise DeviceError(f"Expected a CPU or CUDA `device`, got {device!r}.")
    found = torch.cuda.device_count()
    index = chosen.index or 0
    if index >= found:
        raise DeviceError(
            f"The device {device!r} is not there: this machine shows {found} CUDA device(s). "
            "Use `device='auto'`; `hml doctor` says what is missing."
        )
    return torch.device("cuda", index)


_was_forked = False


def _note_fork() -> None:
    """Other threads are not here; none of them may hold the lock of what is set for all."""
    global _was_forked
    _was_forked = True
    _plain.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def heed_fork() -> None:
    """One thread, where this process was forked: torch would wait for others, which are its parent's."""
    if _was_forked:
        torch.set_num_threads(1)


def _heed_openmp() -> None:
    """No more threads than OpenMP gives: torch's backward pass would wait for the others for ever.

    They may be limited (``OMP_THREAD_LIMIT``), fewer on a busy machine (``OMP_DYNAMIC``), or none beside
    the first (``OMP_MAX_ACTIVE_LEVELS=0``). The library is asked, for it reads numbers in its own way.
    """
    heed_fork()
    try:
        openmp = ctypes.CDLL(None)
        limit = openmp.omp_get_thread_limit()
        openmp.omp_set_dynamic(0)
        if openmp.omp_get_max_active_levels() == 0:
            openmp.omp_set_max_active_levels(1)
    except (AttributeError, OSError, TypeError):  # torch was built with threads of another kind
        return
    if 0 < limit < torch.get_num_threads():
        torch.set_num_threads(limit)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where the run is to autocast, None for plain float32.

    Raises
    ------
    DeviceError
        For ``precision="bf16"`` on a CUDA device that does not compute in it.
    """
    if precision == "float32":
        return None
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device)[0] >= 8
        if precision == "bf16" and not fast:
            raise DeviceError(
                f"{torch.cuda.get_device_name(device)} has no bf16 units: expected `precision` "
                "'auto' or 'float32'."
            )
    else:
        fast = cpu_has_bf16()
    return torch.bfloat16 if fast or precision == "bf16" else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to ``dtype`` on the device, or not at all for None."""
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def current(device: torch.device) -> contextlib.AbstractContextManager:
    """Make a CUDA device the one that new streams and graphs belong to, inside the block."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class Beside:
    """Work beside other work: on a stream of its own while a CUDA graph is captured, else at once.

    A captured step is a chain of small kernels that wait for each other. What nothing in it waits for
    fills the device meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Callable[..., Any]]:
        """``beside(function, *arguments)`` gives what the function does, to be read after the block."""
        if self.stream is None or not torch.cuda.is_current_stream_capturing():
            yield lambda function, *arguments: function(*arguments)
            return
        main = torch.cuda.current_stream(self.stream.device)
        in_use = []  # what is read beside is given to nobody else before the end

        def beside(function: Callable[..., Any], *arguments: Any) -> Any:
            in_use.append(arguments)
            self.stream.wait_stream(main)
            with torch.cuda.stream(self.stream):
                return function(*arguments)

        self.stream.wait_stream(main)
        yield beside
        main.wait_stream(self.stream)


@contextlib.contextmanager
def algorithms(deterministic: bool, *, search: bool = True) -> Iterator[None]:
    """Which algorithms torch may choose inside the block: repeatable ones, or on CUDA the fastest.

    With ``search`` all of cuDNN's are tried on each shape that comes up; without, it chooses by rules. A
    small network has few shapes, an EfficientNet so many that the search takes minutes (docs/gpu.md). With
    ``deterministic`` there is none, an operation that has no repeatable algorithm is an error, and cuBLAS
    gets the workspace that it needs to repeat itself (``CUBLAS_WORKSPACE_CONFIG``, before its first use).
    """
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        cudnn.deterministic,
        cudnn.benchmark,
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        scratch.keep_compiled_code_private()  # torch's compiler is loaded by what follows
        # A signal within that would leave it half loaded, and what fails in the end would hide the signal.
        with interruptions.delayed():
            torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = (
            False  # nothing here reads such memory
        )
        cudnn.deterministic = deterministic
        cudnn.benchmark = search and not deterministic
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]
        cudnn.deterministic, cudnn.benchmark = before[3:]


class _Plain:
    """Settings of the whole process, plain as long as any thread needs them so.

    A program may change one meanwhile: who comes next makes it plain again, and the program's is what it
    said last.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self.given: dict[Any, Callable[[], None]] = {}  # gives back what the program has set

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            self._set()

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                while self.given:
                    self.given.popitem()[1]()

    def _set(self) -> None:
        if (default := torch.get_default_dtype()) != torch.float32:
            self.given["type"] = functools.partial(torch.set_default_dtype, default)
            torch.set_default_dtype(torch.float32)
        with contextlib.suppress(RuntimeError):  # (it was set for each library, see below)
            if (precision := torch.get_float32_matmul_precision()) != "highest":
                give_back = functools.partial(torch.set_float32_matmul_precision, precision)
                self.given["precision"] = give_back
                torch.set_float32_matmul_precision("highest")
        for library in _MULTIPLYING:
            if (precision := library.fp32_precision) not in ("none", "ieee"):
                self.given[library] = functools.partial(
                    setattr, library, "fp32_precision", precision
                )
                library.fp32_precision = "ieee"


_plain = _Plain()


@contextlib.contextmanager
def plain_numbers() -> Iterator[None]:
    """Inside the block tensors are float32 and the CPU's unless told, and float32 is computed as such.

    Whatever a program has set for itself: a default, autocast, :func:`torch.set_float32_matmul_precision`.
    A run's precision is its config's alone. Of what holds for all threads, the last of those within such
    a block gives back what the program has set.
    """
    heed_fork()
    with contextlib.ExitStack() as before:
        before.enter_context(_plain)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                before.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            before.enter_context(torch.device("cpu"))
        yield


# What may compute float32 in fewer bits. (Convolutions of cuDNN do by default, and are left to.)
_MULTIPLYING = (
    torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv,
)  # fmt: skip


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    capability = torch.backends.cpu.get_cpu_capability()
    flags = _cpu_info("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags if "AVX512" in capability else False


# glibc's mallopt numbers (malloc.h) and what they are set to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_ON_HEAP = 2**30, 2**25


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB that it freed, for the next step needs just as much.

    By itself glibc hands activations back to the system after every step and takes them anew, page by
    page: a sixth of a small network's training time, and a third where several processes do it at once
    (measured by ``benchmarks/sweep.py``). Returns whether the allocator took the advice.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
    )


def describe(device: torch.device) -> str:
    """Name of the processor that does the work, for the run's record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    return f"{name}, {limits.usable_cores()} cores"


def _cpu_info(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
