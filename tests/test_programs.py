"""Programs that train runs: their threads, forks and settings of torch are no part of a result."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import registry
from hml_core.engines import jobs
from hml_core.runs import Run
from hml_core.system import devices, seeds
from hml_core.trainer import fit, fitting
from tests.test_kept_weights import images_of


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("plain")
    return fit(_small(), runs_root=root, progress=False, keep_weights="last")


def _small(**fields) -> RunConfig:
    return RunConfig(**{"recipe": "hml1", "model": "resnet8", "epochs": 2, **fields})


@contextlib.contextmanager
def changed(get, change, value):
    before = get()
    change(value)
    try:
        yield
        assert get() == value, "as it was before"
    finally:
        change(before)


OF_A_PROGRAM = {
    "default type": lambda: changed(
        torch.get_default_dtype, torch.set_default_dtype, torch.float64
    ),
    "fewer bits": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "fewer bits of one library": lambda: changed(
        lambda: torch.backends.mkldnn.conv.fp32_precision,
        lambda value: setattr(torch.backends.mkldnn.conv, "fp32_precision", value),
        "bf16",
    ),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "no gradients": torch.inference_mode,
}


@pytest.mark.parametrize("setting", OF_A_PROGRAM)
def test_what_a_program_has_set_in_torch_is_not_part_of_a_result(setting, plain, tmp_path):
    """The record would say nothing of it, under the same id."""
    images = images_of(plain.config)
    with OF_A_PROGRAM[setting]():
        other = fit(_small(), runs_root=tmp_path, progress=False)
        predicted = plain.model().logits(images)
    assert np.array_equal(plain.predictions[0], other.predictions[0])
    assert np.array_equal(plain.predictions[0], predicted.numpy())


def test_settings_of_all_threads_are_given_back_by_the_last():
    """Who asks a kept network meanwhile, and is done, takes nothing from the run that is computed."""
    precision = torch.get_float32_matmul_precision
    with changed(precision, torch.set_float32_matmul_precision, "medium"):
        with contextlib.ExitStack() as run:
            with devices.plain_numbers():
                run.enter_context(devices.plain_numbers())
            assert precision() == "highest"
            torch.set_float32_matmul_precision("high")  # the program, beside a run
            with devices.plain_numbers():
                assert precision() == "highest"
        assert precision() == "high"
        torch.set_float32_matmul_precision("medium")


def digits_are_read_by(load, monkeypatch) -> None:
    """(A data set of one's own would have an identity.)"""
    changed = dataclasses.replace(datasets.info("digits"), load=load)
    for known in (registry.DATASETS, registry.BUILT_IN):
        monkeypatch.setitem(known, "digits", changed)


def test_a_loader_s_own_threads_may_ask_a_kept_network(plain, tmp_path, monkeypatch):
    """They draw, and the loader that waits for them has the turn; what it draws itself stays the same."""
    of_its_own, drawn = datasets.info("digits"), []

    def load(config, root):
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(plain.model) for _ in range(4)]
            with seeds.seeded(3, "read"):
                drawn.append(torch.rand(2).tolist())
            for one in asked:
                one.result()
        return of_its_own.load(config, root)

    digits_are_read_by(load, monkeypatch)
    state = torch.get_rng_state()
    other = fit(_small(), runs_root=tmp_path, progress=False)
    assert np.array_equal(plain.predictions[0], other.predictions[0])
    assert torch.equal(torch.get_rng_state(), state)
    with seeds.seeded(3, "read"):
        assert drawn == [torch.rand(2).tolist()]


@contextlib.contextmanager
def turn_of_another_thread() -> Iterator[threading.Event]:
    """Another thread has the turn until the event is set, or the block is over."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with seeds.turn:
            is_held.set()
            is_over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    try:
        yield is_over
    finally:
        is_over.set()
        holder.join()


@pytest.mark.parametrize("wanted", [seeds.apart, seeds.taken])
def test_who_waits_long_for_its_turn_says_so(wanted, monkeypatch):
    monkeypatch.setattr(seeds, "SAID_S", 0.01)
    said = []

    def hear(text: str, **_) -> None:
        said.append(text)
        is_over.set()

    with turn_of_another_thread() as is_over, monkeypatch.context() as patch:
        patch.setattr(seeds.warnings, "warn", hear)
        with wanted():
            pass
    assert len(said) == 1
    assert "this one waits for its turn" in said[0]


def test_runs_of_several_threads_are_those_of_one(tmp_path):
    """They take turns at torch's global generators and settings, step by step."""
    configs = [_small(recipe="ce", epochs=1, seed=seed) for seed in range(6)]

    def trained(root: str, threads: int) -> list[np.ndarray]:
        def train(config):
            return fit(config, runs_root=tmp_path / root, progress=False).predictions[0]

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(train, configs))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        together = trained("together", 3)
    finally:
        sys.setswitchinterval(before)
    assert all(map(np.array_equal, together, trained("alone", 1)))


