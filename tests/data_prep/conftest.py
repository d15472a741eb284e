"""What the tests of preparation share: a miniature of iNaturalist 2018, and work without workers."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from data_prep import parallel
from data_prep.inaturalist import synthetic

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def in_this_process(request, monkeypatch):
    """Workers cost a second each to start: one test of a file uses them, the others do the same here."""
    if "own_workers" in request.fixturenames:
        return

    def one_by_one(process, work, folder, options, workers):
        return ((row, process(source, folder / row.file, options)) for row, source in work)

    monkeypatch.setattr(parallel, "in_parallel", one_by_one)


@pytest.fixture
def own_workers():
    """The test starts workers of its own."""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A synthetic archive that no test changes."""
    return synthetic.make(tmp_path_factory.mktemp("inat"), images=300, side=64)


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "inat")


@pytest.fixture
def tables_of_2019(tmp_path):
    """The real tables of ISIC 2019, in ``tmp_path``."""
    if not SHARED.is_dir():
        pytest.skip("the developers' folder of data is not here")
    with tarfile.open(SHARED / "annotations.tar.xz") as shipped:
        for member in shipped:
            if Path(member.name).name.startswith("ISIC_2019"):
                shipped.extract(member, tmp_path, filter="data")
