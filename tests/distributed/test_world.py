"""What processes exchange, and how they find each other, without starting any."""

from __future__ import annotations

import atexit
import datetime
import io
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hml_core.config import RunConfig
from hml_core.errors import DataError, DeviceError, HmlError, RunError
from hml_core.system import ending
from hml_core.trainer import world
from hml_core.trainer.chance import LayerChance
from hml_core.trainer.epochs import Shares
from hml_core.trainer.world import ALONE, ProcessError, World, _own_device, group, meet


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("number", [7, 24, 24_426])
def test_shares_cover_everything_once_in_order(size, number):
    shares = [np.arange(number)[World(rank, size).share(number)] for rank in range(size)]
    assert np.concatenate(shares).tolist() == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_every_exchange_is_the_identity():
    part = np.arange(3)
    assert ALONE.joined(part) is part
    assert ALONE.all("a") == ["a"]
    assert ALONE.from_first(lambda: 5) == 5
    assert torch.equal(ALONE.total(torch.ones(2)), torch.ones(2))
    with pytest.raises(DataError, match="mine"), ALONE.together():
        raise DataError("mine")
    with group("cpu") as (world, device):
        assert world is ALONE
        assert device.type == "cpu"


def test_a_process_says_why_another_one_stopped():
    store = dist.HashStore()
    World(1, 2, store).leave_word(DataError("the image is gone"))
    World(0, 2, store).leave_word(DataError("too late: the first word stays"))
    lost = RuntimeError("Connection closed by peer")
    cause = World(0, 2, store).cause(lost)
    assert isinstance(cause, ProcessError)
    assert str(cause) == "Process 1: the image is gone"
    own = DataError("my own")
    assert World(0, 2, store).cause(own) is own


def test_without_a_word_the_error_of_the_lost_connection_stays(monkeypatch):
    """The other process was killed, and could leave none."""
    monkeypatch.setattr(world, "WORD", datetime.timedelta(milliseconds=1))
    lost = RuntimeError("Connection closed by peer")
    assert World(0, 2, dist.HashStore()).cause(lost) is lost


def of_all(size: int, call: Callable[[int], Any]) -> list[Any]:
    """What the call gives, or raises, for each rank of a group of processes; here they are threads."""
    found: dict[int, Any] = {}

    def one(rank: int) -> None:
        try:
            found[rank] = call(rank)
        except HmlError as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in reversed(range(size))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [found[rank] for rank in range(size)]


def meet_all(store, size: int) -> list[str]:
    """The names that so many processes agree on."""
    return of_all(size, lambda rank: meet(store, rank, size))


def test_a_new_group_does_not_take_up_what_an_old_one_left():
    store = dist.HashStore()
    groups = [meet_all(store, 3) for _ in range(4)]
    assert all(len(set(names)) == 1 for names in groups), "everyone has the same name"
    assert len({names[0] for names in groups}) == 4, "and every group another"
    # A group whose first process died before it was complete: only a proposal is left.
    store.set("hml/proposal", "nobody")
    assert len(set(meet_all(store, 3))) == 1
    assert len(set(meet_all(store, 5))) == 1, "two more hosts have come"
    assert len(set(meet_all(store, 2))) == 1


def test_a_process_without_a_device_stops_all_before_they_connect(monkeypatch):
    """Nine processes on eight GPUs: the ninth says so, and nobody waits for it."""
    monkeypatch.setenv("LOCAL_RANK", "99")
    wanted = ["cpu", "cuda:99"]
    store = dist.HashStore()
    lost, own = of_all(2, lambda rank: _own_device(wanted[rank], store, rank, 2))
    assert isinstance(own, DeviceError)
    assert isinstance(lost, ProcessError)
    assert str(lost) == f"Process 1: {own}"
    both = of_all(2, lambda rank: _own_device("cpu", dist.HashStore(), 0, 1))
    assert both == [torch.device("cpu")] * 2


