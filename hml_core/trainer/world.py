"""Processes that train one run together: who they are, what they exchange, how they fail together.

``torchrun`` starts the processes and starts them anew when one dies. They compute on shares of every batch
and of every evaluation; the first of them holds the run's lock and writes its record.

What is exchanged here lies on the CPU and goes through gloo. Gradients are left to
``DistributedDataParallel``, which uses NCCL between GPUs.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hml_core.errors import ConfigError, HmlError, RunError, Stopped, never_left
from hml_core.system import devices, ending

TIMEOUT = datetime.timedelta(minutes=30)  # of the slowest thing that others wait for
WORD = datetime.timedelta(seconds=2)
POLL_S = 0.05
MOST_DEVICES = 10**4  # of a machine
_FAILURE = "failure"
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
MEETING = "HML_MEETING"  # names the file by which the processes of one machine meet, if they do

Value = TypeVar("Value")


class ProcessError(RunError):
    """Another process of the group failed; the message is its own."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Parameters
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many there are. With one, every exchange below is the identity.
    store : torch.distributed.Store, optional
        Where a process that fails leaves word for the others.
    """

    rank: int = 0
    size: int = 1
    store: dist.Store | None = field(default=None, repr=False, compare=False)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, number: int) -> slice:
        """The part of ``number`` things that is this process's: none twice, none left out.

        >>> [World(rank, 3).share(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        return slice(self.rank * number // self.size, (self.rank + 1) * number // self.size)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        found = tensor.detach().cpu().clone()
        if self.size > 1:
            dist.all_reduce(found)
        return found

    @torch.no_grad()
    def average_(self, tensors: list[Tensor]) -> None:
        """Replace floating-point tensors by their mean over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().cpu().flatten() for tensor in tensors])
        flat = self.total(flat) / self.size
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, flat.split(sizes), strict=True):
            tensor.copy_(mean.reshape(tensor.shape))

    def average_buffers(self, *models: nn.Module | None) -> None:
        """Running statistics as they are with one process, see :class:`hml_core.trainer.update.Update`."""
        for model in filter(None, models):
            self.average_([buffer for buffer in model.buffers() if buffer.is_floating_point()])

    def joined(self, part: np.ndarray) -> np.ndarray:
        """The parts (:meth:`share`) of all processes one after the other."""
        return part if self.size == 1 else np.concatenate(self.all(part))

    def all(self, value: Value) -> list[Value]:
        """What every process gives, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def any_of(self, value: Value | None) -> Value | None:
        """What the first process that has something gives; None where none has."""
        return next((given for given in self.all(value) if given is not None), None)

    def require_same(self, options: Mapping[str, Any]) -> None:
        """On several hosts people type the same command several times.

        Raises
        ------
        ConfigError
            Naming the first option that differs and the process that has it.
        """
        told = self.all(dict(options))
        for rank, other in enumerate(told):
            for name, value in other.items():
                if value != told[0][name]:
                    raise ConfigError(
                        f"Expected the same options for every process: `{name}` is {told[0][name]!r} "
                        f"for process 0 and {value!r} for process {rank}."
                    )

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, on every process; also its error."""
        with self.together():
            made = [make() if self.is_first else None]
        if self.size > 1:
            dist.broadcast_object_list(made, src=0, device=torch.device("cpu"))
        return made[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The processes leave the block together, or all with an error if one has one.

        Only for work without exchanges: a process that has failed takes part in none.
        """
        if self.size == 1:
            yield
            return
        own: Exception | None = None
        try:
            with never_left(f"Process {self.rank}"):
                yield
        except Exception as error:
            own = error
        if not self.total(torch.tensor(int(own is not None))):
            return
        failures = self.all(None if own is None else _named(own, self.rank))
        if own is not None:
            raise own
        raise ProcessError(next(text for text in failures if text is not None))

    def cause(self, error: BaseException) -> BaseException:
        """The error, or, where this process only noticed that another was gone, that one's."""
        is_own = isinstance(error, HmlError) or not isinstance(error, RuntimeError)
        if self.store is None or is_own:
            return error
        with contextlib.suppress(Exception):  # no word was left: the other one was killed
            self.store.wait([_FAILURE], WORD)
            return ProcessError(self.store.get(_FAILURE).decode())
        return error

    def leave_word(self, error: BaseException) -> None:
        """Tell the others why this process stops; the first word stays."""
        with contextlib.suppress(Exception):  # the store is gone, and everybody with it
            self.store.compare_set(_FAILURE, "", _named(error, self.rank))


ALONE = World()


def _named(error: BaseException, rank: int) -> str:
    if isinstance(error, ProcessError):
        return str(error)
    text = str(error) if isinstance(error, HmlError) else f"{type(error).__name__}: {error}"
    return f"Process {rank}: {text}"


def is_in_group() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def place_in_group() -> tuple[int, int]:
    """Rank and number of processes, as ``torchrun`` tells them; (0, 1) without it.

    Raises
    ------
    RunError
        Where the environment says something else than numbers that go together.
    """
    told = [os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))]
    if not all(map(_is_number, told)) or not int(told[0]) < int(told[1]):
        raise RunError(
            "Expected RANK and WORLD_SIZE as torchrun sets them (0 ≤ RANK < WORLD_SIZE), got "
            f"{told[0]!r:.40} and {told[1]!r:.40}."
        )
    return int(told[0]), int(told[1])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 7


def processes_here() -> int:
    """How many processes of the group share this machine, as ``torchrun`` tells them; 1 without it.

    Raises
    ------
    RunError
        Where the environment says something else than a number of them.
    """
    size = place_in_group()[1]
    return 1 if size == 1 else _local("LOCAL_WORLD_SIZE", range(1, size + 1), str(size))


def _local(name: str, expected: range, default: str = "") -> int:
    told = os.environ.get(name, default)
    if not _is_number(told) or int(told) not in expected:
        raise RunError(
            f"Expected {name} as torchrun sets it ({expected[0]} to {expected[-1]}), got {told!r:.40}."
        )
    return int(told)


@contextlib.contextmanager
def group(device: str | torch.device = "auto") -> Iterator[tuple[World, torch.device]]:
    """Join the processes that ``torchrun`` started, inside the block; without it, a world of one.

    Yields the world and this process's device: the CUDA device of its local rank, or what ``device``
    says.

    Raises
    ------
    DeviceError
        Where this process has no device of its own.
    ProcessError
        Where another process has none, or failed inside the block, with that process's message.
    """
    if place_in_group()[1] == 1:
        yield ALONE, devices.resolve(device)
        return
    shared, rank, size = _shared_store()
    store = dist.PrefixStore(f"hml/{meet(shared, rank, size)}", shared)
    own = _own_device(device, store, rank, size)
    on_cuda = own.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(own)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    world = World(rank, size, store)
    # torchrun stops the others when one process ends: they should say why before they do.
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield world, own
        world.all(None)  # nobody closes connections that another one still uses
    except BaseException as error:
        cause = world.cause(error)
        world.leave_word(cause)
        if cause is error:
            raise
        raise cause from error
    finally:
        signal.signal(signal.SIGTERM, before)
        if dist.is_initialized():
            dist.destroy_process_group()


def _shared_store() -> tuple[dist.Store, int, int]:
    """Where the processes of the group leave word, with this one's rank and their number."""
    rank, size = place_in_group()
    file = os.environ.get(MEETING)
    try:
        if file is None:
            store = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))[0]
        else:
            store = dist.FileStore(file, size)
            store.set_timeout(TIMEOUT)
            store.add("hml/there", 1)
    except (
        ValueError,
        TypeError,
        OverflowError,
        RuntimeError,
    ) as error:  # (torch's own is the last)
        place = file or ":".join(os.environ.get(name, "?") for name in ADDRESS)
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(
            f"Process {rank} of {size} cannot reach the others at {place!r:.200} ({reason}). Expected "
            f"{' and '.join(ADDRESS)} as torchrun sets them."
        ) from error
    return store, rank, size


