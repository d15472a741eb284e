"""A notebook executed with each engine shows the same table."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from hml_lab import notebooks
from tests import forks
from tests.engines import helpers

pytestmark = pytest.mark.usefixtures("forked_kernels", "forked_workers")
SMALL = {"recipes": ["ce", "hml1"], "seeds": [0, 1], "epochs": 4}


def until_its_table(folder: Path) -> Path:
    """The quickstart as far as its table: the figures that follow are drawn from stored runs."""
    content = nbformat.read(helpers.REPOSITORY / "notebooks" / "00_quickstart.ipynb", 4)
    last = next(n for n, cell in enumerate(content.cells) if "save_table" in cell.source)
    content.cells = [cell for cell in content.cells[: last + 1] if "save_figure" not in cell.source]
    nbformat.write(content, folder / "00_quickstart.ipynb")
    return folder / "00_quickstart.ipynb"


def table(engine: str, folder: Path) -> tuple[str, str]:
    """The comparison table as the notebook shows it, and the file with its numbers."""
    given = {**SMALL, "engine": engine, "device": "cpu", "results_root": str(folder)}
    output = folder / "executed.ipynb"
    notebooks.execute(until_its_table(folder), given, output, show_progress=False)
    outputs = [o for c in nbformat.read(output, 4).cells for o in c.get("outputs", [])]
    (shown,) = (o.data["text/html"] for o in outputs if o.get("metadata", {}).get("hml_core"))
    assert "HML1" in shown
    return shown, (folder / "tables" / "quickstart.csv").read_text()


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> tuple[str, str]:
    with forks.kernels():
        return table("serial", tmp_path_factory.mktemp("serial"))


@pytest.mark.slow
def test_dask(serial, tmp_path):
    assert table("dask", tmp_path) == serial


@pytest.mark.slow
@pytest.mark.begun_first
def test_a_running_cluster(serial, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        assert table(f"dask:{cluster.scheduler_address}", tmp_path) == serial


@pytest.mark.slow
def test_slurm(serial, tmp_path, monkeypatch):
    path = helpers.pretend_slurm(tmp_path, monkeypatch)
    assert table(f"slurm:{path}", tmp_path) == serial
    assert list((tmp_path / "bin").glob("job.*.log")), "no job ran"
