"""Images that are there more than once: the same file, or nearly the same picture.

A picture in both training and test flatters the test; one in two classes cannot be learnt. They are
reported, not removed: which is right, and whether two pictures of one thing are one group, their owner
knows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

# Of 128 bits of their look that may differ. Made smaller and recompressed, nine of ten photographs change
# fewer; of the 30 pairs that it finds among the 10,015 of ISIC 2018, 27 show one lesion (at 6: 48 of 67).
NEAR = 4
FLAT = 16  # bits that a look needs to say anything: a plain surface has next to none
MOST = 60_000  # images that are compared each with each: a minute
BLOCK = 100  # rows of a comparison: memory stays flat
COLUMNS = ("id", "other", "kind", "class", "other_class", "split", "other_split")


def find(images: pd.DataFrame) -> pd.DataFrame:
    """Each image that is the same as, or nearly, one that stands before it.

    Parameters
    ----------
    images : DataFrame
        ``id``, ``class``, ``split``, ``source_sha256`` and ``look``
        (:func:`data_prep.folder.images.look`).

    Returns
    -------
    DataFrame
        ``id``, ``other`` (the first image like it), ``kind`` ("same file" or "nearly the same"), and class
        and split of both. Above 60,000 images, only looks that agree in every bit are nearly the same.
    """
    images = images.reset_index(drop=True)
    first = _first(images)
    same = np.flatnonzero(first != np.arange(len(images)))
    near = _near(images["look"])
    near[same] = -1
    rows = [(row, first[row], "same file") for row in same]
    rows += [(row, near[row], "nearly the same") for row in np.flatnonzero(near >= 0)]
    parts = []
    for row, other, kind in sorted(rows):
        one, two = images.iloc[row], images.iloc[other]
        parts.append(
            (one["id"], two["id"], kind, one["class"], two["class"], one["split"], two["split"])
        )
    return pd.DataFrame(parts, columns=list(COLUMNS))


def _first(images: pd.DataFrame) -> np.ndarray:
    """For each image, the place of the first with the same bytes."""
    _, start, inverse = np.unique(
        images["source_sha256"].to_numpy(dtype=str), return_index=True, return_inverse=True
    )
    return start[inverse]


def _near(looks: pd.Series) -> np.ndarray:
    """For each image, the place of the first one before it that looks like it; −1 where there is none."""
    data = bytes.fromhex("".join(looks))
    bits = np.frombuffer(data, dtype=np.uint64).reshape(len(looks), 2)
    weight = np.bitwise_count(bits).sum(axis=1)
    telling = np.flatnonzero((weight >= FLAT) & (weight <= 128 - FLAT))
    found = np.full(len(looks), -1)
    bits = bits[telling]
    if len(bits) > MOST:
        _, start, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
        first = start[inverse.ravel()]
        repeated = first != np.arange(len(bits))
        found[telling[repeated]] = telling[first[repeated]]
        return found
    for start in range(0, len(bits), BLOCK):
        rows = bits[start : start + BLOCK]
        before = bits[: start + len(rows)]
        # uint8: (rows, before)
        differing = np.bitwise_count(rows[:, None, 0] ^ before[None, :, 0])
        differing += np.bitwise_count(rows[:, None, 1] ^ before[None, :, 1])
        place = start + np.arange(len(rows))
        alike = (differing <= NEAR) & (np.arange(len(before)) < place[:, None])
        hits = alike.any(axis=1)
        found[telling[place[hits]]] = telling[alike[hits].argmax(axis=1)]
    return found


def sentences(found: pd.DataFrame) -> list[str]:
    """How many there are, and what harm they do; empty where there are none."""
    if not len(found):
        return []
    kinds = found["kind"].value_counts()
    said = [f"{number:,} {kind} as another" for kind, number in kinds.items()]
    across = found[found["split"] != found["other_split"]]
    mixed = found[found["class"] != found["other_class"]]
    text = f"Images that are there more than once: {', '.join(said)} (duplicates.csv)"
    if len(across):
        text += (
            f"; {len(across):,} of them in another split than the other, which flatters the test"
        )
    if len(mixed):
        text += f"; {len(mixed):,} in another class"
    return [
        f"{text}. Remove them, or give what belongs together one `group` in a CSV, and prepare again."
    ]
