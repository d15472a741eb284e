"""Tables as people and their spreadsheets save them: no cell moves to another column."""

from __future__ import annotations

import pytest

from hml_core.system import tables

PLAIN = "id,split\na,train\nb,test\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,  # Excel's mark
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        "\n\n" + PLAIN.replace(",", ";"),
        " id , split\n a,train \nb, test\n",
        '"id","split"\n"a","train"\n"b","test"\n',
        PLAIN + ",\n,\n",
        "id,split\n,\na,train\n\nb,test",
    ],
    ids=["plain", "mark", ";", "tab", "crlf", "above", "blanks", "quoted", "commas", "between"],
)
def test_a_table_is_what_its_cells_say(text, tmp_path):
    (tmp_path / "t.csv").write_bytes(text.encode())
    found = tables.read(tmp_path / "t.csv")
    assert found.to_dict("list") == {"id": ["a", "b"], "split": ["train", "test"]}


def test_cells_are_text_and_lines_can_be_named(tmp_path):
    """Numbers keep their zeros, NA and the like are words, and a short row has empty cells."""
    (tmp_path / "t.csv").write_text("id,n,id\n,,\n007,NA,x\n1e3\n")
    found = tables.read(tmp_path / "t.csv")
    assert found.to_numpy().tolist() == [["007", "NA", "x"], ["1e3", "", ""]]
    assert (found.index + 2).tolist() == [3, 4]
    assert tables.several(found, "id")
    assert not tables.several(found, "n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,split\nx,a,train\ny,b,test\n", "Expected 2 fields in line 2, saw 3"),
        (b"id,split\na,train\nx,b,test\n", "Expected 2 fields in line 3, saw 3"),
        (b"id,split\na,train,\n", "Expected 2 fields in line 2, saw 3"),
        (b"id,split\n\xff,train\n", "not UTF-8"),
        ("id,split\na,train\n".encode("utf-16"), "UTF-16"),
        (b"", "No columns"),
        (b"\n\n", "No columns"),
    ],
    ids=["longer", "later", "trailing", "latin-1", "utf-16", "empty", "lines"],
)
def test_what_cannot_be_told_apart_is_refused(content, said, tmp_path):
    """Given longer rows, pandas makes an index of their first cells, and all others move to the left."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        tables.read(tmp_path / "t.csv")