def test_processes_on_different_kinds_of_devices_are_refused(monkeypatch):
    """A host without a GPU among hosts with one; nothing is computed on the GPU that is pretended."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    store = dist.HashStore()
    wanted = ["cpu", "cuda"]
    both = of_all(2, lambda rank: _own_device(wanted[rank], store, rank, 2))
    assert [type(error) for error in both] == [RunError, RunError]
    assert str(both[0]) == str(both[1])
    assert "same kind of device for every process, got process 0 cpu, process 1 cuda" in str(
        both[0]
    )


def test_each_process_of_a_host_has_the_gpu_of_its_local_rank(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert _own_device("auto", dist.HashStore(), 0, 1) == torch.device("cuda", 1)


def test_who_meets_nobody_says_so(monkeypatch):
    """The first process proposes a group and never confirms it."""
    monkeypatch.setattr(world, "TIMEOUT", datetime.timedelta(seconds=0.2))
    store = dist.HashStore()
    store.set("hml/proposal", "nobody")
    with pytest.raises(RunError, match=r"Process 1 met no group within 0:00:00\.2"):
        meet(store, 1, 2)


def test_a_process_leaves_with_its_status_once_all_is_said(monkeypatch):
    """Even where nobody reads what it says any more; no destructor runs after that."""
    order = []

    class Unheard(io.StringIO):
        def flush(self):
            order.append("flush")
            raise BrokenPipeError

    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: order.append("exit functions"))
    monkeypatch.setattr(ending, "_end", order.append)
    monkeypatch.setattr(sys, "stdout", Unheard())
    monkeypatch.setattr(sys, "stderr", Unheard())
    world.leave(3)
    assert order == ["exit functions", "flush", "flush", 3]


@pytest.mark.parametrize(
    ("rank", "size"),
    [("x", "2"), ("0", "x"), ("5", "2"), ("2", "2"), ("0", "0"), ("0", "1" * 30), ("²", "4"), ("-1", "2")],
)  # fmt: skip
def test_an_environment_of_something_else_is_named(rank, size, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    match = r"as torchrun sets them \(0 ≤ RANK < WORLD_SIZE\)"
    with pytest.raises(RunError, match=match), group("cpu"):
        pass


@pytest.mark.parametrize("told", ["", "0", "3", "abc", "-2", "1" * 30])
def test_the_processes_of_this_machine_are_of_the_group(told, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", told)
    assert world.processes_here() == 1, "without a group nobody set it for us"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match=r"Expected LOCAL_WORLD_SIZE as torchrun sets it \(1 to 2\)"):
        world.processes_here()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert world.processes_here() == 1
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert world.processes_here() == 2


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"MASTER_ADDR": "127.0.0.1"},
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "abc"},
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999999"},
        {world.MEETING: "/"},
    ],
)
def test_a_place_where_nobody_can_meet_is_named(told, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", world.MEETING):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **told}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=r"^Process 0 of 2 cannot reach the others at"), group("cpu"):
        pass


def test_waiting_for_others_hears_signals(monkeypatch):
    """The store's own wait would come back to Python at its end alone."""
    slept = []
    monkeypatch.setattr(world.time, "sleep", lambda seconds: slept.append(seconds) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        meet(dist.HashStore(), 0, 2)
    with pytest.raises(ZeroDivisionError):
        meet(dist.HashStore(), 1, 2)
    assert slept == [world.POLL_S] * 2


def test_layers_draw_the_same_for_a_micro_batch_whichever_process_works_on_it():
    config = RunConfig(batch_size=64, micro_batch_size=16)

    def drawn(rank: int, size: int, step: int) -> list[float]:
        found = []
        shares = Shares(config, World(rank, size), images=640)
        chance = LayerChance(config, shares, torch.device("cpu"), is_needed=True)
        with chance.of_step(0, step):
            for part in range(shares.per_step):
                with chance.of_part(part):
                    found.append(torch.rand(()).item())
        return found

    alone = drawn(0, 1, step=3)
    assert drawn(0, 2, step=3) + drawn(1, 2, step=3) == alone
    assert len({*alone, *drawn(0, 1, step=4)}) == 8, "and no two of a run draw the same"
