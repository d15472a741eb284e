"""The verdict on one's own images: its intervals, its answer, what it confuses."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hml_core.config import RunConfig
from hml_lab import plots
from hml_lab.studies import own_images

TARGETS = np.repeat([0, 1, 2], [60, 30, 10])


class Stored(SimpleNamespace):
    """What the verdict asks of a run."""

    def test_classes(self, selection):
        assert selection == "best_validation"
        return self.classes

    def test_predictions(self, selection):
        return SimpleNamespace(confidence=np.full(len(TARGETS), 0.9))

    def selection(self, name):
        recalls = [(self.classes == label)[label == TARGETS].mean() for label in range(3)]
        return {
            "epoch": 2, "balanced_accuracy": float(np.mean(recalls)), "ece": 0.1,
            "top1": float((self.classes == TARGETS).mean()),
        }  # fmt: skip


def run(recipe: str, seed: int, right: float, validation: float = 0.5) -> Stored:
    """A run that is right about that share of every class, the first ones, and else takes the next."""
    share = np.concatenate([np.arange(number) / number for number in (60, 30, 10)])
    classes = np.where(share < right, TARGETS, (TARGETS + 1) % 3)
    history = pd.DataFrame({"epoch": [1, 2], "validation_balanced_accuracy": [0.1, validation]})
    return Stored(
        config=RunConfig(recipe=recipe, seed=seed), classes=classes, test_targets=TARGETS,
        history=history, class_names=("a", "b", "c"), class_counts=np.array([6, 3, 1]),
        synthetic=False,
    )  # fmt: skip


def told(runs) -> str:
    return own_images.verdict(SimpleNamespace(runs=runs)).data


def bounds(text: str, what: str) -> tuple[float, float]:
    """The interval in the sentence that begins with ``what``."""
    found = re.search(re.escape(what) + r".*?interval \[([-+.\d]+), ([-+.\d]+)\]", text)
    return float(found[1]), float(found[2])


def test_the_interval_covers_other_images_and_other_seeds():
    what = "**Its test result:**"
    alike = bounds(told([run("ce", seed, 0.8) for seed in range(3)]), what)
    # Within a class of n images the variance of a recall r is r(1 − r)/n. The three runs are wrong about
    # the same images, so that they tell no more than one.
    half = 1.96 * 100 * np.sqrt(sum(0.8 * 0.2 / number for number in (60, 30, 10)) / 9)
    assert alike == pytest.approx((80 - half, 80 + half), abs=1)
    rights = (0.6, 0.8, 0.9)
    low, high = bounds(told([run("ce", seed, r) for seed, r in enumerate(rights)]), what)
    # What seeds alone leave open, by Student's t of two degrees of freedom; drawn, so not to the point.
    student = 4.303 * 100 * np.std(rights, ddof=1) / np.sqrt(3)
    assert low < 100 * np.mean(rights) - 0.85 * student
    assert high == 100, "no accuracy is above that"


def test_the_same_images_cancel_what_two_recipes_share():
    """Of paired runs the recalls of one image are compared, not two intervals."""
    runs = [run(recipe, seed, r) for recipe, r in (("ce", 0.6), ("hml1", 0.7)) for seed in range(2)]
    low, high = bounds(told(runs), "**Does HML help here?**")
    alone = bounds(told(runs[:2]), "**Its test result:**")
    assert high - low < 0.75 * np.sqrt(2) * (alone[1] - alone[0])


@pytest.mark.parametrize("right", [0.4, 0.6, 1.0])
def test_one_seed_answers_nothing(right):
    text = told([run("ce", 0, 0.5), run("hml1", 0, right)])
    assert "over the test images alone. It cannot be told with one seed" in text
    assert "Yes." not in text
    assert "No:" not in text


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.1, 5.0), "Yes."),
        ((-5.0, -0.1), "No: it is worse."),
        ((-0.9, 0.9), "No: the difference is less than 1 point either way."),
        ((-3.0, 4.0), "It cannot be told"),
        ((-0.5, 1.5), "It cannot be told"),
    ],
)
def test_the_answer_is_that_of_the_interval(interval, expected):
    assert own_images.answer(*interval).startswith(expected)


def test_validation_chooses_and_the_contrast_is_the_one_named_beforehand():
    runs = [
        run(recipe, seed, right, validation)
        for recipe, right, validation in (
            ("ce", 0.3, 0.9),
            ("ce_drw", 0.5, 0.4),
            ("hml1", 0.9, 0.6),
        )
        for seed in range(3)
    ]
    text = told(runs)
    assert "**Best on validation:** CE, balanced accuracy 90.0 % (HML1: 60.0 %)" in text
    assert "**Its test result:** 30.0 %" in text  # however good another is on the test images
    assert "HML1 against CE-DRW" in text
    assert "+40.0 points" in text
    assert "It is the baseline: nothing tried does better." in text
    assert "Yes." in text
    assert "more sure of itself than it is right" in text
    alone = told([one for one in runs if one.config.recipe == "hml1"][:1])
    assert "one seed, so that other seeds are not in it" in alone
    assert "Not asked" in alone
    assert "SYNTHETIC" not in text
    drawn = [run("ce", seed, 0.5) for seed in range(2)]
    drawn[0].synthetic = True
    assert told(drawn).startswith("**SYNTHETIC images: nothing below is a result.**")
    apart = told([run("ce", 0, 0.5), run("hml1", 1, 0.5)])
    assert "they share no seed" in apart


def test_what_validation_chose_is_compared_with_the_baseline():
    runs = [
        run(recipe, seed, right, validation)
        for recipe, right, validation in (("ce", 0.3, 0.4), ("balanced_softmax", 0.8, 0.9))
        for seed in range(3)
    ]
    text = told(runs)
    assert "Balanced Softmax against CE: +50.0 points" in text
    assert "the best of 2 on validation" in text
    assert "corrects for all of them" in text


def test_confusions_go_by_their_share_of_the_class_and_show_what_every_seed_confuses():
    runs = [run("ce", 0, 0.5), run("ce", 1, 0.9)]
    found = own_images.confusions(runs)
    assert set(found) == {(0, 1), (1, 2), (2, 0)}
    assert found[2, 0][0] == 99  # of class c, the one that both confuse
    assert len(found[0, 1]) == 30


def test_pictures_stand_in_rows_with_their_sizes():
    pictures = {"ant": [np.zeros((4, 6, 3), np.uint8)] * 7, "bee, taken for ant": []}
    made = plots.samples(pictures, title="Images", rows_are="classes")
    assert len(made.axes) == 10
    assert made.axes[0].get_xlabel() == "6 × 4"
    assert [len(ax.images) for ax in made.axes] == [1] * 5 + [0] * 5
    made = plots.sides([30, 200], [40, 90], size=64, title="Sizes")
    assert made.axes[0].get_xlabel() == "width (pixels)"


def test_figures_from_head_to_tail_go_by_frequency_whatever_the_order_of_the_classes():
    runs = [run("ce", seed, 0.8) for seed in range(2)]
    for one in runs:
        one.class_counts, one.class_names = np.array([3, 40, 150]), ("ant", "bee", "cat")
        one.per_class_accuracy = lambda selection: np.array([0.1, 0.5, 0.9])
        one.synthetic = True
    top, below = plots.per_class_accuracy(runs, selection="best_validation").axes[:2]
    assert [tick.get_text() for tick in below.get_xticklabels()] == ["cat", "bee", "ant"]
    assert [bar.get_height() for bar in below.patches] == [150, 40, 3]
    drawn = [(np.mean(line.get_xdata()), line.get_ydata()) for line in top.lines]
    for place, height in enumerate((90, 50, 10)):
        (marks, *more) = [heights for x, heights in drawn if abs(x - place) < 0.1]
        np.testing.assert_allclose(np.concatenate([marks, *more]), height)
    shown = plots.confusion_matrix(runs, ["ce"], selection="best_validation").axes[0]
    assert [tick.get_text() for tick in shown.get_yticklabels()] == ["cat", "bee", "ant"]
    shares = shown.images[0].get_array()
    np.testing.assert_allclose(shares.sum(axis=1), 100)
    assert shares[2, 1] == pytest.approx(20, abs=2)  # ant, taken for bee
