"""Notebooks made for a test, and what those of the repository ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from hml_lab.experiment import Experiment


def make(folder: Path, *sources: str, name: str = "made.ipynb") -> Path:
    """A notebook whose first cell holds the parameters."""
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    path = folder / name
    nbformat.write(new_notebook(cells=cells), path)
    return path


def asked_by(
    batch: Path, output: str, repository: Path, tmp_path: Path
) -> tuple[Experiment, dict[str, Any]]:
    """What the notebook of the job with this output asks for, and the job; nothing is trained."""
    jobs = yaml.safe_load(batch.read_text())["jobs"]
    (job,) = [job for job in jobs if job.get("output") == output]
    cells = nbformat.read(repository / job["notebook"], as_version=4).cells
    tagged = {tag: cell.source for cell in cells for tag in cell.metadata.get("tags", [])}
    names: dict[str, Any] = {}
    exec(tagged["parameters"], names)
    assert set(job["parameters"]) <= set(names)
    names |= {**job["parameters"], "results_root": str(tmp_path), "runs_root": str(tmp_path)}
    exec(tagged["experiment"], names)
    return names["experiment"], job
