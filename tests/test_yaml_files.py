"""YAML as people mean it, in files and for -p alike; what explodes or stands twice is refused at once."""

from __future__ import annotations

import pytest

from hml_core.errors import ConfigError
from hml_core.system import yaml_files

MEANT = {
    "010": 10,
    "[08]": [8],
    "10:00:00": "10:00:00",
    "2020-01-01": "2020-01-01",
    "yes": "yes",
    "on": "on",
    "true": True,
    "1e4": 1e4,
    "1E-3": 1e-3,
    "32GB": "32GB",
    "[ce, hml1]": ["ce", "hml1"],
    "~": None,
    "0x10": 16,
    ".inf": float("inf"),
    r'"\ud83d\ude00"': "😀",  # a pair, as JSON writes it
    r'"\ud83d"': "\ud83d",  # and half of one, which is for each field to refuse
}
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
)
REFUSED = {
    "an alias": ("a: &x [1]\nb: *x\n", "line 2 holds the alias '\\*x'"),
    "a list that holds itself": ("a: &x [*x]\n", "the alias '\\*x'"),
    "a billion laughs": (LAUGHS, "the alias"),
    "a key twice": ("epochs: 3\nepochs: 4\n", 'found duplicate key "epochs"'),
    "a number for a name": ("3: 4\n", "got 3 \\(int\\) for a name"),
    "nothing for a name": ("~: 4\n", "got None"),
    "a list for a name": ("? [1]\n: 4\n", "for a name"),
    "a list": ("- 1\n", "`name: value` lines"),
    "an object": (
        "a: !!python/object/apply:os.system [true]\n",
        "could not determine a constructor",
    ),
    "a merge": ("base: &b {x: 1}\nother:\n  <<: *b\n", "the alias"),
    "a merge of what stands there": ("<<: {x: 1}\n", "line 1 holds a merge"),
    "a tag": ("a: !!set {x}\n", "line 1 holds the tag"),
    "the tag for text": ("a: ! 1\n", "line 1 holds the tag '!'"),
    "the tag for a list": ("a: ! [1]\n", "line 1 holds the tag '!'"),
    "a tag that its value is not": ("a: !!bool 3\n", "line 1 holds the tag"),
    "another version of YAML": ("%YAML 1.1\n---\na: 010\n", "a directive"),
    "a name for a tag": ("%TAG ! tag:yaml.org,2002:\n---\na: !int x\n", "a directive"),
    "a number for a name, further in": ("a:\n  - {3: 4}\n", "got 3 \\(int\\) for a name"),
    "a number that no message prints": ("a: 0x" + "f" * 5000 + "\n", "a number of 20,000 bits"),
    "too many lines": ("".join(f"a{n}: 1\n" for n in range(20_000)), "more than 20,000 values"),
    "a hundred levels": ("a: " + "[" * 100 + "]" * 100 + "\n", "more than 50 levels"),
    "a tab": ("a:\n\tb: 1\n", "line 2"),
    "more than a number holds": ("a: [1, -1e400]\n", "line 1 holds '-1e400', more than a number"),
    "a number beyond all": ("a: " + "9" * 5000 + "\n", "Cannot read"),
    "a letter beyond all": ('a: "\\U00110000"\n', "Cannot read"),
    "a letter beyond what numbers hold": ('a: "\\UFFFFFFFF"\n', "Cannot read"),
    "too much": ("a: " + "x" * 2**20, "at most 1,048,576 characters"),
}


@pytest.mark.parametrize("text", MEANT)
def test_values_are_what_people_mean(text, tmp_path):
    (tmp_path / "file.yaml").write_text(f"name: {text}\n")
    assert yaml_files.value(text, "it") == MEANT[text]
    assert yaml_files.read(tmp_path / "file.yaml") == {"name": MEANT[text]}
    assert yaml_files.value(yaml_files.text({"name": MEANT[text]}), "it") == {"name": MEANT[text]}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nobody_means_is_refused(case, tmp_path):
    content, told = REFUSED[case]
    (tmp_path / "file.yaml").write_text(content)
    with pytest.raises(ConfigError, match=told):
        yaml_files.read(tmp_path / "file.yaml")


def test_an_error_names_the_file_once(tmp_path):
    (tmp_path / "file.yaml").write_text("a: &x [1]\nb: *x\n")
    with pytest.raises(ConfigError) as raised:
        yaml_files.read(tmp_path / "file.yaml")
    assert str(raised.value).count("Cannot read") == 1


@pytest.mark.parametrize(
    "text", ["010", "yes", "1e4", "null", "10:00", "a: b", "- x", "2020-01-01", ""]
)
def test_text_comes_back_as_text(text):
    assert yaml_files.value(yaml_files.text({"a": text}), "it") == {"a": text}


def test_every_letter_comes_back():
    """Also those that end a line in YAML: a notebook would get another text than its batch says."""
    letters = [chr(one) for one in [*range(0x3100), 0xFEFF, 0xFFFD, 0x1F600, 0x10FFFF]]
    given = {"a": [f"x{letter} y" for letter in letters], "b": "".join(letters)}
    assert yaml_files.value(yaml_files.text(given), "it") == given


def test_what_stands_twice_comes_back_twice():
    """By an alias, which says so, the file would be refused."""
    values = {"b": [1]}
    assert yaml_files.value(yaml_files.text({"a": values, "c": [values, values]}), "it") == {
        "a": values,
        "c": [values, values],
    }


def test_what_is_no_plain_file_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="Expected a file"):
        yaml_files.read(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="Expected a file"):
        yaml_files.read(tmp_path)
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yaml_files.read(tmp_path / "marked") == {"a": 1}
