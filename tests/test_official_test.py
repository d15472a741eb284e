"""Sets beside the test split: recorded with a run that they do not change, judged lesion by lesion."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from data_prep.isic import archive, images, synthetic
from data_prep.isic.prepare import prepare
from hml_core import datasets, engines, runs
from hml_core.config import RunConfig, grids
from hml_core.datasets import isic
from hml_core.errors import DataError, RunError
from hml_core.runs import compact_predictions
from hml_core.trainer import Trainer, feeds, fit, handed_over
from hml_lab import plots, published, stats, tables, train
from hml_lab.studies import dermoscopy
from hml_lab.tables import image_sets
from tests.notebooks.helpers import asked_by

CPU = torch.device("cpu")
SIDE = 24
OFFICIAL = "official_test"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A made-up archive with an official test set, prepared; no test changes it."""
    folder = tmp_path_factory.mktemp("isic") / "archive"
    synthetic.make("isic2018", folder, 168, side=SIDE, official=28)
    prepare(
        archive.read("isic2018", folder),
        folder / "prepared",
        images.Options(size=SIDE),
        workers=1,
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def without(root, tmp_path_factory) -> Path:
    """The same archive, prepared where the official test images were not there."""
    folder = shutil.copytree(root, tmp_path_factory.mktemp("isic") / "without")
    shutil.rmtree(folder / "prepared")
    shutil.rmtree(folder / "ISIC2018_Task3_Test_Input")
    options = images.Options(size=SIDE)
    prepare(
        archive.read("isic2018", folder), folder / "prepared", options, workers=1, progress=False
    )
    return folder


def tiny(**fields) -> RunConfig:
    small = {"model": "resnet8", "weights": "none", "frozen": 0.0, "image_size": SIDE, "epochs": 2}
    small |= {"augmentation": "crop_flips", "early_stopping": 0, "batch_size": 32}
    return RunConfig(**{"dataset": "isic2018", **small, **fields})


def control(**fields) -> RunConfig:
    return tiny(recipe="ce_drw", weighting="CS", mean_over="images", stage_ends=(1,), **fields)


@pytest.fixture(scope="module")
def runs_root(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    configs = [tiny(recipe="chml2"), tiny(recipe="chml2", seed=1), control(), control(seed=1)]
    engines.sweep(configs, data_root=root, runs_root=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def finished(runs_root) -> list[runs.Run]:
    return [runs.Run(path.parent) for path in sorted(runs_root.glob("*/metrics.json"))]


# The record ---------------------------------------------------------------------------------------


def test_a_record_speaks_of_the_official_test_set(finished, root):
    run = finished[0].verify()
    assert run.further_tests == (OFFICIAL,)
    expected = isic.evaluation_set(run.config, root)
    found = run.evaluated(OFFICIAL)
    assert (found.targets == expected.images.targets).all()
    assert len(found.targets) == run.metrics["further_tests"][OFFICIAL]["images"] == 28
    assert run.metrics["further_tests"][OFFICIAL]["clusters"] == 14
    for selection in ("last", "best_validation"):
        logits, measured = found.logits(selection), found.metrics(selection)
        classes = logits.argmax(axis=1)
        assert measured["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(found.targets, classes)
        )
        recalls = recall_score(found.targets, classes, average=None, labels=range(7))
        assert found.per_class_accuracy(selection) == pytest.approx(recalls)
        truth = np.eye(7)[found.targets]
        probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
        assert measured["macro_auc"] == pytest.approx(roc_auc_score(truth, probabilities))
    assert found.metrics("last")["epoch"] == 2
    with pytest.raises(ValueError, match="no metrics of the set 'official_test' of 'best_test'"):
        found.metrics("best_test")


@pytest.mark.parametrize("name", ["test", OFFICIAL])
def test_a_record_knows_which_images_show_one_lesion(name, finished, root):
    found = finished[0].evaluated(name)
    lesions = isic.evaluation_set(finished[0].config, root, name).clusters
    assert found.knows_clusters
    same = found.clusters[:, None] == found.clusters
    assert (same == (lesions[:, None] == lesions)).all()
    if name == OFFICIAL:
        assert same.sum() == 2 * len(lesions)  # two images of each


def test_a_run_is_the_same_with_the_set_or_without(finished, root, without, tmp_path):
    own = next(run for run in finished if run.config == tiny(recipe="chml2"))
    other = fit(own.config, data_root=without, runs_root=tmp_path, progress=False)
    assert other.run_id == own.run_id
    assert other.further_tests == ()
    assert other.manifest == own.manifest
    assert other.metrics["selections"] == own.metrics["selections"]
    assert (other.test_logits() == own.test_logits()).all()
    clock = list(runs.CLOCK)
    assert other.history.drop(columns=clock).equals(own.history.drop(columns=clock))
    # What was recorded without the set stays a record where it is there now.
    again = fit(own.config, data_root=root, runs_root=tmp_path, progress=False)
    assert again.metrics == other.metrics
    with pytest.raises(ValueError, match="was judged on test, not on 'official_test'"):
        other.evaluated(OFFICIAL)


def test_a_common_beginning_and_a_resumed_run_tell_the_same_of_the_set(finished, root):
    """The record of a run that took its beginning over, against the same run trained alone and cut off."""
    shared = next(run for run in finished if run.branch is not None)
    found = datasets.load(shared.config, root)

    def trained(epochs: int, state=None) -> Trainer:
        trainer = Trainer(shared.config, found, CPU)
        if state is not None:
            trainer.restore(copy.deepcopy(state))
        for _ in range(epochs):
            for _ in trainer.train_epoch():
                pass
            trainer.end_epoch()
        return trainer

    state = trained(1).state()
    whole, resumed = trained(2), trained(1, state)
    for name, array in shared.evaluated(OFFICIAL).arrays.items():
        if OFFICIAL in name:
            assert (array == whole.arrays()[name]).all(), name
            assert (array == resumed.arrays()[name]).all(), name
    assert resumed.results()["further_tests"] == shared.metrics["further_tests"]
    # A checkpoint from before the set was there: the record has the last epoch, and says no more.
    del state["evaluator"]["last_further"]
    del state["evaluator"]["best"]["best_validation"]["further"]
    late = trained(1, state)
    late.evaluator.best["best_validation"].pop("further", None)
    selections = late.results()["further_tests"][OFFICIAL]["selections"]
    assert selections["last"] == shared.metrics["further_tests"][OFFICIAL]["selections"]["last"]
    assert "best_validation" not in selections


def test_many_logits_are_not_kept(finished, monkeypatch):
    monkeypatch.setattr(compact_predictions, "MOST_NUMBERS", 100)
    packed = io.BytesIO(compact_predictions.pack(finished[0].evaluated().arrays))
    with np.load(packed) as stored:
        assert not [name for name in stored if name.endswith("logits") or name == "confidence"]
        assert f"best_validation_{OFFICIAL}_predictions" in stored
        arrays = dict(stored)
    for name in ("test", OFFICIAL):
        own = finished[0].evaluated(name)
        kept = dataclasses.replace(own, arrays=arrays)
        assert kept.logits() is None, "rather than an error: there are predictions"
        assert (kept.predictions().classes == own.predictions().classes).all()
        last = {key: array for key, array in arrays.items() if "best_validation" not in key}
        of_last = dataclasses.replace(own, arrays=last)
        for read in (of_last.logits, of_last.predictions):
            with pytest.raises(ValueError, match=f"no predictions of the set '{name}' of 'best_v"):
                read("best_validation")


def test_an_exported_record_keeps_the_set(runs_root, finished, tmp_path):
    runs.export(runs_root, tmp_path / "records")
    for run in finished:
        record = runs.Run(tmp_path / "records" / run.run_id).verify()
        for name in ("test", OFFICIAL):
            own, kept = run.evaluated(name), record.evaluated(name)
            assert (own.targets == kept.targets).all()
            assert (own.clusters == kept.clusters).all()
            for selection in ("last", "best_validation"):
                classes = [one.predictions(selection).classes for one in (own, kept)]
                assert (classes[0] == classes[1]).all()
                assert own.metrics(selection)["macro_auc"] == kept.metrics(selection)["macro_auc"]
                logits = [one.logits(selection) for one in (own, kept)]
                assert logits[1].dtype == np.float32
                np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)
        assert (record.confidence == run.confidence).all()
        curves = [plots.roc_curves([one], "melanoma", selection="last") for one in (run, record)]
        texts = [c.legends[0].get_texts()[0].get_text() for c in curves]
        assert texts[0] == texts[1]
        with pytest.raises(RunError, match="compact form, without features"):
            plots.features(record)
        size = sum(path.stat().st_size for path in record.path.iterdir())
        assert size < 150_000
    path = tmp_path / "records" / run.run_id / "predictions_compact.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"predictions_compact\.npz is not what was written"):
        runs.Run(path.parent).verify()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: {"test_clusters": s.test_clusters[1:]},
            "a cluster for each of the .* set 'test'",
        ),
        (
            lambda s: {
                "further_tests": {
                    OFFICIAL: dataclasses.replace(
                        s.further_tests[OFFICIAL], clusters=np.array(["a"])
                    )
                }
            },
            "a cluster for each of the 28 images of the set 'official_test'",
        ),
        (lambda s: {"further_tests": {OFFICIAL: s.test}}, "to hold `EvaluationSet`s"),
        (lambda s: {"further_tests": {"test": s.further_tests[OFFICIAL]}}, "called 'test'"),
        (lambda s: {"further_tests": {"a/b": s.further_tests[OFFICIAL]}}, "called 'a/b'"),
    ],
)
def test_a_loader_of_ones_own_is_checked(change, said, root):
    found = datasets.load(tiny(), root)
    with pytest.raises(DataError, match=said):
        handed_over.check(tiny(), dataclasses.replace(found, **change(found)))


