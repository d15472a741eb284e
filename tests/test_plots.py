"""Figures: what is drawn is what was measured, and one method looks the same everywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hml_core import recipes
from hml_core.config import RunConfig
from hml_core.trainer import fit
from hml_lab import plots, stats
from hml_lab.plots.style import look


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from hml_core.config import grid

    root = tmp_path_factory.mktemp("runs")
    configs = grid(recipe=["ce", "hml1"], seed=[0, 1, 2], epochs=3, batch_size=64)
    return [fit(config, runs_root=root, progress=False) for config in configs]


def test_looks_differ_without_colour():
    names = recipes.names()
    looks = [look(name) for name in names]
    assert len({one.colour for one in looks}) == len(names)
    quickstart = ["ce", "focal", "cs_ce", "ldam_drw", "balanced_softmax", "hml1", "hml2"]
    for a, b in itertools.combinations(quickstart, 2):
        assert look(a).marker != look(b).marker
    assert look("somebody_elses").colour == look("somebody_elses").colour


def test_balanced_accuracy_shows_means_and_seeds(finished):
    (ax,) = plots.balanced_accuracy(finished).axes
    dots = np.concatenate(
        [c.get_offsets()[:, 0] for c in ax.collections if len(c.get_offsets()) == 3]
    )
    measured = [100 * run.selection()["balanced_accuracy"] for run in finished]
    assert sorted(dots) == pytest.approx(sorted(measured))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["HML1", "CE"]


def test_per_class_accuracy_has_its_error_bars(finished):
    ax = plots.per_class_accuracy(finished).axes[0]
    container = ax.containers[0]
    drawn = container.lines[0].get_ydata()
    accuracy = 100 * np.array([run.per_class_accuracy() for run in finished[:3]])
    assert drawn == pytest.approx(accuracy.mean(axis=0))
    segment = container.lines[2][0].get_segments()[9]
    interval = stats.mean_interval(accuracy[:, 9])
    assert segment[:, 1] == pytest.approx([interval.low, interval.high])


def test_learning_curves_mark_the_switch(finished):
    left, right = plots.learning_curves(finished).axes
    assert any("switch: HML1" in text.get_text() for text in left.texts)
    assert "validation" in right.get_ylabel()


def test_the_confusion_matrix_is_the_mean_share(finished):
    made = plots.confusion_matrix(finished, ["ce", "hml1"])
    assert "mean of 3 seeds" in made.axes[0].get_title()
    values = made.axes[0].collections[0].get_array().reshape(10, 10)
    np.testing.assert_allclose(values.sum(axis=1), 100.0)
    with pytest.raises(ValueError, match="runs of focal to draw, got none"):
        plots.confusion_matrix(finished, ["focal"])


def test_axes_are_labelled(finished):
    figures = [
        plots.class_counts(finished[0].class_counts, finished[0].class_names),
        plots.balanced_accuracy(finished),
        plots.per_class_accuracy(finished),
        plots.learning_curves(finished),
        plots.loss_curves(),
        plots.gradient_curves(),
        plots.delta_effect([10.0, 1e4]),
        plots.weighting_curves(1e4, head_weight=0.1, tail_weight=4.0),
        plots.outlier_cuts([500, 50, 5], [0.1, 1.0, 2.0]),
    ]
    for made in figures:
        assert any(ax.get_xlabel() for ax in made.axes)
        assert all(ax.get_ylabel() or ax.get_yticklabels() for ax in made.axes)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one finished run"):
        plots.balanced_accuracy([])


def test_synthetic_images_and_short_training_are_labelled(finished, monkeypatch):
    monkeypatch.setitem(finished[0].metrics, "synthetic", True)
    assert "SYNTHETIC" in plots.per_class_accuracy(finished).axes[0].get_title()
    monkeypatch.setitem(finished[0].metrics, "synthetic", False)
    assert "SHORTENED" not in plots.per_class_accuracy(finished).axes[0].get_title()
    monkeypatch.setattr(
        finished[0], "config", RunConfig(dataset="cifar10", epochs=12, model="resnet8")
    )
    title = plots.per_class_accuracy(finished).axes[0].get_title()
    assert "SHORTENED protocol: resnet8, 12 epochs" in title
