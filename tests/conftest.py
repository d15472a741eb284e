"""What several tests share: a small config, one thread, and the images of the developers' folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import hml_lab.notebooks  # noqa: F401  (before nbformat: it saves that some loading)

# (The process that only hands out the tests reads this file, too, before any is begun: no torch here.)
if TYPE_CHECKING:
    from hml_core.config import RunConfig

# No test depends on the clock of the machine: an example may take as long as it likes.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors: a second thread costs more than it brings, and results must not depend on it.

    The processes that tests start are more than there are cores, and so are the tests at a time.
    """
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk():
    """See :func:`tests.forks.wait_for_no_disk`, for this process."""
    from tests import forks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fsync)  # given back in the end
        forks.wait_for_no_disk()
        yield


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard():
    """Whatever started the tests may ignore signals (nohup, a job in the background), and so would all
    that they start; what a test sends must not get lost."""
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_collection_modifyitems(items):
    """Begin with the files that take long: of several workers none is left alone with one in the end."""
    first = {item.path for item in items if item.get_closest_marker("begun_first")}
    items.sort(key=lambda item: item.path not in first)


@pytest.fixture
def tiny():
    """Make configs of runs that take a fraction of a second."""
    from hml_core.config import RunConfig

    def make(**fields) -> RunConfig:
        return RunConfig(**{"dataset": "digits", "epochs": 4, "batch_size": 64, **fields})

    return make


@pytest.fixture
def begin(monkeypatch):
    """Train with the arguments of :func:`fit` until the first checkpoint is written, and no further."""
    from hml_core.trainer import fitting
    from tests import begun

    monkeypatch.setattr(fitting, "CHECKPOINT_INTERVAL_S", 0.0)
    return begun.until_its_checkpoint


@pytest.fixture
def forked_kernels():
    """See :mod:`tests.forks`."""
    from tests import forks

    with forks.kernels():
        yield


@pytest.fixture(scope="module")
def forked_workers():
    """See :mod:`tests.forks`."""
    from tests import forks

    with forks.workers():
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout; tests of notebooks and of the packaging need it."""
    return REPOSITORY


@pytest.fixture(scope="session")
def miniature(tmp_path_factory) -> Path:
    """A made-up iNaturalist 2018 in the official layout, prepared: 24 classes, ratio 20 and more."""
    from data_prep.inaturalist import archive, images, synthetic
    from data_prep.inaturalist.prepare import prepare

    root = tmp_path_factory.mktemp("inat2018")
    found = archive.read(synthetic.make(root, 400))
    prepare(found, root / "prepared", images.Options(size=64), workers=1, progress=False)
    return root