# Images in memory -----------------------------------------------------------------------------------


def test_decoded_images_are_those_that_are_read_from_files(root):
    found = datasets.load(tiny(image_size=16), root)
    order = torch.arange(len(found.test))
    seen = []
    for augmentation in ("crop_flips", "none"):
        feed = feeds.make(found.test, found, tiny(image_size=16, augmentation=augmentation), CPU)
        seen.append(torch.cat([feed.images(batch) for batch in feed.batches(order, 7)]))
    assert seen[0].shape == (len(found.test), 3, 16, 16)
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-5)


def test_images_that_do_not_fit_into_memory_are_refused(root, monkeypatch):
    monkeypatch.setenv("HML_IMAGE_CACHE_GB", "0.00001")
    found = datasets.load(tiny(), root)
    with pytest.raises(
        DataError, match=r"more than the 1e-05 GB that they may \(HML_IMAGE_CACHE_GB\)"
    ):
        feeds.make(found.train, found, tiny(), CPU, augmented=True)


def test_runs_of_a_sweep_decode_each_image_once_and_nothing_is_kept_after_it(
    root, tmp_path, monkeypatch
):
    decoded = []
    read = feeds._Files.__getitem__

    def counted(self, key):
        decoded.append(self.part.names[key[0]])
        return read(self, key)

    monkeypatch.setattr(feeds._Files, "__getitem__", counted)
    runs = [tiny(epochs=1, seed=seed) for seed in (0, 1)]
    frame = engines.sweep(runs, runs_root=tmp_path / "a", data_root=root, progress=False)
    assert set(frame["status"]) == {"done"}
    found = datasets.load(tiny(), root)
    sets = [found.train, found.validation, found.test, found.further_tests[OFFICIAL].images]
    assert sorted(decoded) == sorted(name for part in sets for name in part.names)
    # As much as may be kept is the largest set alone.
    most = len(found.train) * tiny().image_size ** 2 * 3
    monkeypatch.setenv("HML_IMAGE_CACHE_GB", f"{most / 1e9}")
    alone = engines.sweep(runs, runs_root=tmp_path / "b", data_root=root, progress=False)
    assert len(decoded) > 2 * len(set(decoded)), "nothing is left of the first sweep, nor kept"
    columns = ["last_balanced_accuracy", "last_top1"]
    assert frame[columns].equals(alone[columns])