def test_chance_is_one_thread_s_at_a_time():
    """torch's layers draw from a generator that all threads share."""

    def draw(stream: str, *, beside: threading.Thread | None = None) -> list[float]:
        with seeds.seeded(0, stream):
            if beside is not None:
                beside.start()
                beside.join(0.2)  # were it not to wait, it would be over by then
                assert beside.is_alive()
            return torch.rand(3).tolist()

    other = threading.Thread(target=draw, args=("other",))
    assert draw("one", beside=other) == draw("one")
    other.join()


def test_an_interruption_before_it_comes_back_is_not_hidden(monkeypatch):
    """Who stood aside and is interrupted, as it waits for its turn again, holds nothing any more."""

    def interrupt(**_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), seeds.apart(), seeds.others_turn():
        monkeypatch.setattr(seeds, "_acquired", interrupt)
    monkeypatch.undo()
    assert not seeds.holding.parts

    def is_free() -> bool:
        if is_mine := seeds.turn.acquire(blocking=False):
            seeds.turn.release()
        return is_mine

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(is_free).result()


def test_one_run_in_two_threads_is_trained_once(tmp_path):
    """Who waits for the other's run holds nothing that it needs to go on."""
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(fit, _small(epochs=3), runs_root=tmp_path, progress=False) for _ in range(2)
        ]
        assert done[0].result().run_id == done[1].result().run_id


@pytest.mark.parametrize("where", ["the loader", "a seeded block"])
def test_a_run_that_trains_another_one_first_waits_for_no_thread_that_waits_for_it(
    where, tmp_path, monkeypatch
):
    """A teacher, whom a third thread trains at that moment: that one needs its turn to go on."""
    teacher = _small(recipe="ce", epochs=2)
    of_its_own = datasets.info("digits")
    has_begun, may_go_on, drawn = threading.Event(), threading.Event(), []

    def load(config, root):
        if config == teacher:
            return of_its_own.load(config, root)
        with seeds.seeded(7, "taught") if where != "the loader" else contextlib.nullcontext():
            first = torch.rand(1).item()
            fit(teacher, runs_root=tmp_path, progress=False)
            drawn.append((first, torch.rand(1).item()))
        return of_its_own.load(config, root)

    digits_are_read_by(load, monkeypatch)
    students = [_small(recipe="ce", epochs=1, seed=seed) for seed in (0, 1)]

    def teach() -> None:
        for _ in fitting.training(teacher, runs_root=tmp_path, progress=False):
            has_begun.set()  # it has the run's lock, and rests between two steps
            may_go_on.wait()

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(teach)]
        assert has_begun.wait(600), runs
        runs += [pool.submit(fit, one, runs_root=tmp_path, progress=False) for one in students]
        may_go_on.set()
        for one in runs:
            one.result()
    if where != "the loader":
        with seeds.seeded(7, "taught"):
            assert [(torch.rand(1).item(), torch.rand(1).item())] * 2 == drawn


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "way",
    [
        lambda: contextlib.nullcontext(devices.resolve("cpu")),
        devices.plain_numbers,  # who asks a kept network
        lambda: jobs.cpu_threads(2),  # a sweep whose runs have two each
    ],
    ids=["training", "asking", "sweep"],
)
def test_a_forked_process_waits_for_no_thread_that_is_not_there(way):
    """A pool of multiprocessing's, after something was trained: torch's threads are the parent's."""
    torch.set_num_threads(2)

    def look() -> None:
        status = 1
        try:
            with way():
                threads = torch.get_num_threads()
            status = 0 if threads == 1 and seeds.turn.acquire(blocking=False) else 1
        finally:
            os._exit(status)

    with turn_of_another_thread():
        if (child := os.fork()) == 0:
            look()
    torch.set_num_threads(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
