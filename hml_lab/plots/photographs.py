"""Photographs in figures: what a data set looks like, and what is taken for something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hml_lab.plots.style import alt_text, drawing, figure, wrapped

ACROSS = 5  # images of a class


@drawing
def samples(pictures: Mapping[str, Sequence[np.ndarray]], *, title: str, rows_are: str) -> Figure:
    """A row of images for each name, as they are (uint8 (H, W, 3)), with their sizes.

    Parameters
    ----------
    pictures : mapping
        What a row shows → its images; of more than five, the first five.
    title : str
    rows_are : str
        What the names on the left are, for the text beside the rows.
    """
    made, axes = figure(
        1.6 * ACROSS + 1.2,
        1.55 * len(pictures) + 0.5,
        columns=ACROSS,
        rows=len(pictures),
        stack=False,
    )
    for row, (name, images) in enumerate(pictures.items()):
        for column in range(ACROSS):
            ax = axes[row * ACROSS + column]
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
            if column < len(images):
                image = images[column]
                ax.imshow(image)
                ax.set_xlabel(f"{image.shape[1]} × {image.shape[0]}", fontsize=7)
        label = "\n".join(wrapped([name], 18))
        axes[row * ACROSS].set_ylabel(
            label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8
        )
    alt_text(
        made, f"{title}: photographs, a row each for {', '.join(map(str, pictures))} ({rows_are})."
    )
    made.suptitle(f"{title}\n({rows_are} on the left, pixels below)", fontsize=10)
    return made


@drawing
def sides(widths: Sequence[int], heights: Sequence[int], *, size: int, title: str) -> Figure:
    """Width and height of every image, and the shorter side that the copies have."""
    made, (ax,) = figure(5.2, 4.2)
    alt_text(
        made,
        f"{title}: {len(widths):,} images, {min(widths)} to {max(widths)} pixels wide and {min(heights)} "
        f"to {max(heights)} high; the copies' shorter side has {size}.",
    )
    ax.scatter(widths, heights, s=10, alpha=0.5, color="#3b6ea5", linewidths=0, label="an image")
    most = 1.05 * max(*widths, *heights)
    ax.plot([size, size, most], [most, size, size], color="#b5473c", linewidth=1.2, linestyle="--",
            label=f"shorter side of {size} pixels: below, enlarged")  # fmt: skip
    ax.set(xlim=(0, most), ylim=(0, most), xlabel="width (pixels)", ylabel="height (pixels)")
    ax.set_title(title)
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.15))
    return made