def test_a_changed_file_is_refused_in_memory_too(root, tmp_path):
    folder = shutil.copytree(root / "prepared", tmp_path / "prepared")
    found = datasets.load(tiny(), folder)
    (folder / found.train.names[0]).write_bytes(b"not an image")
    with pytest.raises(DataError, match="is not the file that was prepared"):
        feeds.make(found.train, found, tiny(), CPU, augmented=True)


# Intervals that draw lesions ------------------------------------------------------------------------


def accuracy(hits: np.ndarray):
    return lambda chosen: np.array([hits[chosen].mean()])


def test_single_images_are_drawn_as_before():
    random = np.random.default_rng(0)
    targets, hits = random.integers(0, 3, 60), random.random(60) < 0.7
    alone = stats.stratified_bootstrap(targets, accuracy(hits), n_resamples=50)
    drawn = stats.cluster_bootstrap(targets, np.arange(60), accuracy(hits), n_resamples=50)
    assert [one.tolist() for one in alone] == [one.tolist() for one in drawn]


def test_copies_of_an_image_bring_no_certainty():
    """Every lesion photographed nine times, with one outcome: as wide as if it had been once."""
    random = np.random.default_rng(1)
    targets, hits = np.repeat([0, 1], 50), random.random(100) < 0.6
    once = stats.cluster_bootstrap(targets, np.arange(100), accuracy(hits))
    lesions = np.repeat(np.arange(100), 9)
    order = random.permutation(900)  # images of a lesion need not lie side by side
    shown = [values[lesions][order] for values in (targets, hits)]
    nine = stats.cluster_bootstrap(shown[0], lesions[order], accuracy(shown[1]))
    images_alone = stats.stratified_bootstrap(shown[0], accuracy(shown[1]))
    widths = [float((high - low)[0]) for low, high in (once, nine, images_alone)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] == pytest.approx(widths[0] / 3, rel=0.1)
    expected = 2 * 1.96 * np.sqrt(hits.var() / 100)
    assert widths[1] == pytest.approx(expected, rel=0.1)


