"""What tests of preparation share: a miniature of iNaturalist 2018, and work in this process."""

from __future__ import annotations

import shutil

import pytest

from data_prep import parallel
from data_prep.inaturalist import synthetic


@pytest.fixture
def in_this_process(monkeypatch):
    """Workers cost a second each to start: the same work is done here."""

    def one_by_one(process, work, folder, options, workers):
        return ((row, process(path, folder / row.file, options)) for row, path in work)

    monkeypatch.setattr(parallel, "in_parallel", one_by_one)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A synthetic archive that no test changes."""
    return synthetic.make(tmp_path_factory.mktemp("inat"), images=300, side=64)


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "inat")
