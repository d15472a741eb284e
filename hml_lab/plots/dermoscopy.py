"""Pictures of the dermoscopy tables: ROC curves, how sure a network is, its features, the preparation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import seaborn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.special import log_softmax

from hml_core.runs import Run
from hml_lab.plots.looks import look
from hml_lab.plots.methods import (
    ITS_MEDIAN,
    by_recipe,
    caveat,
    caveat_of,
    one_for,
    said_caveat,
    seeds,
    unstable,
)
from hml_lab.plots.style import (
    alt_text,
    drawing,
    figure,
    handles,
    legend,
    page_width,
    wrapped,
)

MARKERS = "o^sDvPX*"
ACROSS = 4  # methods beside each other; more stand below
LETTERS_AN_INCH = 13  # of the smallest size


@drawing
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
    from sklearn.metrics import roc_auc_score, roc_curve  # half a second, as of what is below

    positive = first.class_names.index(positive_class)
    drawn, (ax,) = figure(5.6, 5.2)
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
        how = look(recipe)
        if not curves:
            ax.plot([], [], label=f"{how.label}: no test image of {positive_class}")
            continue
        spread = f" ± {np.std(areas, ddof=1):.1f}" if len(areas) > 1 else ""
        label = f"{how.label}: AUC {np.mean(areas):.1f}{spread} %"
        if unstable(members):
            label = f"{how.label}: AUC {', '.join(f'{area:.1f}' for area in areas)} %"
            for number, curve in enumerate(curves):
                own = {"color": how.colour, "linestyle": how.line, "linewidth": 0.8}
                ax.plot(grid, curve, **own, label=None if number else label)
            continue
        ax.plot(grid, np.mean(curves, axis=0), color=how.colour, linestyle=how.line, label=label)
        ax.fill_between(
            grid, np.min(curves, axis=0), np.max(curves, axis=0), color=how.colour, alpha=0.1
        )
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    ax.set(
        xlabel="1 − specificity",
        ylabel="sensitivity",
        title=f"ROC of {positive_class}, test\n{_bands(groups)}{caveat_of(groups)}",
        aspect="equal",
    )
    legend(drawn, handles(ax))
    areas = "; ".join(item.get_label() for item in handles(ax))
    said = said_caveat(groups)
    alt_text(drawn, f"ROC curves of {positive_class} against the rest. {areas}.{said}")
    return drawn


def _bands(groups: dict[str, list[Run]]) -> str:
    most = max(map(len, groups.values()))
    return f"bands: lowest to highest, {seeds(groups)}" if most > 1 else seeds(groups)


@drawing
def confidence(runs: Iterable[Run]) -> Figure:
    """How sure the network is of its training images, epoch by epoch, for the head and the tail.

    Share of the images of the most frequent and of the rarest class in each bin of the true-class
    probability, as the training step saw them, mean over seeds. A column sums to 100 %; where runs
    stopped early, the mean is over those that went on.
    """
    groups = by_recipe(runs)
    first = next(iter(groups.values()))[0]
    chosen = {"head": int(first.class_counts.argmax()), "tail": int(first.class_counts.argmin())}
    across = min(len(groups), max(1, int(min(ACROSS, page_width() / 1.6))))
    storeys = -(-len(groups) // across)
    drawn, axes = figure(
        3.3 * across + 1, 5.2 * storeys, columns=across, rows=2 * storeys, stack=False, sharey=True
    )
    for ax in axes:
        ax.set_visible(False)
    drawn_runs = {recipe: one_for(members) for recipe, members in groups.items()}
    for place, (recipe, members) in enumerate(drawn_runs.items()):
        storey, column = divmod(place, across)
        for row, (part, label) in enumerate(chosen.items()):
            ax = axes[(2 * storey + row) * across + column]
            ax.set_visible(True)
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
                ax.set_title(look(recipe).label, fontsize="medium")
                ax.tick_params(labelbottom=False)
            else:
                ax.set_xlabel("epoch")
            if column == 0:
                name, count = first.class_names[label], first.class_counts[label]
                ax.set_ylabel(
                    f"{part}: {name}\n({count} images)\ntrue-class probability", fontsize="small"
                )
    bar = drawn.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("training images of the class (%)")
    drawn.suptitle(
        f"True-class probability by epoch, {seeds(groups)}; dotted: switch of the loss"
        f"{caveat_of(groups, ITS_MEDIAN)}",
        fontsize="medium",
    )
    ends = "; ".join(
        f"{look(recipe).label}: {_sure(members, chosen['head']):.0f} % and "
        f"{_sure(members, chosen['tail']):.0f} %"
        for recipe, members in drawn_runs.items()
    )
    alt_text(
        drawn,
        f"How sure the networks are of training images, by epoch. Images of the most frequent and of the "
        f"rarest class with a true-class probability above one half in the last epoch: {ends}."
        f"{said_caveat(groups, ITS_MEDIAN)}",
    )
    return drawn


def _sure(runs: Sequence[Run], label: int) -> float:
    """Percent of the class's images in the upper half of the bins, in the last epoch."""
    last = _shares(runs, label)[:, -1]
    return float(last[len(last) // 2 :].sum())


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


@drawing
def features(run: Run, *, seed: int = 0) -> Figure:
    """t-SNE (van der Maaten and Hinton, 2008) of the test features of one run, coloured by class.

    The features are reduced to 50 principal components first, as is usual. Distances between clusters
    mean nothing.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    found, targets = run.features, run.predictions[1]
    components = min(50, *found.shape)
    reduced = PCA(components, random_state=seed).fit_transform(found)
    perplexity = min(30.0, (len(found) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    drawn, (ax,) = figure(7.5, 5)
    colours = _colours(len(run.class_names))
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
    legend(drawn, handles(ax))
    alt_text(
        drawn,
        f"t-SNE map of {len(found)} test features of {look(run.config.recipe).label} in "
        f"{len(run.class_names)} colours, one for each class.{caveat([run])}",
    )
    return drawn


def _colours(number: int) -> list:
    """Colours that differ: of up to ten classes those that all eyes tell apart."""
    return seaborn.color_palette("colorblind" if number <= 10 else "husl", number)


@drawing
def preparation(
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    synthetic: bool = False,
    title: str = "",
    credit: str = "",
) -> Figure:
    """Images before and after preparation, one column each.

    Parameters
    ----------
    pairs : sequence of (title, before, after)
        uint8 (H, W, 3) images.
    synthetic : bool
        Says so in the title.
    title : str
        What else stands above, such as that the images are a part of an archive.
    credit : str
        Whose images these are, below them: a figure is passed on without what stands around it.
    """
    titles = [title, "SYNTHETIC images" if synthetic else ""]
    drawn, axes = figure(2.1 * len(pairs), 4.4, columns=len(pairs), rows=2, stack=False)
    for column, (name, *images) in enumerate(pairs):
        for row, image in enumerate(images):
            ax = axes[row * len(pairs) + column]
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_xlabel(f"{image.shape[1]} × {image.shape[0]}", fontsize="x-small")
        axes[column].set_title("\n".join(wrapped([name], 18)), fontsize="small")
    axes[0].set_ylabel("as shipped", fontsize="medium")
    axes[len(pairs)].set_ylabel("prepared", fontsize="medium")
    if said := "\n".join(filter(None, titles)):
        drawn.suptitle(said, fontsize="medium")
    if credit:
        letters = int(LETTERS_AN_INCH * min(2.1 * len(pairs), page_width()))
        drawn.supxlabel("\n".join(wrapped([credit], letters)), fontsize="x-small")
    sizes = "; ".join(
        f"{title}: {before.shape[1]} × {before.shape[0]} to {after.shape[1]} × {after.shape[0]} pixels"
        for title, before, after in pairs
    )
    alt_text(
        drawn,
        f"{'. '.join(filter(None, [*titles, 'Images before and after preparation']))}. {sizes}. {credit}",
    )
    return drawn
