"""What the tests of one's own methods share: registries that forget, and a file that is imported anew."""

from __future__ import annotations

import importlib
import sys

import pytest

from hml_core import sampling
from hml_core.config import identity


@pytest.fixture(autouse=True)
def registries():
    """What a test registers is gone after it."""
    before = {kind: dict(registry) for kind, registry in identity.REGISTRIES.items()}
    own = dict(sampling._OWN)
    yield
    for kind, registry in identity.REGISTRIES.items():
        registry.clear()
        registry.update(before[kind])
    sampling._OWN.clear()
    sampling._OWN.update(own)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a file of one's own, again with each text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str, name: str = "mine_for_tests"):
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    sys.modules.pop("mine_for_tests", None)
