"""What works on this machine, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from hml_core.errors import RunError
from hml_core.runs import environment
from hml_core.system import devices, files

OK, MISSING, NOTE = "ok", "MISSING", "note"


@dataclass(frozen=True)
class Finding:
    """One line of the report: a mark, what was found, and what to do about it."""

    mark: str
    what: str
    remedy: str = ""


def examine(runs_root: str | Path = "results/runs") -> list[Finding]:
    """Every finding, in the order in which a run would need them."""
    return [
        *_versions(),
        _operators(),
        _cuda(),
        _precision(),
        _results(Path(runs_root)),
        _kernel(),
        _commit(),
    ]


def _versions() -> list[Finding]:
    found = []
    for name, version in environment.versions().items():
        if version == "not installed":
            found.append(Finding(MISSING, name, f"pip install {name}, or `make install`"))
        else:
            found.append(Finding(OK, f"{name} {version}"))
    return found


def _operators() -> Finding:
    """torch and torchvision come as pairs; a mismatch breaks on torchvision's first operator."""
    try:
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # an import error, a missing operator or a broken library
        return Finding(
            MISSING,
            f"torchvision's operators do not load ({error})",
            "install a matching pair, such as that of requirements.lock: `make install`",
        )
    return Finding(OK, "torchvision's operators load")


def _cuda() -> Finding:
    if not torch.cuda.is_available():
        why = (
            "this torch is a CPU build" if torch.version.cuda is None else "no NVIDIA driver or GPU"
        )
        return Finding(
            NOTE,
            f"no CUDA device ({why}): runs use the CPU",
            "the quickstart and the figures need none; full CIFAR tables want one",
        )
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding(OK, f"CUDA {torch.version.cuda}: {', '.join(names)}")


def _precision() -> Finding:
    if torch.cuda.is_available() or devices.cpu_has_bf16():
        return Finding(OK, "bf16 units: precision 'auto' uses bf16 autocast")
    return Finding(NOTE, "no bf16 units: precision 'auto' is float32")


def _results(runs_root: Path) -> Finding:
    try:
        files.require_writable(runs_root)
    except RunError as error:
        return Finding(MISSING, str(error), "choose another folder with --runs-root")
    done = len(list(runs_root.glob("*/metrics.json")))
    return Finding(OK, f"{runs_root} can be written to; {done} finished run(s)")


def _kernel() -> Finding:
    if importlib.util.find_spec("ipykernel") is None:
        return Finding(MISSING, "no Jupyter kernel in this environment", "pip install ipykernel")
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Finding(
            MISSING,
            "the kernel 'python3' is not registered",
            "python -m ipykernel install --sys-prefix",
        )
    return Finding(OK, "Jupyter kernel python3")


def _commit() -> Finding:
    commit = environment.git_commit()
    if commit is None:
        return Finding(NOTE, "no git checkout: run records cannot name a commit")
    return Finding(
        OK, f"git commit {commit[:10]}{' with local changes' if 'dirty' in commit else ''}"
    )
