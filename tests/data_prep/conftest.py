"""A miniature of iNaturalist 2018, shared by the tests of its preparation."""

from __future__ import annotations

import shutil

import pytest

from data_prep.inaturalist import synthetic


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A synthetic archive that no test changes."""
    return synthetic.make(tmp_path_factory.mktemp("inat"), images=300, side=64)


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "inat")
