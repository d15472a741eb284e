"""Common beginnings: trained once, with the bits of each run alone, and nothing left behind."""

from __future__ import annotations

import pytest

from hml_core import __version__, engines, losses, recipes, runs
from hml_core.config import RunConfig
from hml_core.recipes import Stage
from hml_core.runs import RunFolder
from hml_core.trainer import Trainer, beginnings, branches, fit, fitting
from tests.quick import slow_but

# Of metrics.json: what depends on the clock, and what says who trained which epochs.
APART = ("seconds", "files", "checksum", "trained_epochs", "branch")


def outcome(run: runs.Run) -> tuple:
    metrics = {name: value for name, value in run.metrics.items() if name not in APART}
    history = run.history.drop(columns=[*runs.CLOCK]).to_csv()
    return metrics, history, {name: array.tobytes() for name, array in run._arrays.items()}


def swept(configs, root) -> dict[str, runs.Run]:
    frame = engines.sweep(configs, runs_root=root, progress=False)
    assert (frame["status"] == "done").all(), frame["error"].tolist()
    return {config.run_id: runs.Run(root / config.run_id).verify() for config in configs}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Train a run by itself, once for all tests that compare with it."""
    root = tmp_path_factory.mktemp("alone")
    return lambda config: fit(config, runs_root=root, progress=False)


@pytest.mark.slow
def test_every_recipe_has_the_bits_of_a_run_alone(tmp_path, alone):
    configs = [RunConfig(recipe=name, epochs=6, batch_size=64) for name in recipes.names()]
    shared = swept(configs, tmp_path / "shared")
    for config in configs:
        assert outcome(shared[config.run_id]) == outcome(alone(config)), config.recipe
    trained = sum(run.metrics["trained_epochs"] for run in shared.values())
    assert trained == branches.epochs_to_train(configs) <= 0.65 * 6 * len(configs)
    by_recipe = {run.config.recipe: run.metrics for run in shared.values()}
    ce = next(config.run_id for config in configs if config.recipe == "ce")
    assert by_recipe["ce"]["branch"] is None
    assert by_recipe["hml1"]["branch"] == {"epoch": 3, "from": ce}
    for name in ("tau_norm", "ncm"):  # classifiers of CE's network cost no training
        assert by_recipe[name]["trained_epochs"] == 0
    assert not (tmp_path / "shared" / ".beginnings").exists()


TRICKS = [
    {"mix": "remix", "ema_decay": 0.9},
    {"label_aware_smoothing": 0.3, "sampler": "progressive"},
    {"post_hoc_tau": 1.0, "evaluate_every": 3},
    {"head": "cosine", "micro_batch_size": 16},
]


@pytest.mark.begun_first
@pytest.mark.parametrize("trick", slow_but(TRICKS[:1], TRICKS))
def test_tricks_are_shared_to_the_bit(trick, tmp_path, alone):
    configs = [
        RunConfig(recipe=name, epochs=6, batch_size=64, **trick)
        for name in ("ce", "ce_drw", "hml1", *(() if "sampler" in trick else ("crt",)))
    ]
    configs += [RunConfig(recipe="ce", epochs=6, batch_size=64)]  # evaluated in another way
    shared = swept(configs, tmp_path / "shared")
    for config in configs:
        assert outcome(shared[config.run_id]) == outcome(alone(config)), config.recipe
    assert sum(run.metrics["trained_epochs"] for run in shared.values()) < 6 * len(configs)


@pytest.mark.parametrize(
    ("recipe", "epoch"), slow_but([("ce", 4)], [("ce", 2), ("ce", 4), ("hml1", 4)])
)
def test_a_sweep_that_was_cut_off_goes_on_in_stem_and_branch(
    recipe, epoch, tmp_path, monkeypatch, alone
):
    configs = [RunConfig(recipe=n, epochs=6, batch_size=64) for n in ("ce", "hml1", "tau_norm")]
    plain = Trainer.train_epoch

    def cut_off(self):
        if (self.config.recipe, self.epoch) == (recipe, epoch):
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(fitting, "CHECKPOINT_INTERVAL_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            engines.sweep(configs, runs_root=tmp_path / "shared", progress=False)
    shared = swept(configs, tmp_path / "shared")
    for config in configs:
        assert outcome(shared[config.run_id]) == outcome(alone(config))
    assert not (tmp_path / "shared" / ".beginnings").exists()


def test_what_another_version_s_sweep_left_is_no_beginning(tmp_path, monkeypatch):
    """It may train otherwise: a record says of one version that it made all of the run."""
    root = beginnings.Beginnings(tmp_path, [branches.Point(2, "a" * 64, ())])
    root.folder.mkdir()
    assert root.take(0) is None
    root.leave(2, {"state": {}})
    assert root.take(0) == {"key": "a" * 64, "epoch": 2, "version": __version__, "state": {}}
    root.release()
    monkeypatch.setattr(beginnings, "__version__", "0.0.1")
    assert root.take(0) is None
    root.leave(2, {"state": {}})  # takes its place
    assert root.take(0)["version"] == "0.0.1"
    root.release()


def test_a_run_goes_on_in_a_sweep_with_others(tmp_path, monkeypatch, alone):
    """Which part from it at other epochs, and look at it as those did that it was begun with."""

    def runs_of(*others: tuple[str, int]) -> list[RunConfig]:
        runs = (("ce", 1), *others)
        return [
            RunConfig(recipe=name, evaluate_every=every, epochs=6, batch_size=64)
            for name, every in runs
        ]

    first = runs_of(("ce_drw", 2), ("hml1", 3))  # part after 4 and 3 epochs
    second = runs_of(("hml1", 2), ("ce_drw", 3))
    plain = RunFolder.checkpoint

    def cut_off(self, state):
        plain(self, state)
        if (self.config.recipe, state["epoch"]) == ("ce", 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "CHECKPOINT_INTERVAL_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "checkpoint", cut_off)
        with pytest.raises(KeyboardInterrupt):
            engines.sweep(first, runs_root=tmp_path, progress=False)
    shared = swept(second, tmp_path)
    assert not (tmp_path / ".damaged").exists()
    for config in second:
        assert outcome(shared[config.run_id]) == outcome(alone(config))


def test_a_loss_that_is_gone_fails_its_own_run(tmp_path, monkeypatch):
    """The runs beside it go on as if it were not there."""
    monkeypatch.setitem(losses.LOSSES, "no_such_loss", losses.FocalLoss)

    @recipes.register(title="CE, then what?", source="this test")
    def lost():
        return (Stage("cross_entropy", until=0.5), Stage("no_such_loss"))

    try:
        failing, *others = (
            RunConfig(recipe=name, epochs=4, batch_size=64) for name in ("lost", "ce", "hml1")
        )
        assert branches.epochs_to_train([failing, *others]) == 4 + 2 + 2
        del losses.LOSSES["no_such_loss"]
        frame = engines.sweep([failing, *others], runs_root=tmp_path / "shared", progress=False)
    finally:
        del recipes.RECIPES["lost"]
    assert frame["status"].tolist() == ["failed", "done", "done"]
    assert "no_such_loss" in frame["error"][0]
    for config in others:
        alone = fit(config, runs_root=tmp_path / "alone", progress=False)
        shared = runs.Run(tmp_path / "shared" / config.run_id).verify()
        assert outcome(shared) == outcome(alone)
    assert not (tmp_path / "shared" / ".beginnings").exists()


def test_runs_part_where_stage_or_rate_differ():
    def common(a: RunConfig, b: RunConfig) -> int:
        pairs = zip(branches.prefixes(a), branches.prefixes(b), strict=True)
        return sum(first == second for first, second in pairs)

    ce = RunConfig(recipe="ce", epochs=200)
    for recipe, epochs in {
        "hml1": 100,
        "ce_drw": 160,
        "crt": 180,
        "ncm": 200,
        "focal": 0,
        "deferred_focal": 100,
    }.items():
        assert common(ce, RunConfig(recipe=recipe, epochs=200)) == epochs
    assert common(ce, RunConfig(recipe="ce", epochs=200, early_drop=True)) == 100
    assert common(ce, RunConfig(recipe="hml1", epochs=200, second_stage_rate=0.3)) == 100
    assert common(ce, RunConfig(recipe="hml1", epochs=200, mean_over="weights")) == 100
    mined = RunConfig(recipe="hml2", epochs=200)
    assert common(mined, RunConfig(recipe="hml2", epochs=200, mean_over="weights")) == 100
    unweighted = [
        RunConfig(recipe="hml1", epochs=200, weighting="none", mean_over=mean_over)
        for mean_over in ("images", "weights")
    ]
    assert common(*unweighted) == 200  # without class weights there is one mean
    assert common(ce, RunConfig(recipe="ce", epochs=200, seed=1)) == 0
    patient = {"epochs": 200, "switch_patience": 3}
    assert common(RunConfig(recipe="hml1", **patient), RunConfig(recipe="chml2", **patient)) == 0


@pytest.mark.parametrize("name", recipes.names())
def test_pairs_start_from_the_same_network_but_for_the_classifier(name):
    """With one seed, whatever the recipe and its head."""
    import torch

    from hml_core import datasets

    def backbone(recipe: str) -> dict:
        config = RunConfig(recipe=recipe, epochs=10)
        made = Trainer(config, datasets.load(config), torch.device("cpu")).model.state_dict()
        return {key: value for key, value in made.items() if not key.startswith("linear.")}

    reference, own = backbone("ce"), backbone(name)
    assert reference.keys() == own.keys()
    assert all(torch.equal(reference[key], own[key]) for key in reference)
