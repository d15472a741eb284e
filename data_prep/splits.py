"""Training, validation and test images such that what belongs together is in one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SPLITS = ("train", "validation", "test")
# What people write, in small letters, where they do not know a group: it must not become one.
UNKNOWN = ("", "-", "--", "?", ".", "unknown", "unk", "na", "n/a", "nan", "none", "null", "missing")


def by_group(
    classes: pd.Series, groups: pd.Series, seed: int, fractions: Sequence[float]
) -> pd.Series:
    """A split for every image: stratified by class, whole groups, at random.

    Within a class, groups come in random order, the ones with most images first, and each goes to the
    split that lacks most of its share of the class; the smallest go to validation and test, one to each,
    so that a class of three groups is in every split. A class of fewer is trained on first, and so is a
    group that holds all images of any class. A group whose images disagree about the class counts for its
    most frequent one.

    Parameters
    ----------
    classes, groups : pandas.Series of str
        Of each image, with one index; the order of the images does not matter.
    seed : int
    fractions : (train, validation, test), sum 1
        A split of fraction 0 gets nothing.

    Returns
    -------
    pandas.Series
        "train", "validation" or "test" for every image.
    """
    frame = pd.DataFrame({"class": classes, "group": groups})
    return groups.map(_assign(frame, seed, fractions))


def _assign(frame: pd.DataFrame, seed: int, fractions: Sequence[float]) -> dict[str, str]:
    """The split of every group."""
    random = np.random.default_rng(seed)
    closed = np.array([fraction == 0 for fraction in fractions])
    held_out = [number for number in (1, 2) if not closed[number]]
    sizes = frame.groupby(["group", "class"]).size().reset_index(name="images")
    largest = sizes.sort_values(["group", "images", "class"], ascending=[True, False, True])
    every = sizes.groupby("class")["images"].transform("sum")
    trained = set() if closed[0] else set(sizes["group"][sizes["images"] == every])
    groups = largest.groupby("group").agg({"class": "first", "images": "sum"}).reset_index()
    assigned = {}
    for _, members in groups.sort_values("group").groupby("class"):
        members = members.iloc[random.permutation(len(members))]
        members = members.sort_values("images", ascending=False, kind="stable")
        lacking = np.array(fractions, dtype=float) * members["images"].sum()
        # The smallest groups of a rare class go round once, so that no split is without the class.
        reserved = {}
        if len(members) > len(held_out):
            free = members["group"][~members["group"].isin(trained)]
            smallest = free.iloc[max(len(free) - len(held_out), 0) :]
            reserved = dict(zip(smallest, held_out))
        order = sorted(
            zip(members["group"], members["images"]), key=lambda member: member[0] not in reserved
        )
        for group, images in order:
            most = 0 if group in trained else int(np.where(closed, -np.inf, lacking).argmax())
            chosen = reserved.get(group, most)
            assigned[group] = SPLITS[chosen]
            lacking[chosen] -= images
    return assigned