def _own_device(
    device: str | torch.device, store: dist.Store, rank: int, size: int
) -> torch.device:
    """This process's device, once every process has said that it has one, of the same kind."""
    own, error = None, None
    try:
        own = devices.resolve(device)
        if own.type == "cuda":
            own = devices.resolve(f"cuda:{_local('LOCAL_RANK', range(MOST_DEVICES))}")
    except HmlError as failure:
        error = failure
    store.set(f"device/{rank}", "" if own is None else own.type)
    store.set(f"no device/{rank}", "" if error is None else _named(error, rank))
    names = [[f"{what}/{other}" for other in range(size)] for what in ("device", "no device")]
    _wait(store, names[0] + names[1])
    kinds, failures = ([store.get(name).decode() for name in some] for some in names)
    if error is not None:
        raise error
    if failed := [text for text in failures if text]:
        raise ProcessError(failed[0])
    if len(set(kinds)) > 1:
        told = ", ".join(f"process {other} {kind}" for other, kind in enumerate(kinds))
        raise RunError(f"Expected the same kind of device for every process, got {told}.")
    return own


def _wait(store: dist.Store, keys: list[str]) -> None:
    """Until all of them are there; in steps, as no signal is heard within the store's own wait."""
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while not store.check(keys):
        if time.monotonic() > deadline:
            raise RunError(f"The other processes of the group did not come within {TIMEOUT}.")
        time.sleep(POLL_S)


def meet(store: dist.Store, rank: int, size: int) -> str:
    """A name that the processes of this group have and no earlier group had.

    torchrun's store outlives a group: addresses that dead processes left there would be taken for those
    of the new ones. (How often a process was restarted does not tell: hosts count for themselves.) The
    first process proposes a name, the others sign it, and only a list with one's own signature counts.
    """
    signature = uuid.uuid4().hex
    if rank == 0:
        store.set("hml/proposal", signature)
        signed = [f"hml/{signature}/signed/{other}" for other in range(1, size)]
        _wait(store, signed)
        names = [signature, *(store.get(key).decode() for key in signed)]
        store.set(f"hml/{signature}/group", " ".join(names))
        return signature
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        _wait(store, ["hml/proposal"])  # for the first one
        proposal = store.get("hml/proposal").decode()
        store.set(f"hml/{proposal}/signed/{rank}", signature)
        group_key = f"hml/{proposal}/group"
        if store.check([group_key]):
            names = store.get(group_key).decode().split()  # an earlier group may have been smaller
            if names[rank : rank + 1] == [signature]:
                return proposal
        time.sleep(POLL_S)
    raise RunError(f"Process {rank} met no group within {TIMEOUT}.")


def leave(status: int) -> NoReturn:
    """End this process of a group, at once, once everything has been said and written.

    Threads of torch (of gloo, of a store) may outlive the interpreter. If they meet the destructors that
    run after it, the process aborts ("terminate called without an active exception"), and torchrun takes a
    finished run for a failed one. So that nothing runs after it, there is no such end.
    """
    ending.leave(status)


def _stop(number: int, frame: Any) -> None:
    raise Stopped("stopped from outside (SIGTERM)")