def test_the_fast_bootstrap_of_class_means_finds_what_the_slow_one_does():
    random = np.random.default_rng(3)
    targets = np.repeat([0, 1, 1], 40)
    clusters = np.concatenate([np.arange(40) // 2, 20 + np.arange(80) // 5])
    gains = random.normal(size=120) + np.array([0.0, 2.0])[targets]

    def measure(chosen: np.ndarray) -> np.ndarray:
        own, values = targets[chosen], gains[chosen]
        return np.array([np.mean([values[own == label].mean() for label in (0, 1)])])

    slow = stats.cluster_bootstrap(targets, clusters, measure, n_resamples=4000)
    fast = stats.class_means_bootstrap(targets, clusters, gains)
    sd = (fast[1] - fast[0]) / 4
    assert fast == pytest.approx([float(end[0]) for end in slow], abs=0.15 * sd)
    assert stats.class_means_bootstrap(targets, clusters, np.full(120, 0.5)) == (0.5, 0.5)


def test_a_lesion_is_drawn_with_all_of_its_images():
    clusters = np.array(["b", "a", "b", "c", "a", "b"])
    targets = np.array([1, 0, 1, 0, 0, 1])

    def whole(chosen: np.ndarray) -> np.ndarray:
        counts = np.bincount(chosen, minlength=6)
        for name in "abc":
            own = counts[clusters == name]
            assert (own == own[0]).all()
        assert counts[clusters == "b"][0] == 1  # the only lesion of its class
        return np.array([len(chosen)])

    low, high = stats.cluster_bootstrap(targets, clusters, whole, n_resamples=100)
    assert (low[0], high[0]) == (5, 7)  # b with two of a and c: 3 + 2, 3, 4
    with pytest.raises(ValueError, match="a cluster for each"):
        stats.cluster_bootstrap(targets, clusters[1:], whole)


# Tables ---------------------------------------------------------------------------------------------


def not_lost(run, selection="last"):
    """These networks are trained for moments, and end near chance."""
    return False


def test_the_table_of_the_official_set_says_what_the_records_do(finished, monkeypatch):
    monkeypatch.setattr(image_sets, "run_is_lost", not_lost)
    table = tables.on_set(finished, OFFICIAL, selection="last")
    assert table.index.name == "%, the official test images (28 images of 14 lesions)"
    assert table["n"].tolist() == ["2", "2"]
    own = [run for run in finished if run.config.recipe == "chml2"]
    scores = [100 * run.evaluated(OFFICIAL).metrics()["balanced_accuracy"] for run in own]
    expected = f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"
    assert table.loc["CHML2", "Balanced acc."] == expected
    assert {"AUC", "melanoma", "vascular lesion"} < set(table.columns)
    intervals = tables.bootstrap_intervals(
        finished, of=OFFICIAL, selection="last", positive_class="melanoma", n_resamples=20
    )
    assert intervals.index.name.startswith("%, 95 % interval over lesions of the official")
    assert intervals.columns.tolist() == ["Balanced acc.", "AUC", "Sensitivity", "Specificity"]
    assert intervals.loc["CHML2", "Balanced acc."].startswith(f"{np.mean(scores):.1f} [")


def test_on_no_set_of_images_a_mean_stands_for_collapsed_runs(finished, monkeypatch):
    monkeypatch.setattr(
        image_sets, "run_is_lost", lambda run, selection: run.config.recipe == "chml2"
    )
    table = tables.on_set(finished, OFFICIAL, selection="last")
    assert table.loc["CHML2", "Balanced acc."].startswith("median ")
    assert " / " in table.loc["CHML2", "Balanced acc."]
    assert not any(cell.startswith("median ") for cell in table["Balanced acc."].drop("CHML2"))
    chosen = {"of": OFFICIAL, "selection": "last", "n_resamples": 20}
    (row,) = tables.against(finished, "ce_drw", ["chml2"], **chosen).to_dict("records")
    assert re.fullmatch(r"[+-][\d.]+ / [+-][\d.]+", row.pop("Δ Balanced acc."))
    assert row.pop("n") == "2"
    assert set(row.values()) == {"–"}


@pytest.mark.parametrize("of", ["test", OFFICIAL])
def test_a_claim_is_set_against_its_control(of, finished, monkeypatch):
    monkeypatch.setattr(image_sets, "run_is_lost", not_lost)
    chosen = {"of": of, "selection": "last", "n_resamples": 50}
    table = tables.against(finished, "ce_drw", ["chml2", "dhml1"], **chosen)
    assert table.index.tolist() == ["CHML2"]  # of dhml1 there is no run
    by = {(run.config.recipe, run.config.seed): run for run in finished}

    def score(recipe: str, seed: int) -> float:
        return 100 * by[recipe, seed].evaluated(of).metrics()["balanced_accuracy"]

    pairs = [score("chml2", seed) - score("ce_drw", seed) for seed in (0, 1)]
    assert table["Δ Balanced acc."].tolist() == [f"{np.mean(pairs):+.1f}"]
    assert "over lesions [95 %]" in table.columns
    two = tables.against(finished, "ce_drw", ["chml2", "ce_drw"], **chosen)  # a family of two tests
    assert "family of 2 tests" in two.attrs["family"]
    assert "of each difference alone unless simultaneous" in two.attrs["covers"]
    for found, column, level in (
        (table, "over seeds [95 %]", 0.95),
        (table, "over seeds [95 %, simultaneous]", 0.95),  # the only test of its family
        (two, "over seeds [95 %]", 0.95),
        (two, "over seeds [95 %, simultaneous]", 0.975),
    ):
        low, high = stats.paired_difference(pairs, [0.0, 0.0], level)[2:4]
        shown = "–" if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"
        assert found.loc["CHML2", column] == shown
    same = tables.against(finished, "ce_drw", ["ce_drw"], **chosen)
    assert same["over lesions [95 %]"].tolist() == ["[+0.0, +0.0]"]
    with pytest.raises(ValueError, match="runs of the control 'focal'"):
        tables.against(finished, "focal", ["chml2"], **chosen)


def test_what_the_authors_runs_support_is_computed_from_all_of_them():
    from scipy.stats import ttest_ind
    from statsmodels.stats.multitest import multipletests

    table = dermoscopy.author_claim()
    assert len(table) == 9
    scores = published.author_runs().groupby("config")["balanced_accuracy"]
    names = published.AUTHOR_EQUIVALENTS
    own, other = (scores.get_group(names[name]) for name in ("chml2", "cs_ce"))
    row = table.loc["CHML2 − CS-CE"]
    assert row["n"] == "10 + 10"
    assert row["Δ Balanced acc. [95 %]"].startswith(f"{own.mean() - other.mean():+.1f} [")
    raw = [
        ttest_ind(*(scores.get_group(names[n]) for n in pair), equal_var=False).pvalue
        for pair in itertools.product(("chml2", "dhml1", "dhml2"), ("ce", "cs_ce", "cb_ce"))
    ]
    holm = multipletests(raw, method="holm")[1]
    shown = ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in holm]
    assert table["p (Holm)"].tolist() == shown
    ours = pd.DataFrame(
        [{"recipe": "ce", "seed": 0, "status": "done", "run_id": "own", "epochs": 8}]
    )
    said = tables.captioned(table, ours).attrs
    assert said["caption"].startswith(
        "The authors' own runs on ISIC 2018, none of this package's: 60 runs of 6 configurations, "
        "of the 225 of "
    )
    assert "Welch" in said["caption"]
    assert "family of 9 tests" in said["caption"].lower()
    assert set(said["run_ids"]) == {"–"}  # no run of ours is behind it


def test_the_shortened_protocol_holds_the_control_of_the_notebook(repository):
    values = yaml.safe_load((repository / "notebooks/batches/isic2018_small.yaml").read_text())
    configs = grids(values)
    assert len(configs) == 24
    assert [config.seed for config in configs] == [0] * 8 + [1] * 8 + [2] * 8
    shared = {name: value for name, value in values.items() if name not in ("grids", "epochs")}
    controls = dermoscopy.control(epochs=values["epochs"], **shared)
    assert {config.run_id for config in controls} == {
        config.run_id for config in configs if config.recipe == "ce_drw"
    }
    chml2 = next(config for config in configs if config.recipe == "chml2")
    assert controls[0].stage_ends == chml2.stage_ends
    assert datasets.departures("isic2018", {**chml2.to_dict(), "initialised_from": "random"}) == (
        "resnet18, 8 epochs, 64 pixels, random initialisation"
    )


@pytest.mark.parametrize(
    ("batch", "name"),
    [
        ("results", "isic2018_small"),
        ("isic2018_small_here", "isic2018_small"),
        ("results", "isic2018_b3"),
    ],
)
def test_the_notebook_asks_for_the_runs_that_the_sweep_trains(batch, name, repository, tmp_path):
    batches = repository / "notebooks" / "batches"
    trained = grids(yaml.safe_load((batches / f"{name}.yaml").read_text()))
    asked, job = asked_by(batches / f"{batch}.yaml", f"06_{name}.ipynb", repository, tmp_path)
    wanted = job["parameters"]
    shown = {
        config.run_id
        for config in trained
        if config.seed in wanted["seeds"]  # of which there are records
        and config.recipe in (*wanted["recipes"], "ce_drw")
    }
    assert shown
    assert batch == "results" or len(shown) == len(trained)
    assert {config.run_id for config in asked.configs} == shown
    assert (asked.baseline, asked.hard_mining) == ("ce", ["chml2", "dhml1", "dhml2"])


def test_the_command_says_what_the_run_reached_on_the_official_set(finished, capsys):
    train._report(finished[0])
    lines = capsys.readouterr().out.splitlines()
    found = finished[0].evaluated(OFFICIAL).metrics("last")
    (line,) = [line for line in lines if line.startswith("| last epoch, official_test")]
    assert f" {100 * found['balanced_accuracy']:.1f} " in line
    assert len([line for line in lines if "official_test" in line]) == 2
