"""Tables as people and their spreadsheets save them: no cell moves to another column."""

from __future__ import annotations

import csv
import io

import pandas as pd
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


ODD = ["a\rb", "\r", "a\nb", "a\r\nb", "a\r\n", 'a"b', "a,b", " a ", "\u2028", "a"]


def test_ours_are_read_as_they_were_written():
    """A file's name, a title or a message may hold what ends a row for some readers."""
    frame = pd.DataFrame({"name": ODD, "number": [0.1 * n for n in range(len(ODD))]})
    frame["last"] = frame["name"]
    text = tables.csv_of(frame)
    rows = io.StringIO(newline="")
    writer = csv.writer(tables.Rows(rows), lineterminator=tables.Rows.END)
    writer.writerow(frame.columns)
    writer.writerows(frame.to_numpy().tolist())
    for written in (text, rows.getvalue()):
        assert list(csv.reader(io.StringIO(written, newline="")))[1:] == [
            [name, str(number), name] for name, number, _ in frame.itertuples(index=False)
        ]
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(text.encode())), frame)


def test_plain_ones_have_line_feeds_alone():
    frame = pd.DataFrame({"a": ["x", None], "b": [1.5, 2.0]})
    assert tables.csv_of(frame) == frame.to_csv(index=False) == "a,b\nx,1.5\n,2.0\n"
