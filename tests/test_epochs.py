"""How the images of an epoch are shared out: none twice, none left out but the last batch's."""

from __future__ import annotations

import pytest
import torch

from hml_core import sampling
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, DataError
from hml_core.trainer.epochs import Shares, micro_batches
from hml_core.trainer.world import World

IMAGES = 101  # three batches of 32 and five more


def config(**fields) -> RunConfig:
    return RunConfig(dataset="digits", recipe="ce", batch_size=32, micro_batch_size=4, **fields)


@pytest.mark.parametrize("sampler", list(sampling.SAMPLERS))
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_processes_share_each_batch_of_every_sampler(size, sampler):
    targets = torch.arange(IMAGES) % 7
    order = sampling.epoch_indices(
        targets, sampler, generator=torch.Generator().manual_seed(0), progress=0.5
    )
    shares = [Shares(config(), World(rank, size), IMAGES) for rank in range(size)]
    own = [order[one.places(0)].reshape(one.steps, -1) for one in shares]
    assert torch.cat(own, dim=1).flatten().tolist() == order[:96].tolist(), "in the epoch's order"
    for one in shares:  # what is left after two steps
        assert torch.equal(one.places(2), one.places(0).reshape(3, -1)[2])
        assert one.per_step * size == 8
        parts = list(one.parts(len(one.places(0))))
        assert [part.stop - part.start for part in parts] == [4] * (3 * one.per_step)


def test_epochs_are_shuffled_anew_by_seed():
    targets = torch.arange(IMAGES) % 7
    orders = [
        sampling.epoch_indices(targets, generator=torch.Generator().manual_seed(seed)).tolist()
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_batch_in_one_piece_keeps_its_incomplete_end():
    shares = Shares(RunConfig(dataset="digits", recipe="ce", batch_size=32), World(), IMAGES)
    assert shares.steps == 4
    assert shares.places(3).tolist() == list(range(96, IMAGES))


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(
        ConfigError, match=r"16 processes cannot share a batch of 32 .* 8 micro-batch"
    ):
        micro_batches(config(), World(0, 16))
    with pytest.raises(ConfigError, match="3 processes cannot share"):
        Shares(config(), World(0, 3), IMAGES)
    with pytest.raises(DataError, match="31 training images are less than a batch"):
        Shares(config(), World(), 31)
