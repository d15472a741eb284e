"""What the notebooks on images of skin lesions share."""

from __future__ import annotations

from pathlib import Path

from IPython.display import Markdown, display

from data_prep.isic import report
from hml_core.runs import Run
from hml_lab import plots
from hml_lab.experiment import Experiment


def show_preparation(experiment: Experiment) -> None:
    """The leak that the split avoids, and an image of every class before and after."""
    root: Path = experiment.data_root
    _, described = report.read(root)
    display(Markdown(report.leak(described)))
    drawn = plots.preparation(report.before_and_after(root), synthetic=described["synthetic"])
    experiment.save_figure(drawn, "preparation")


def shown_run(experiment: Experiment) -> Run:
    """The run whose features are drawn: the last recipe's first seed; another where that is not there."""
    last = experiment.recipes[-1]
    return next((run for run in experiment.runs if run.config.recipe == last), experiment.runs[-1])


def save_class_figures(experiment: Experiment) -> None:
    """Training images, accuracy by class and over classes, and what is confused with what."""
    runs, selection = experiment.runs, experiment.selection
    first = runs[0]
    counts = plots.class_counts(first.class_counts, first.class_names, synthetic=first.synthetic)
    experiment.save_figure(counts, "counts")
    experiment.save_figure(plots.per_class_accuracy(runs, selection=selection), "per_class")
    experiment.save_figure(plots.balanced_accuracy(runs, selection=selection), "balanced")
    recipes = [experiment.baseline, experiment.recipes[-1]]
    confused = plots.confusion_matrix(runs, recipes, selection=selection)
    experiment.save_figure(confused, "confusion")
