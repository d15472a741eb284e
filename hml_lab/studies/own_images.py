"""What the notebook on one's own images does: prepare, look, and a verdict in sentences.

The verdict knows no published figure. Its intervals are about other test images *and* other seeds: both
are drawn anew, the images within their class, and what is compared sees the same draw.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
from IPython.display import Markdown, display

from data_prep.folder import example, images, report
from data_prep.folder import source as sources
from data_prep.folder.prepare import FRACTIONS, prepare
from data_prep.output import JOURNAL
from hml_core import recipes
from hml_core.config import RunConfig, grid
from hml_core.datasets import folder as dataset
from hml_core.datasets import prepared
from hml_core.errors import ConfigError, RunError
from hml_core.models.prediction import predict
from hml_core.runs import Run
from hml_core.system import images as opener
from hml_lab import plots, stats
from hml_lab.experiment import Experiment
from hml_lab.places import place
from hml_lab.studies import dermoscopy

FRACTIONS_OF_DRAWN = (0.35, 0.15, 0.5)  # that of drawn images: methods are told apart, not luck
MARGIN = 1.0  # points of balanced accuracy: a smaller difference is none
CONTROL = dermoscopy.CONTROL  # what HML is compared with, see `configs`
PAIRS = 4  # confusions that are shown
SHOWN = 6  # predictions


# The images -------------------------------------------------------------------------------------


def data_folder(source: str, data_root: str) -> Path:
    """Where the copies of the images go, which is the runs' ``data_root``.

    Parameters
    ----------
    source : str
        Folder of the photographs; "": some are drawn.
    data_root : str
        "": ``data/own_images`` of the checkout, or ``data/drawn_images`` for drawn ones.
    """
    return place(data_root, "data/own_images" if source else "data/drawn_images")


def size_of_copies(source: str, square: bool, size: int | None = None) -> int:
    """Pixels of the copies' shorter side; None: drawn shapes need fewer than small photographs.

    >>> size_of_copies("", True), size_of_copies("photos", True), size_of_copies("photos", False)
    (16, 32, 256)
    """
    if size is not None:
        return size
    return (32 if source else 16) if square else 256


def epochs_of(source: str, epochs: int | None = None) -> int | None:
    """Passes over the training images; None: 24 for drawn shapes, else the data set's own (None again).

    >>> epochs_of(""), epochs_of("photos"), epochs_of("photos", 90)
    (24, None, 90)
    """
    return 24 if epochs is None and not source else epochs


def configs(chosen: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """The runs of the notebook, one per recipe and seed.

    ``ce_drw`` is the control of hard mining: cross-entropy with HML1's class weights, divisor and
    switch, so that the loss of the second stage alone differs
    (:func:`hml_lab.studies.dermoscopy.control`), in the place of the recipe as its paper has it (CB
    weights from 80 % of the run on).
    """
    epochs = RunConfig(recipe="ce", **settings).epochs
    runs = []
    for recipe in chosen:
        if recipe == CONTROL:
            runs += dermoscopy.control(**{**settings, "epochs": epochs, "seed": list(seeds)})
        else:
            runs += grid(recipe=recipe, seed=list(seeds), **settings)
    return runs


def prepare_images(
    source: str,
    output: Path,
    *,
    csv: str = "",
    drawn: int = 3600,
    fractions: Sequence[float] = (),
    **options: Any,
) -> None:
    """Copies of one's own photographs, or of drawn ones, in ``output``; what was done before is kept.

    Parameters
    ----------
    source : str
        Folder of the photographs; "": as many as ``drawn`` are drawn, beside ``output``.
    output : Path
        See :func:`data_folder`.
    csv : str
    fractions : (training, validation, test), optional
        Default: :data:`data_prep.folder.prepare.FRACTIONS`; of drawn images, which cost nothing, half are
        test images (:data:`FRACTIONS_OF_DRAWN`).
    options
        Of :class:`data_prep.folder.images.Options`.

    Raises
    ------
    ConfigError
        For drawn images and a CSV.
    """
    if csv and not source:
        raise ConfigError("Expected `source`, the folder of the images that `csv` lists, got ''.")
    if source:
        root = Path(os.path.expanduser(source))
    else:
        root = example.make(output.with_name(f"{output.name}_as_drawn"), drawn)
    split = fractions or (FRACTIONS if source else FRACTIONS_OF_DRAWN)
    found = sources.read(root, csv or None)
    prepare(found, output, images.Options(**options), fractions=split, progress=False)


def _described(experiment: Experiment) -> dict[str, Any]:
    return prepared.find(experiment.data_root, dataset.NAME, lists=("classes",))[1]


def found(experiment: Experiment) -> Markdown:
    """What the folder held: classes, sizes, formats, what was left out, what to know."""
    described = _described(experiment)
    lines = report.lines(described["summary"])
    if described["synthetic"]:
        lines.insert(0, "**SYNTHETIC images: nothing learnt from them is a result.**")
    return Markdown("\n".join(f"- {line}" for line in lines))


def save_look(experiment: Experiment) -> None:
    """Figures of the training images: how many of each class, what they look like, how large they were."""
    described, manifest = _described(experiment), _manifest(experiment, "train")
    made_up = described["synthetic"]
    counts = [described["summary"]["images"][name]["train"] for name in described["classes"]]
    drawn = plots.class_counts(counts, described["classes"], synthetic=made_up)
    experiment.save_figure(drawn, "counts")
    first = {
        name: _pictures(experiment, manifest["file"][manifest["class"] == name].head(5))
        for name in described["classes"][:10]
    }
    title = "Training images as prepared" + (", SYNTHETIC" if made_up else "")
    experiment.save_figure(plots.samples(first, title=title, rows_are="classes"), "samples")
    sides = _sizes(experiment)
    size = described["options"]["size"]
    title = "Sizes of the photographs" + (", SYNTHETIC" if made_up else "")
    experiment.save_figure(plots.sides(*sides, size=size, title=title), "sizes")


def _sizes(experiment: Experiment) -> tuple[list[int], list[int]]:
    """Width and height of every photograph that could be used, as the preparation noted them."""
    lines = (experiment.data_root / JOURNAL).read_text(encoding="utf-8").splitlines()[1:]
    entries = {entry["id"]: entry for entry in map(json.loads, lines)}
    good = [entry for entry in entries.values() if "error" not in entry]
    return [entry["width"] for entry in good], [entry["height"] for entry in good]


def _manifest(experiment: Experiment, split: str) -> pd.DataFrame:
    path = experiment.data_root / "manifest.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    return rows[rows["split"] == split].reset_index(drop=True)


def _pictures(experiment: Experiment, names: pd.Series) -> list[np.ndarray]:
    return [np.asarray(opener.load(experiment.data_root / name)) for name in names]


# The verdict ------------------------------------------------------------------------------------


def verdict(experiment: Experiment) -> Markdown:
    """Which recipe is best on validation, its test result once, and whether HML helps here."""
    groups = plots.by_recipe(experiment.runs, qualified=False)
    scores = _scores(groups)
    ranked = [*scores]
    best, runs = ranked[0], groups[ranked[0]]
    value, low, high = _interval(_hits(runs), runs[0].test_targets)
    low, high = max(low, 0.0), min(high, 100.0)
    number = len(runs[0].test_targets)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "one seed, so that other seeds are not in it"
    said = [
        *(["**SYNTHETIC images: nothing below is a result.**"] if runs[0].synthetic else []),
        f"**Best on validation:** {_title(best)}, balanced accuracy {100 * scores[best]:.1f} %"
        + (f" ({_title(ranked[1])}: {100 * scores[ranked[1]]:.1f} %)" if len(ranked) > 1 else "")
        + ".",
        f"**Its test result:** {value:.1f} % balanced accuracy, 95 % interval [{low:.1f}, {high:.1f}] "
        f"over the {number:,} test images and {seeds}.",
        *_is_it_better(best, groups),
        _does_it_help(groups),
        _calibration(runs),
    ]
    return Markdown("\n\n".join(said))


def _scores(groups: dict[str, list[Run]]) -> dict[str, float]:
    """Mean balanced accuracy on validation by recipe, the best first."""
    means = {
        recipe: float(np.mean([_on_validation(run) for run in runs]))
        for recipe, runs in groups.items()
    }
    return dict(sorted(means.items(), key=lambda item: item[1], reverse=True))


def _title(recipe: str) -> str:
    return recipes.title(recipe)


def _on_validation(run: Run) -> float:
    """Balanced accuracy on validation at the epoch that it chose."""
    epoch = run.selection("best_validation")["epoch"]
    history = run.history.set_index("epoch")
    return float(history.loc[epoch, "validation_balanced_accuracy"])


def _is_it_better(best: str, groups: dict[str, list[Run]]) -> list[str]:
    """The recipe that validation chose against the first one, unless that is the same."""
    baseline = next(iter(groups))
    if best == baseline:
        return [
            "**Is it better than the baseline?** It is the baseline: nothing tried does better."
        ]
    told = _contrast(groups[best], groups[baseline])
    return [
        f"**Is it better than the baseline?** {_title(best)} against {_title(baseline)}: {told} "
        f"(Taken alone: the best of {len(groups)} on validation looks a little better than it is, and the "
        "table below corrects for all of them.)"
    ]


def _does_it_help(groups: dict[str, list[Run]]) -> str:
    hard = next((recipe for recipe in groups if recipes.is_hard_mining(recipe)), None)
    others = [recipe for recipe in groups if not recipes.is_hard_mining(recipe)]
    if hard is None or not others:
        return "**Does HML help here?** Not asked: no recipe of it, or none to compare it with."
    control = CONTROL if CONTROL in groups else others[0]
    told = _contrast(groups[hard], groups[control])
    config = groups[control][0].config
    is_alike = (config.recipe, config.weighting, config.mean_over) == (CONTROL, "CS", "images")
    what = ", cross-entropy with its class weights, divisor and switch" if is_alike else ""
    return f"**Does HML help here?** {_title(hard)} against {_title(control)}{what}: {told}"


def _contrast(runs: list[Run], controls: list[Run]) -> str:
    """A difference on the test images in words, with its interval and an answer."""
    pairs = _paired(runs, controls)
    if not pairs[0]:
        return "they share no seed."
    hits = [_hits(runs) for runs in pairs]
    value, low, high = _interval(hits[0] - hits[1], pairs[0][0].test_targets)
    told = f"{value:+.1f} points of balanced accuracy, 95 % interval [{low:+.1f}, {high:+.1f}]"
    if len(pairs[0]) == 1:
        return (
            f"{told} over the test images alone. It cannot be told with one seed: another one moves a "
            "network by as much."
        )
    return f"{told}. {answer(low, high)}"


def answer(low: float, high: float) -> str:
    """Yes, no, or that it cannot be told, by an interval of a difference in points.

    >>> answer(0.4, 3.0), answer(-0.8, 0.7)
    ('Yes.', 'No: the difference is less than 1 point either way.')
    """
    if low > 0:
        return "Yes."
    if high < 0:
        return "No: it is worse."
    if max(-low, high) < MARGIN:
        return f"No: the difference is less than {MARGIN:g} point either way."
    return (
        "It cannot be told with so few images and seeds: what they do not exclude reaches from "
        f"{-low:.1f} points less to {high:.1f} more."
    )


def _paired(one: list[Run], other: list[Run]) -> tuple[list[Run], list[Run]]:
    """The runs of the seeds that both have."""
    by_seed = [{run.config.seed: run for run in runs} for runs in (one, other)]
    both = sorted(by_seed[0].keys() & by_seed[1].keys())
    return tuple([runs[seed] for seed in both] for runs in by_seed)


def _hits(runs: list[Run]) -> np.ndarray:
    """1 where a run is right about a test image at the epoch that validation chose, else 0, (S, N)."""
    targets = runs[0].test_targets
    return np.array([run.test_classes("best_validation") == targets for run in runs], dtype=float)


def _interval(values: np.ndarray, targets: np.ndarray) -> tuple[float, float, float]:
    """Balanced mean of values (S, N) of seeds and test images in percent, and its 95 % interval.

    Over seeds and test images (:func:`hml_lab.stats.over_images`); of one seed over the images alone.
    """
    own = 100 * stats.balanced_mean(values, targets)
    image_sd = 100 * stats.image_error(values, targets)
    if len(own) == 1:
        half = float(scipy.stats.norm.ppf(0.975) * image_sd)
        return float(own[0]), float(own[0]) - half, float(own[0]) + half
    found = stats.over_images(own, image_sd)
    return found.difference, found.low, found.high


def _calibration(runs: list[Run]) -> str:
    selections = [run.selection("best_validation") for run in runs]
    error = 100 * np.mean([chosen["ece"] for chosen in selections])
    accuracy = 100 * np.mean([chosen["top1"] for chosen in selections])
    confidence = 100 * np.mean(
        [run.test_predictions("best_validation").confidence.mean() for run in runs]
    )
    side = (
        "sure of itself than it is right"
        if confidence > accuracy
        else "often right than it is sure"
    )
    return (
        f"**Calibration:** on average it is {confidence:.0f} % sure and {accuracy:.0f} % right, more "
        f"{side}; the expected calibration error is {error:.1f} points."
    )


# Confusions -------------------------------------------------------------------------------------


def save_confusions(experiment: Experiment) -> None:
    """What the recipe that is best on validation confuses: the matrix, and images of the largest pairs."""
    groups = plots.by_recipe(experiment.runs, qualified=False)
    best = max(groups, key=lambda recipe: np.mean([_on_validation(run) for run in groups[recipe]]))
    matrix = plots.confusion_matrix(experiment.runs, [best], selection="best_validation")
    experiment.save_figure(matrix, "confusion")
    runs = groups[best]
    pairs = confusions(runs)
    if not pairs:
        return
    manifest, names = _manifest(experiment, "test"), runs[0].class_names
    rows = {}
    for (true, taken), places in pairs.items():
        label = f"{names[true]}, taken for {names[taken]}"
        rows[label] = _pictures(experiment, manifest["file"].iloc[places])
    title = "Test images most often taken for something else" + plots.caveat(runs)
    experiment.save_figure(plots.samples(rows, title=title, rows_are="confusions"), "confused")


def save_calibration(experiment: Experiment) -> None:
    """How often each recipe is right when it is so sure."""
    drawn = plots.reliability(experiment.runs, selection="best_validation")
    experiment.save_figure(drawn, "reliability")


def confusions(runs: list[Run], number: int = PAIRS) -> dict[tuple[int, int], list[int]]:
    """The most frequent confusions of some runs by their share of the true class: (true, taken for) → the
    places of their test images, those that most runs confuse first."""
    targets = runs[0].test_targets
    size = np.bincount(targets, minlength=len(runs[0].class_names))
    times: dict[tuple[int, int], Counter] = {}
    for run in runs:
        found = run.test_classes("best_validation")
        for where in np.flatnonzero(found != targets):
            pair = (int(targets[where]), int(found[where]))
            times.setdefault(pair, Counter())[int(where)] += 1
    ranked = sorted(times, key=lambda pair: -sum(times[pair].values()) / size[pair[0]])
    return {pair: [where for where, _ in times[pair].most_common()] for pair in ranked[:number]}


# Predictions ------------------------------------------------------------------------------------


def predictions(experiment: Experiment, number: int = SHOWN) -> Markdown | None:
    """Show what the best recipe's first network says of the first test image of a few classes."""
    groups = plots.by_recipe(experiment.runs, qualified=False)
    run = groups[next(iter(_scores(groups)))][0]
    try:
        model = run.model()
    except RunError as error:  # none were kept
        return Markdown(str(error))
    rows = _manifest(experiment, "test").drop_duplicates("class").head(number)
    files = [experiment.data_root / name for name in rows["file"]]
    display(Markdown(f"`hml predict {run.run_id} FILES… -o predictions.csv`"))
    table = predict(model, files, top=2, every_class=False, progress=False)
    table = table.assign(file=[path.name for path in files], true=rows["class"].tolist())
    experiment.show_table(table, "What this network says of the first test image of a few classes")
    return None
