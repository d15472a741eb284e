"""What the tests of preparation share: a miniature of iNaturalist 2018, and work without workers."""

from __future__ import annotations

import shutil

import pytest

from data_prep import parallel
from data_prep.inaturalist import synthetic


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
