"""Threads beside code of one's own: of its program, that send or register meanwhile, and of its loader."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from hml_core import datasets, losses
from hml_core.config import RunConfig
from hml_core.engines import travel
from hml_core.system import seeds
from tests.own_methods.helpers import LOSS, Gentle


def test_threads_that_send_at_once_send_all(module):
    """cloudpickle has one list of what goes by value, for all of them."""
    module(LOSS)
    config, sent, begin = RunConfig(recipe="mine"), [], threading.Barrier(2)

    def send() -> None:
        begin.wait()
        for _ in range(20):
            sent.extend(entry.content for entry in travel.pack(config).entries)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.modules.pop("mine_for_tests")
    assert len(sent) == 80
    for content in sent:
        travel._loaded(content)


def own_data_sets(**loaders) -> None:
    """Data sets by their names. (Not registered: what loaders wait for has no identity.)"""
    info = datasets.info("digits")
    for name, load in loaders.items():
        datasets.DATASETS[name] = datasets.DatasetInfo(load, 10, 100, info.defaults, {}, True)


def test_threads_of_a_loader_may_load_other_data_sets():
    info, config_of_digits = datasets.info("digits"), RunConfig(dataset="digits")
    drawn = []

    def part(config, data_root):
        drawn.append(np.random.random(3).tolist())  # noqa: NPY002
        return info.load(config, data_root)

    def whole(config, data_root):
        with ThreadPoolExecutor(2) as pool:
            parts = dataclasses.replace(config, dataset="part_for_tests")
            return list(pool.map(datasets.load, [parts, parts, config_of_digits])).pop()

    own_data_sets(part_for_tests=part, whole_for_tests=whole)
    loaded = datasets.load(RunConfig(dataset="whole_for_tests"))
    assert len(loaded.train.targets) == len(datasets.load(config_of_digits).train.targets)
    assert len(drawn) == 2
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("names", ["own own", "own other", "outer own"])
def test_a_pool_that_loaders_keep_is_theirs_in_the_next_load_too(names):
    """Of one data set, of two, or begun by one that another one loads."""
    info = datasets.info("digits")
    with ThreadPoolExecutor(2) as pool:

        def whole(config, data_root):
            parts = dataclasses.replace(config, dataset="part_for_tests")
            return [*pool.map(datasets.load, [parts, parts])].pop()

        def outer(config, data_root):
            return datasets.load(dataclasses.replace(config, dataset="own"))

        own_data_sets(part_for_tests=info.load, own=whole, other=whole, outer=outer)
        for seed, name in enumerate(names.split()):
            datasets.load(RunConfig(dataset=name, subset_seed=seed))
        assert not seeds._lent.is_for_us(("family", "strangers"))


def test_a_thread_of_a_loader_that_trains_waits_for_the_turn():
    """Beside the loader's own draws it would be another run than alone."""
    info, trains, waited = datasets.info("digits"), threading.Event(), []

    def train() -> None:
        with seeds.taken():
            trains.set()

    def load(config, data_root):
        thread.start()
        waited.append(not trains.wait(0.3))
        return info.load(config, data_root)

    thread = threading.Thread(target=train)
    own_data_sets(own=load)
    datasets.load(RunConfig(dataset="own"))
    thread.join(60)
    assert waited == [True]
    assert trains.is_set()


def test_threads_that_threads_of_a_loader_start_are_its_own():
    info, done = datasets.info("digits"), []

    def inner() -> None:
        datasets.load(RunConfig(dataset="part_for_tests"))
        done.append(True)

    def outer() -> None:
        thread = threading.Thread(target=inner)
        thread.start()
        thread.join(60)

    def load(config, data_root):
        thread = threading.Thread(target=outer)
        thread.start()
        thread.join(60)
        assert done
        return info.load(config, data_root)

    own_data_sets(part_for_tests=info.load, own=load)
    datasets.load(RunConfig(dataset="own"))


def test_a_data_set_draws_the_same_whatever_other_threads_do(tmp_path):
    """Another thread of the program registers and loads meanwhile: it waits. One of the loader's own does
    not."""
    inside, others_began = threading.Event(), threading.Event()
    drawn, done = [], []
    plain_start = threading.Thread.start

    def load(config, data_root):
        first = np.random.random(3)  # noqa: NPY002
        if threading.current_thread() is threading.main_thread() and not drawn:
            inside.set()
            others_began.wait(10)
            late_began.wait(10)
            assert not late_is_in.wait(0.3), "begun by another part of the program, it waits"
            own = threading.Thread(target=lambda: done.append(losses.register(Gentle)))
            state = torch.get_rng_state()
            own.start()
            own.join()
            torch.set_rng_state(state)
            assert done, "a thread of the loader has the generators"
        drawn.append([*first, *np.random.random(3), *torch.rand(3).tolist()])  # noqa: NPY002
        return datasets.BUILT_IN["digits"].load(config, data_root)

    own_data_sets(own=load)
    config = RunConfig(dataset="own")

    def late() -> None:
        late_began.set()
        losses.register(Gentle, name="late_for_tests")
        late_is_in.set()
        datasets.load(config)

    def others() -> None:
        inside.wait(10)
        others_began.set()
        begun_late.start()  # while the loader draws, and by another part of the program
        datasets.load(config)

    begun_late, late_began = threading.Thread(target=late), threading.Event()
    late_is_in = threading.Event()
    stranger = threading.Thread(target=others)
    stranger.start()
    datasets.load(config)
    stranger.join()
    begun_late.join()
    assert len(drawn) == 3
    assert drawn[0] == drawn[1] == drawn[2]
    assert seeds._lent.lenders == 0
    assert seeds._lent.family is None
    assert threading.Thread.start is plain_start


def test_threads_of_a_loader_are_its_own_after_another_was_at_work_beside_it():
    """Begun and ended meanwhile, in a thread of the first; nor is anything left of the two."""
    plain_start, answers = threading.Thread.start, []

    def ask() -> None:
        answers.append(seeds._lent.is_for_us(["family"]))

    def lend() -> None:
        with seeds.lending(draws=True):
            ask()

    with seeds.lending(draws=True):
        for target in (lend, ask):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert answers == [True, True]
    assert threading.Thread.start is plain_start


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_process_forked_by_a_loader_notes_none_of_its_threads():
    """It has no loader at work: what it starts is nobody's."""
    plain_start = threading.Thread.start
    with seeds.lending(draws=True):
        assert threading.Thread.start is not plain_start
        child = os.fork()
        if child == 0:
            os._exit(0 if threading.Thread.start is plain_start else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert threading.Thread.start is plain_start
