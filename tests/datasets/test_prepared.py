"""Prepared folders that were damaged: each is refused with the field, the row or the id that is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import isic, prepared
from hml_core.errors import DataError
from hml_core.system import files
from tests.distributed.jobs import SMALL

GOOD = {
    "archive": "inat2018",
    "synthetic": True,
    "options": {"size": 64},
    "classes": ["a", "b"],
    "class_names": ["A", "B"],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
}
LISTS = ("classes", "class_names")
ABSENT = object()


def describe(folder: Path, **changes) -> None:
    described = {**GOOD, **changes}
    kept = {name: value for name, value in described.items() if value is not ABSENT}
    # (As a stranger's program may: NaN is no JSON.)
    (folder / prepared.DESCRIPTION).write_text(json.dumps(files.sealed(kept)))


@pytest.fixture
def own(miniature, tmp_path) -> Path:
    """A prepared iNaturalist 2018 whose tables a test may change."""
    shutil.copytree(miniature / "prepared", folder := tmp_path / "prepared", copy_function=os.link)
    return folder


def rewrite(folder: Path, name: str, change) -> None:
    """``<name>.csv`` with its text changed, and a description whose sum holds."""
    path = folder / f"{name}.csv"
    data = change(path.read_text())
    path.unlink()  # it is the same file as the original's
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    described = files.unsealed(json.loads((folder / "prepared.json").read_text()))
    prepared.describe(folder, {**described, f"{name}_sha256": files.sha256(path)})


def load(folder: Path, **fields) -> datasets.Splits:
    return datasets.load(RunConfig(**SMALL | {"recipe": "ce"} | fields), folder)


def cell(row: int, column: str, value: str):
    """A change of one cell; rows count from 0, without the header."""

    def change(text: str) -> str:
        header, *lines = text.splitlines()
        cells = lines[row].split(",")
        cells[header.split(",").index(column)] = value
        lines[row] = ",".join(cells)
        return "\n".join([header, *lines]) + "\n"

    return change


# prepared.json ------------------------------------------------------------------------------------


def test_a_description_that_is_whole_is_found(tmp_path):
    describe(tmp_path)
    assert prepared.find(tmp_path, "inat2018", lists=LISTS) == (tmp_path, GOOD)
    describe(tmp_path, mean=ABSENT, std=ABSENT, classes=ABSENT)
    assert "mean" not in prepared.find(tmp_path, "inat2018")[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"archive": ABSENT}, "`archive` to be a text, found none"),
        ({"archive": 3}, "`archive` to be a text, got 3"),
        ({"synthetic": ABSENT}, "`synthetic` to be true or false, found none"),
        ({"synthetic": "no"}, "`synthetic` to be true or false, got 'no'"),
        ({"options": ABSENT}, "`options` to be fields and values, found none"),
        ({"options": None}, "`options` to be fields and values, got None"),
        ({"options": {}}, "`options.size` to be a whole number ≥ 0, found none"),
        ({"options": {"size": "64"}}, "`options.size` to be a whole number ≥ 0, got '64'"),
        ({"options": {"size": True}}, "`options.size` .* got True"),
        ({"options": {"size": -1}}, "`options.size` .* got -1"),
        ({"std": ABSENT}, "`std` to be three numbers > 0, found none"),
        ({"mean": ABSENT}, "`mean` to be three numbers, found none"),
        ({"mean": [0.5, 0.5]}, r"`mean` to be three numbers, got \[0.5, 0.5\]"),
        ({"mean": [0.5, 0.5, float("nan")]}, "`mean` to be three numbers"),
        ({"mean": None}, "`mean` to be three numbers, got None"),
        ({"std": [0.2, 0.2, 0]}, "`std` to be three numbers > 0"),
        ({"std": [0.2, 0.2, "0.2"]}, "`std` to be three numbers > 0"),
        ({"classes": ABSENT}, "`classes` to be a list of texts, found none"),
        ({"classes": "ab"}, "`classes` to be a list of texts, got 'ab'"),
        ({"classes": ["a", "a"]}, "each of `classes` once, got several 'a'"),
        ({"class_names": ["A", "\ud800"]}, "`class_names` to be a list of texts, got"),
        ({"mean": [10**400, 0, 0]}, "`mean` to be three numbers"),
        ({"std": [1e300, 1, 1]}, "`std` to be three numbers > 0"),
        ({"class_names": ["A"]}, "as many `classes` as `class_names`"),
    ],
)
def test_a_field_that_is_wrong_is_named(changes, said, tmp_path):
    describe(tmp_path, **changes)
    with pytest.raises(DataError, match=f"is damaged: expected {said}"):
        prepared.find(tmp_path, "inat2018", lists=LISTS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1 is not JSON"),
        (b'{"archive":\n', "line 2 is not JSON"),
        (b"[1]", r"expected fields and values, got \[1\]"),
        (b"null", "got None"),
        (b'{"archive": "' + b"x" * 5000 + b'\xff"}', "byte 5013 is not UTF-8"),
        (b"[" * 100_000, "expected JSON of a few levels"),
        (b'{"archive": ' + b"9" * 5000 + b"}", "numbers of a few digits"),
        (json.dumps({"archive": "x" * 5000}).encode(), "holds x+: expected inat2018"),
        (json.dumps(["x" * 5000] * 99).encode(), "is damaged"),
    ],
)
def test_what_is_no_description_is_refused_without_printing_it(data, said, tmp_path):
    (tmp_path / "prepared.json").write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        prepared.find(tmp_path, "inat2018")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["class_names"].reverse(), "was changed after it was written"),
        (lambda d: d["mean"].reverse() or d.update(mean=[0.4, 0.5, 0.5]), "was changed"),
        (lambda d: d.update(synthetic=False), "was changed"),
        (lambda d: d.pop("checksum"), "has no checksum, as older versions wrote it"),
        (lambda d: d.update(checksum=0), "was changed"),
    ],
)
def test_what_nothing_vouches_for_is_refused(change, said, tmp_path):
    describe(tmp_path)
    described = json.loads((tmp_path / "prepared.json").read_text())
    change(described)
    (tmp_path / "prepared.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=rf"{said}.*same `hml prepare` again"):
        prepared.find(tmp_path, "inat2018", lists=LISTS)


def test_dermoscopy_without_its_classes_is_refused(tmp_path):
    describe(tmp_path, archive="isic2018", class_names=ABSENT)
    with pytest.raises(DataError, match="`class_names` to be a list of texts, found none"):
        datasets.load(RunConfig(dataset="isic2018"), tmp_path)

    header = ",".join(isic.COLUMNS)
    (tmp_path / "manifest.csv").write_text(f"{header}\na,NV,,train,a.jpg,0\n")
    sha256 = files.sha256(tmp_path / "manifest.csv")
    describe(tmp_path, archive="isic2019", manifest_sha256=sha256)
    with pytest.raises(DataError, match="expected the class NV among its `classes`"):
        datasets.load(RunConfig(dataset="isic2019"), tmp_path)


# Tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "No columns"),
        (b"\n\n", "No columns"),
        (b"a,c\n1,2\n", "expected the column 'b', found none"),
        (b"a,b\n1,2\n1,2,3\n", "expected 2 values in line 3, got 3"),
        (b"a,b\n1,2,3\n1,2,3\n", "expected 2 values in line 2, got 3"),
        (b"a,b\n1,2\n1\n", "expected 2 values in line 3, got 1"),
        (b"a,b\n1," + b"2" * 200_000 + b"\n", "line 2: field larger"),
        (b"a,b\n1,\xff\n", "it is not UTF-8"),
        (b'a,b\n1,"2\n', "EOF inside string"),
    ],
)
def test_a_table_that_is_none_is_refused(data, said, tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(data)
    described = {"manifest_sha256": files.sha256(path)}
    with pytest.raises(DataError, match=rf"manifest.csv' is damaged: .*{said}"):
        prepared.read_table(tmp_path, "manifest", described, ("a", "b"))


def test_texts_stay_texts(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("a,b\n007,\nNA,null\n")
    described = {"manifest_sha256": files.sha256(path)}
    found = prepared.read_table(tmp_path, "manifest", described, ("b", "a"))
    assert found.to_numpy().tolist() == [["007", ""], ["NA", "null"]]


# iNaturalist 2018: 24 categories ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("manifest", cell(5, "category", "24"), "has the category 24: expected 0 … 23"),
        ("manifest", cell(5, "category", "-1"), "has the category -1: expected 0 … 23"),
        ("manifest", cell(5, "category", "1.5"), "category '1.5' in row 6: expected a whole"),
        ("manifest", cell(5, "category", ""), "category '' in row 6: expected a whole"),
        ("manifest", cell(5, "category", "9" * 30), "in row 6: expected a whole number"),
        ("categories", cell(3, "category", "4"), "category 4 in row 4: expected 3"),
        ("categories", cell(3, "category", "x"), "category 'x' in row 4: expected a whole"),
        ("categories", cell(3, "train_images", "many"), "train_images 'many' in row 4"),
        ("categories", cell(3, "train_images", "999"), "category 3 999 training images: expected "),
        ("manifest", lambda text: text.replace(",validation,", ",test,"), "no validation image"),
        ("manifest", lambda text: text.replace(",category,", ",class,"), "the column 'category'"),
        ("categories", lambda text: text.replace("supercategory", "x"), "column 'supercategory'"),
        ("manifest", lambda _: "", "No columns"),
    ],
)
def test_tables_of_inaturalist_that_do_not_agree_are_refused(table, change, said, own):
    rewrite(own, table, change)
    with pytest.raises(DataError, match=said):
        load(own)


def test_the_id_that_is_out_of_range_is_the_one_that_is_named(own):
    """Not the largest id, which is a good one."""
    rewrite(own, "manifest", cell(0, "category", "-7"))
    with pytest.raises(DataError, match="has the category -7"):
        load(own)


def test_a_category_without_training_images_is_named(own):
    def without_its_images(text: str) -> str:
        header, *lines = text.splitlines()
        split, category = (header.split(",").index(name) for name in ("split", "category"))
        rows = [line.split(",") for line in lines]
        kept = [row for row in rows if (row[split], row[category]) != ("train", "9")]
        return "\n".join([header, *map(",".join, kept)]) + "\n"

    rewrite(own, "manifest", without_its_images)
    rewrite(own, "categories", cell(9, "train_images", "0"))
    with pytest.raises(DataError, match=r"category 9 in .* has no training image"):
        load(own)


def test_an_untouched_copy_is_loaded(own):
    assert load(own).num_classes == 24
    assert load(own, subset_classes=6).num_classes == 6
