"""The audit: what the authors' code does beside the loss, each as a switch with its measured effect.

A *cell* is a named setting that is trained with every seed (:mod:`.settings`); effects are differences
of two cells, paired by seed (:mod:`.questions`, :mod:`.steps`, :mod:`.factorial`). Everything here works
on the frame of a sweep with a column ``cell``.
"""

from hml_lab.studies.audit.authors import author_contrasts, author_statistics
from hml_lab.studies.audit.factorial import AXES, CUBE, cube, cube_in_words
from hml_lab.studies.audit.questions import (
    QUESTIONS,
    by_cell,
    effect,
    effects,
    over_images,
    over_images_in_words,
)
from hml_lab.studies.audit.said import answer, pairs_in_words, primary_among, verdict
from hml_lab.studies.audit.scores import scores_by_cell
from hml_lab.studies.audit.settings import (
    FACTORIAL,
    LIKE_HML1,
    MARGIN,
    PRIMARY,
    SECOND_STAGE,
    SWITCHES,
    cells,
    delta_cell,
    rate_cell,
    run,
)
from hml_lab.studies.audit.steps import BESIDE, WAY, beside, lacking, seeds_of_the_way, way

__all__ = [
    "AXES",
    "BESIDE",
    "CUBE",
    "FACTORIAL",
    "LIKE_HML1",
    "MARGIN",
    "PRIMARY",
    "QUESTIONS",
    "SECOND_STAGE",
    "SWITCHES",
    "WAY",
    "answer",
    "author_contrasts",
    "author_statistics",
    "beside",
    "by_cell",
    "cells",
    "cube",
    "cube_in_words",
    "delta_cell",
    "effect",
    "effects",
    "lacking",
    "over_images",
    "over_images_in_words",
    "pairs_in_words",
    "primary_among",
    "rate_cell",
    "run",
    "scores_by_cell",
    "seeds_of_the_way",
    "verdict",
    "way",
]
