"""What works on this machine, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from data_prep.cli import prepare
from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.errors import HmlError, RunError, kind_of, said
from hml_core.system import devices, files, limits, provenance
from hml_lab import places

OK, MISSING, NOTE = "ok", "MISSING", "note"


@dataclass(frozen=True)
class Finding:
    """One line of the report: a mark, what was found, and what to do about it."""

    mark: str
    what: str
    remedy: str = ""


def examine(
    runs_root: str | Path = places.RUNS, data_root: str | Path = places.DATA
) -> list[Finding]:
    """Every finding, in the order in which a run would need them; last, what only some runs need."""
    looks: dict[str, Callable[[], Finding | list[Finding]]] = {
        "the versions": _versions,
        "torchvision": _operators,
        "CUDA": _cuda,
        "the precision": _precision,
        "the folder of runs": lambda: _results(Path(runs_root)),
        "the Jupyter kernel": _kernel,
        "what several processes need": _several_processes,
        "the git commit": _commit,
        "the data sets": lambda: _data(Path(data_root)),
        "the ImageNet weights": _weights,
        "the optional parts": _parts,
    }
    findings = []
    for what, look in looks.items():
        try:
            found = look()
        except Exception as error:  # of whatever is broken there: it hides nothing else
            reason = f"{kind_of(error)}: {said(error)}"
            found = Finding(MISSING, f"{what} cannot be looked at ({reason})")
        findings += [found] if isinstance(found, Finding) else found
    return findings


def _versions() -> list[Finding]:
    found = []
    for name, version in provenance.versions().items():
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


def _several_processes() -> Finding:
    """What notebooks, batches, `prepare` and engines of several processes ask for before they begin."""
    needs = (
        lambda what: limits.require_files(limits.SEVERAL_PROCESSES, what),
        limits.require_semaphores,
        limits.require_loopback,
    )
    try:
        for need in needs:
            need("what starts several processes")
    except RunError as error:
        return Finding(NOTE, str(error), "one run at a time, `hml train` or `hml sweep`, works")
    return Finding(OK, "several processes can work together")


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
    except Exception as error:  # whatever stands in the file of a specification, or lacks
        return Finding(
            MISSING,
            f"the specification of the kernel 'python3' cannot be read ({kind_of(error)}: {said(error)})",
            "remove its folder kernels/python3 in one of the places that `jupyter --paths` names",
        )
    return Finding(OK, "Jupyter kernel python3")


def _commit() -> Finding:
    commit = provenance.git_commit()
    if commit is None:
        return Finding(NOTE, "no git checkout: run records cannot name a commit")
    return Finding(
        OK, f"git commit {commit[:10]}{' with local changes' if 'dirty' in commit else ''}"
    )


# What only some runs need ---------------------------------------------------------------------------


def _data(root: Path) -> list[Finding]:
    """Each published data set whose files one provides: read, where there are any, as a run would."""
    findings = []
    for name in datasets.DATASETS:
        # `prepare` is told a folder of each challenge; two data sets may be made of one.
        command = prepare.commands.get(name.partition("_")[0])
        # One's own images may lie anywhere: their command asks where, and to read a tree is to pack it.
        asks = command is None or any(isinstance(one, click.Argument) for one in command.params)
        if asks or name == "imagefolder":
            continue
        places_of_it = [root / name, root / name.partition("_")[0], root]
        findings.append(_data_set(name, [place for place in places_of_it if place.is_dir()], root))
    return findings


def _data_set(name: str, candidates: list[Path], root: Path) -> Finding:
    reasons = []
    for folder in candidates:
        try:
            splits = datasets.load(RunConfig(dataset=name), folder)
        except (HmlError, OSError) as error:
            if folder != root:
                reasons.append(f": {error}")
        else:
            return Finding(OK, f"data set {name} in {folder}: {len(splits.train)} training images")
    state = f"cannot be used from {root}{reasons[0]}" if reasons else f"is not in {root}"
    # CIFAR's archives lie in the folder itself; those of others in one of their own.
    own = root if name.startswith("cifar") else root / name.partition("_")[0]
    return Finding(
        NOTE,
        f"data set {name} {state}",
        f"hml prepare {name.partition('_')[0]} --data-root {own}",
    )


def _weights() -> list[Finding]:
    """Pretrained weights of the networks that start from them unless told otherwise."""
    from torchvision import models

    configs = [RunConfig(dataset=name) for name in datasets.DATASETS]
    findings = []
    for model in sorted({config.model for config in configs if config.weights == "imagenet"}):
        published = models.get_model_weights(model).DEFAULT
        file = published.url.rpartition("/")[2]
        cached = Path(torch.hub.get_dir()) / "checkpoints" / file
        told = re.search(r"-([0-9a-f]{8,})\.pth$", file)
        if not cached.is_file():
            findings.append(
                Finding(
                    NOTE,
                    f"ImageNet weights of {model} are not in torch's cache: the first run loads them",
                    f"without a network, put {published.url} into {cached.parent}, or name the file "
                    "with --weights",
                )
            )
        elif told and not files.sha256(cached).startswith(told[1]):
            findings.append(
                Finding(NOTE, f"ImageNet weights of {model} are damaged", f"remove {cached}")
            )
        else:
            findings.append(Finding(OK, f"ImageNet weights of {model}"))
    return findings


def _parts() -> list[Finding]:
    """The optional parts of the package, each with what it lacks."""
    wanted: dict[str, list[str]] = {}
    try:
        requirements = importlib.metadata.requires("hml-core") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding(NOTE, "hml-core is not installed: its optional parts are not known")]
    for requirement in requirements:
        if found := re.match(r"([\w.-]+).*\bextra == ['\"](\w+)['\"]", requirement):
            wanted.setdefault(found[2], []).append(found[1])
    findings = []
    for part, names in sorted(wanted.items()):
        lacking = [name for name in names if not _is_installed(name)]
        if lacking:
            what = f"optional part [{part}] lacks {', '.join(lacking)}"
            findings.append(Finding(NOTE, what, f"pip install 'hml-core[{part}]'"))
        else:
            findings.append(Finding(OK, f"optional part [{part}]"))
    return findings


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
