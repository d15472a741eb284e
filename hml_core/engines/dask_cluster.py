"""A Dask cluster that somebody else started: speak to its scheduler, and look at its workers first."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hml_core.engines.jobs import Place
from hml_core.errors import DeviceError, RunError
from hml_core.system import files, provenance, streams

CONNECT_TIMEOUT_S = 10
PROTOCOLS = ("tcp", "tls")
GPU = {"GPU": 1}  # what a worker with one offers
LOOK_S = 5.0  # between two looks at the workers of somebody's cluster
# Of these workers: then it is said (the first time they import torch, over a network).
SILENT_S = 30.0
GONE_S = 300.0  # without a worker of a cluster of ours: then no other one comes


def client_of(cluster: Any, **options: Any) -> Any:
    """A client of Dask that nothing but its ``with`` block closes.

    Dask's own is closed when its garbage is collected, too. One that is left half made, as nobody answers,
    shows a traceback then, or, where the collector comes while another one starts, waits for one lock for
    ever.
    """
    from distributed import Client

    class OurClient(Client):
        def __del__(self) -> None:
            pass

    return OurClient(cluster, set_as_default=False, **options)


@contextlib.contextmanager
def connected(address: str, place: Place) -> Iterator[tuple[Any, dict[str, int] | None]]:
    """A client of the cluster whose scheduler listens at ``address``, and what a run asks a worker for.

    Raises
    ------
    RunError
        For what is no address; where nobody answers, there is no worker, or a worker does not see the
        results folder.
    """
    require_address(address)
    try:
        with ThreadPoolExecutor(1) as apart:  # a notebook has a loop of its own in this thread
            apart.submit(lambda: asyncio.run(_greet(address))).result()
        client = client_of(address, timeout=CONNECT_TIMEOUT_S)
    except Exception as error:  # no answer, not an address, or whatever something else says there
        raise RunError(
            f"No Dask scheduler answers at {address!r}: {files.reason(error)}"
        ) from error
    with client:
        try:
            resources = examine(client, place)
        except OSError as error:
            raise gone(error) from error
        yield client, resources


def told_of_workers(client: Any) -> Callable[[], None]:
    """To be called while nothing ends: says when no worker is left, and goes on waiting for one.

    Whoever started the cluster may start others, as an adaptive one does by itself.
    """
    next_look, were_there = 0.0, True

    def look() -> None:
        nonlocal next_look, were_there
        if time.monotonic() < next_look:
            return
        next_look = time.monotonic() + LOOK_S
        are_there = bool(client.nthreads())
        if were_there and not are_there:
            streams.tell(
                f"Dask: no worker is left at {client.scheduler.address}. The sweep waits for one; what "
                "was finished is on disk, and the same call goes on from there."
            )
        were_there = are_there

    return look


def without_workers(client: Any) -> Callable[[], str | None]:
    """To be called while nothing ends: says why there is no hope, once no worker came up for long.

    Of a cluster of ours: each worker that dies is followed by another, until these die at once. Time in
    which nobody looked, as while the sweep was stopped (Ctrl-Z), is not counted.
    """
    next_look = last_look = last_seen = time.monotonic()

    def look() -> str | None:
        nonlocal next_look, last_look, last_seen
        if (now := time.monotonic()) < next_look:
            return None
        next_look = now + LOOK_S
        if client.nthreads() or now - last_look > GONE_S:
            last_seen = now
        last_look = now
        if now - last_seen < GONE_S:
            return None
        return (
            f"The engine 'dask' has had no worker for {GONE_S:.0f} s: those that it starts die at once. "
            "What was finished is on disk, and the same call goes on from there."
        )

    return look


def require_address(address: str) -> None:
    """RunError for what is no address of a Dask scheduler, before anybody is asked."""
    protocol, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    is_port = re.fullmatch(r"\d{1,5}", port) is not None and 0 < int(port) < 2**16
    if protocol not in PROTOCOLS or not host.strip("[]") or not is_port:
        expected = " or ".join(f"{one}://HOST:PORT" for one in PROTOCOLS)
        raise RunError(f"No Dask scheduler answers at {address!r}: expected {expected}.")


async def _greet(address: str) -> None:
    """Speak to what listens at an address as Dask does; an error where it does not answer so.

    Raises
    ------
    ValueError
        Where Dask's configuration names no certificates.
    TimeoutError
        Where nothing is said.
    """
    from distributed import Security
    from distributed.comm import connect, resolve_address

    security = Security().get_connection_args("client")
    if address.startswith("tls") and security.get("ssl_context") is None:
        raise ValueError("Dask's configuration names no certificates (`distributed.comm.tls`)")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            comm = await connect(resolve_address(address), **security)
            await comm.close()
    except TimeoutError as error:
        raise TimeoutError(f"nothing was said within {CONNECT_TIMEOUT_S} s") from error


def examine(client: Any, place: Place) -> dict[str, int] | None:
    """Refuse workers that cannot do the work before it begins; returns what a run asks for."""
    from distributed.comm import CommClosedError

    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise RunError(
            f"The Dask cluster at {client.scheduler.address} has no worker: start some with "
            f"`dask worker {client.scheduler.address} --nthreads 1` (with `--resources GPU=1`, one "
            "for each GPU)."
        )
    with_gpu = any(worker["resources"].get("GPU") for worker in workers.values())
    if place.device.startswith("cuda") and not with_gpu:
        raise DeviceError(
            f"The device {place.device!r} is asked for, but no worker offers a GPU: start one worker "
            "for each with `--resources GPU=1`."
        )
    token = place.runs_root / f".seen-{uuid.uuid4().hex}"
    token.touch()
    said = (
        f"Dask: not all of the {len(workers)} workers at {client.scheduler.address} have answered within "
        f"{SILENT_S:.0f} s; the sweep begins once they have, or their scheduler gives them up."
    )
    patience = threading.Timer(SILENT_S, streams.tell, [said])
    patience.daemon = True
    patience.start()
    try:
        seen = client.run(introduce, token, on_error="return")
    finally:
        patience.cancel()
        token.unlink(missing_ok=True)
    # One that ended meanwhile is not missed where others are there.
    seen = {name: one for name, one in seen.items() if not isinstance(one, CommClosedError)}
    if not seen:
        raise RunError(f"All workers of {client.scheduler.address} ended while they were asked.")
    for worker, answer in seen.items():
        if isinstance(answer, Exception):
            raise RunError(f"The worker {worker} cannot run this package: {answer!r}")
        if not answer["sees"]:
            raise RunError(
                f"The worker {worker} does not see the results folder {str(place.runs_root)!r}: "
                "expected a `runs_root` on a file system that all hosts share."
            )
        if answer["versions"]["hml-core"] != provenance.versions()["hml-core"]:
            raise RunError(
                f"The worker {worker} has hml-core {answer['versions']['hml-core']}, this process "
                f"{provenance.versions()['hml-core']}: expected the same."
            )
    wants_gpu = with_gpu and not place.device.startswith("cpu")
    return GPU if wants_gpu else None


def introduce(token: Path) -> dict[str, Any]:
    """What a worker says of itself: whether it sees a file of ours, and its versions."""
    return {"sees": token.exists(), "versions": provenance.versions()}


def gone(error: BaseException) -> RunError:
    return RunError(
        f"The Dask scheduler is gone ({error}); what was finished is on disk, and the same call goes on "
        "from there."
    )
