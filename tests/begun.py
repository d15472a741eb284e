"""Runs that were begun and stopped."""

from __future__ import annotations

import pytest

from hml_core.config import RunConfig
from hml_core.runs import RunFolder
from hml_core.trainer import fit, fitting


def until_its_checkpoint(config: RunConfig, **where) -> None:
    """Train with the arguments of :func:`fit` until the first checkpoint is written, and no further."""
    plain = RunFolder.checkpoint

    def checkpoint_and_stop(self, state):
        plain(self, state)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "CHECKPOINT_INTERVAL_S", 0.0)
        patch.setattr(RunFolder, "checkpoint", checkpoint_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit(config, progress=False, **where)
