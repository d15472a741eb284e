"""JupyterLab on copies of the notebooks, and a headless Chromium that knows only this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs it")

# Without these Chromium asks its maker's hosts for updates all the time.
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page at once
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# Small values for what trains; the others run as they are.
QUICKSTART = {"recipes": ["ce", "hml1"], "seeds": [0, 1], "epochs": 6}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    url: str
    token: str

    def page(self, notebook: str) -> str:
        """The address of a notebook."""
        return f"{self.url}lab/tree/notebooks/{notebook}?token={self.token}&reset"


@pytest.fixture(scope="session")
def lab(tmp_path_factory, repository) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    for path in (repository / "notebooks").glob("*.ipynb"):
        shutil.copy(path, folder / "notebooks")
        _set_parameters(folder / "notebooks" / path.name, {"results_root": str(folder / "results")})
    _set_parameters(folder / "notebooks" / "00_quickstart.ipynb", QUICKSTART)
    settings = folder / "settings"
    for name, values in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    token = secrets.token_hex(16)
    environment = {
        **os.environ, "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--allow-root",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (found := list((folder / "runtime").glob("jpserver-*.json"))):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield Lab(json.loads(found[0].read_text())["url"], token)
    finally:
        server.terminate()
        server.wait(30)


def _set_parameters(path: Path, values: dict) -> None:
    content = nbformat.read(path, as_version=4)
    (cell,) = (c for c in content.cells if "parameters" in c.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    nbformat.write(content, path)


@pytest.fixture(scope="session")
def browser():
    with playwright.sync_playwright() as started:
        executable = os.environ.get("HML_CHROMIUM") or shutil.which("chromium")
        launched = started.chromium.launch(executable_path=executable, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory, repository):
    """The site of the published notebooks, with one room of the reference."""
    for name in ("sphinx", "myst_nb", "pydata_sphinx_theme"):
        pytest.importorskip(name, reason="the extra `docs` is not installed: `make docs` does it")
    from hml_lab import site

    paths = sorted((repository / "results" / "notebooks").glob("*.ipynb"))
    folder = tmp_path_factory.mktemp("site") / "site"
    site.build(paths, folder, rooms=["hml_core.losses"])
    return folder
