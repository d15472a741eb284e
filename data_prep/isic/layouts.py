"""Names of the challenges' files, their classes and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """A part of a challenge's training set that people have without the rest.

    Parameters
    ----------
    title : str
        What results on it are labelled with.
    images : tuple of str
        Folders that its images lie in.
    lesions : str
        How the lesion ids of its images begin, and of no others.
    dataset : str
        What is trained on it.
    """

    title: str
    images: tuple[str, ...]
    lesions: str
    dataset: str


@dataclass(frozen=True)
class Layout:
    """Names of one challenge's files.

    Parameters
    ----------
    images : str
        Folder of the training images.
    also : tuple of str
        Folders that the same images come in elsewhere.
    ground_truth : str
        CSV with a column ``image`` and a one-hot column for each class.
    lesions : str
        CSV with columns ``image`` and ``lesion_id``.
    classes : mapping
        Columns of the ground truth and what they stand for.
    official : mapping
        The challenge's further sets whose ground truth is public: split → (folder, CSV).
    more_lesions : str
        CSV with the lesions of these, which the challenge did not ship; it need not be there.
    parts : mapping
        Name → :class:`Part`, for whoever has no other images.
    metadata : tuple of str
        Names of the one CSV that tells class (``dx``) and lesion of each image (``image_id``) where a
        table of the challenge is not there.
    """

    images: str
    ground_truth: str
    lesions: str
    classes: Mapping[str, str]
    official: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    more_lesions: str = ""
    also: tuple[str, ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    metadata: tuple[str, ...] = ()
    address: str = "https://challenge.isic-archive.com/data/"

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders that images are looked for in."""
        parts = [folder for part in self.parts.values() for folder in part.images]
        return (self.images, *self.also, *parts, *(folder for folder, _ in self.official.values()))


HAM10000 = ("HAM10000_images_part_1", "HAM10000_images_part_2")  # as its authors ship it

ARCHIVES = {
    "isic2018": Layout(
        images="ISIC2018_Task3_Training_Input",
        ground_truth="ISIC2018_Task3_Training_GroundTruth.csv",
        lesions="ISIC2018_Task3_Training_LesionGroupings.csv",
        classes={
            "MEL": "melanoma", "NV": "melanocytic nevus", "BCC": "basal cell carcinoma",
            "AKIEC": "actinic keratosis", "BKL": "benign keratosis",
            "DF": "dermatofibroma", "VASC": "vascular lesion",
        },
        official={
            f"official_{split.lower()}": (
                f"ISIC2018_Task3_{split}_Input", f"ISIC2018_Task3_{split}_GroundTruth.csv"
            )
            for split in ("Validation", "Test")
        },
        more_lesions="isic2018_lesions.csv",
        also=HAM10000,
        metadata=("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata"),
    ),
    "isic2019": Layout(
        images="ISIC_2019_Training_Input",
        ground_truth="ISIC_2019_Training_GroundTruth.csv",
        lesions="ISIC_2019_Training_Metadata.csv",
        classes={
            "MEL": "melanoma", "NV": "melanocytic nevus", "BCC": "basal cell carcinoma",
            "AK": "actinic keratosis", "BKL": "benign keratosis", "DF": "dermatofibroma",
            "VASC": "vascular lesion", "SCC": "squamous cell carcinoma", "UNK": "none of the others",
        },
        parts={
            "HAM10000": Part(
                "HAM10000 part of ISIC 2019",
                ("ISIC2018_Task3_Training_Input", *HAM10000),
                "HAM_",
                "isic2019_ham",
            ),
        },
    ),
}  # fmt: skip
