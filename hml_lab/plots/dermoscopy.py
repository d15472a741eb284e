"""Pictures of the dermoscopy tables: ROC curves, how sure a network is, its features, the preparation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import seaborn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.special import log_softmax
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import roc_auc_score, roc_curve

from hml_core.runs import Run
from hml_lab.plots.results import by_recipe, caveat, seeds
from hml_lab.plots.style import figure, look, wrapped

MARKERS = "o^sDvPX*"


def roc_curves(
    runs: Iterable[Run], positive_class: str, *, selection: str = "best_validation"
) -> Figure:
    """ROC curve of one class against the rest: by recipe the mean over seeds, and from lowest to highest.

    Raises
    ------
    ValueError
        For a class that the runs do not have.
    """
    groups = by_recipe(runs)
    first = next(iter(groups.values()))[0]
    if positive_class not in first.class_names:
        raise ValueError(
            f"Expected `positive_class` to be one of {first.class_names}, got {positive_class!r}."
        )
    positive = first.class_names.index(positive_class)
    made, (ax,) = figure(5.6, 5.2)
    grid = np.linspace(0, 1, 201)
    for recipe, members in groups.items():
        curves, areas = [], []
        for run in members:
            truth = run.test_targets == positive
            if not truth.any():  # of a split that lacks the class
                continue
            score = log_softmax(run.test_logits(selection).astype(float), axis=1)[:, positive]
            false, true, _ = roc_curve(truth, score)
            curves.append(np.interp(grid, false, true))
            areas.append(100 * roc_auc_score(truth, score))
        drawn = look(recipe)
        if not curves:
            ax.plot([], [], label=f"{drawn.label}: no test image of {positive_class}")
            continue
        spread = f" ± {np.std(areas, ddof=1):.1f}" if len(areas) > 1 else ""
        label = f"{drawn.label}: AUC {np.mean(areas):.1f}{spread} %"
        ax.plot(
            grid, np.mean(curves, axis=0), color=drawn.colour, linestyle=drawn.line, label=label
        )
        ax.fill_between(
            grid, np.min(curves, axis=0), np.max(curves, axis=0), color=drawn.colour, alpha=0.1
        )
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    ax.set(
        xlabel="1 − specificity",
        ylabel="sensitivity",
        title=f"ROC of {positive_class}, test\nbands: lowest to highest, {seeds(groups)}"
        f"{caveat([first])}",
        aspect="equal",
    )
    ax.title.set_size(10)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return made


def confidence(runs: Iterable[Run]) -> Figure:
    """How sure the network is of its training images, epoch by epoch, for the head and the tail.

    Share of the images of the most frequent and of the rarest class in each bin of the true-class
    probability, as the training step saw them, mean over seeds. A column sums to 100 %; where runs
    stopped early, the mean is over those that went on.
    """
    groups = by_recipe(runs)
    first = next(iter(groups.values()))[0]
    chosen = {"head": int(first.class_counts.argmax()), "tail": int(first.class_counts.argmin())}
    made, axes = figure(
        3.3 * len(groups) + 1, 5.4, columns=len(groups), rows=2, sharex="col", sharey=True
    )
    for column, (recipe, members) in enumerate(groups.items()):
        for row, (part, label) in enumerate(chosen.items()):
            ax = axes[row * len(groups) + column]
            shares = _shares(members, label)  # (BINS, epochs)
            epochs = shares.shape[1]
            image = ax.imshow(
                np.maximum(shares, 0.1),
                origin="lower",
                aspect="auto",
                extent=(0.5, epochs + 0.5, 0, 1),
                norm=LogNorm(0.1, 100),
                cmap="cividis",
                interpolation="nearest",
            )
            ax.grid(visible=False)
            for end in {int(e) for e in _switches(members[0])}:
                ax.axvline(end + 0.5, color="white", linestyle=":", linewidth=1.4)
            if row == 0:
                ax.set_title(look(recipe).label, fontsize=10)
            else:
                ax.set_xlabel("epoch")
            if column == 0:
                name, count = first.class_names[label], first.class_counts[label]
                ax.set_ylabel(
                    f"{part}: {name}\n({count} images)\ntrue-class probability", fontsize=8
                )
    bar = made.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("training images of the class (%)")
    made.suptitle(
        f"True-class probability by epoch, {seeds(groups)}; dotted: switch of the loss"
        f"{caveat([first])}",
        fontsize=11,
    )
    return made


def _switches(run: Run) -> np.ndarray:
    history = run.history
    return history.loc[history["stage"].diff() > 0, "epoch"].to_numpy() - 1


def _shares(runs: Sequence[Run], label: int) -> np.ndarray:
    """Percent of the class's images in each bin, (BINS, epochs), mean over the runs of an epoch."""
    counts = [run.confidence[:, label].astype(float) for run in runs]  # (E, BINS) each
    total = np.zeros((max(map(len, counts)), counts[0].shape[1]))
    number = np.zeros((len(total), 1))
    for one in counts:
        images = one.sum(axis=1, keepdims=True)
        # A sampler may leave a class out of an epoch.
        total[: len(one)] += np.divide(one, images, out=np.zeros_like(one), where=images > 0)
        number[: len(one)] += images > 0
    return (100 * total / np.maximum(number, 1)).T


def features(run: Run, *, seed: int = 0) -> Figure:
    """t-SNE (van der Maaten and Hinton, 2008) of the test features of one run, coloured by class.

    The features are reduced to 50 principal components first, as is usual. Distances between clusters
    mean nothing.
    """
    found, targets = run.features, run.predictions[1]
    components = min(50, *found.shape)
    reduced = PCA(components, random_state=seed).fit_transform(found)
    perplexity = min(30.0, (len(found) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    made, (ax,) = figure(7.5, 5)
    colours = seaborn.color_palette("colorblind", len(run.class_names))
    for label, name in enumerate(run.class_names):
        own = points[targets == label]
        ax.scatter(
            *own.T,
            s=16,
            color=colours[label],
            marker=MARKERS[label % len(MARKERS)],
            alpha=0.8,
            linewidths=0,
            label=f"{name} ({len(own)})",
        )
    ax.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    ax.set_title(
        f"Test features, {look(run.config.recipe).label}, seed {run.config.seed}{caveat([run])}"
    )
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return made


def preparation(
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray]], *, synthetic: bool = False
) -> Figure:
    """Images before and after preparation, one column each.

    Parameters
    ----------
    pairs : sequence of (title, before, after)
        uint8 (H, W, 3) images.
    synthetic : bool
        Says so in the title.
    """
    made, axes = figure(2.1 * len(pairs), 4.4, columns=len(pairs), rows=2)
    for column, (title, *images) in enumerate(pairs):
        for row, image in enumerate(images):
            ax = axes[row * len(pairs) + column]
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_xlabel(f"{image.shape[1]} × {image.shape[0]}", fontsize=7)
        axes[column].set_title("\n".join(wrapped([title], 18)), fontsize=8)
    axes[0].set_ylabel("as shipped", fontsize=9)
    axes[len(pairs)].set_ylabel("prepared", fontsize=9)
    if synthetic:
        made.suptitle("SYNTHETIC images", fontsize=10)
    return made
