"""Nobody changes what is trained without noticing: losses of two epochs of every recipe, as stored."""

from __future__ import annotations

import json

import pytest
import torch

from hml_core import datasets, recipes
from hml_core.config import RunConfig
from hml_core.trainer import Trainer

TOLERANCE = 1e-2  # another number of threads changes LDAM by 2e-3, the others by less than 1e-4


def losses(recipe: str) -> list[float]:
    stage_ends = {"stage_ends": (1,)} if len(recipes.get(recipe).stages) == 2 else {}
    config = RunConfig(recipe=recipe, epochs=2, batch_size=64, learning_rate=0.01, **stage_ends)
    trained = Trainer(config, datasets.load(config), torch.device("cpu"))
    while not trained.done:
        for _ in trained.train_epoch():
            pass
        trained.end_epoch()
    return [row["train_loss"] for row in trained.history]


@pytest.mark.parametrize("recipe", recipes.names())
def test_two_epochs_have_the_stored_losses(recipe, repository):
    stored = json.loads((repository / "tests" / "data" / "two_epochs.json").read_text())
    assert losses(recipe) == pytest.approx(stored[recipe], rel=TOLERANCE)
