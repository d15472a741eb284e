"""iNaturalist 2018 as it is downloaded: read once, as a stream, and believed only when whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import pkgutil
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from data_prep.inaturalist import archive, tarball
from data_prep.inaturalist.images import Options
from data_prep.inaturalist.prepare import prepare
from hml_core.errors import DataError
from hml_lab.cli import main

pytestmark = pytest.mark.usefixtures("in_this_process")
SMALL = Options(size=48)


def packed(root, folder, *, with_jsons=False, leave_out=(), extra=()):
    """The archive in ``root`` as the official tarballs, in a folder of its own."""
    folder.mkdir()
    with tarfile.open(folder / "train_val2018.tar.gz", "w:gz") as stream:
        for name, content in extra:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                stream.addfile(info)
            else:
                info.size = len(content)
                stream.addfile(info, io.BytesIO(content))
        for path in sorted((root / "train_val2018").rglob("*.jpg"), key=lambda path: path.name):
            if path.name not in leave_out:
                stream.add(path, str(path.relative_to(root)))
    for name in ("train2018.json", "val2018.json"):
        if with_jsons:
            with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as stream:
                stream.add(root / name, name)
        else:
            shutil.copy(root / name, folder)
    return folder


@pytest.mark.usefixtures("own_workers")
def test_the_tarballs_give_the_same_files_as_the_unpacked_archive(root, tmp_path):
    tarballs = packed(root, tmp_path / "tar", with_jsons=True)
    before = sorted(path.name for path in tarballs.iterdir())
    for name, source in (("a", root), ("b", tarballs)):
        prepare(archive.read(source), tmp_path / name, SMALL, workers=2, progress=False)
    for name in ("manifest.csv", "categories.csv", "rejected.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    listed = pd.read_csv(tmp_path / "a" / "manifest.csv")["file"]
    for file in listed[::17]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(path.name for path in tarballs.iterdir()) == before, "nothing is unpacked"


def half(whole):
    return whole[: len(whole) // 2]


def wrong_checksum(whole):
    return whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]


@pytest.mark.parametrize("damage", [half, wrong_checksum])
def test_a_damaged_tarball_is_named_and_the_next_one_starts_over(damage, root, tmp_path):
    """Also where the new file has the old one's size and time: nothing before the damage is believed."""
    folder = packed(root, tmp_path / "tar")
    tarball, out = folder / "train_val2018.tar.gz", tmp_path / "out"
    whole = tarball.read_bytes()
    tarball.write_bytes(damage(whole))
    for _ in range(2):
        with pytest.raises(DataError, match=r"2018.tar.gz' is damaged or not whole .* starts over"):
            prepare(archive.read(folder), out, SMALL, workers=1, progress=False)
        assert not (out / "prepared.json").exists()
    stamp = tarball.stat().st_mtime_ns
    tarball.write_bytes(whole)  # downloaded again
    os.utime(tarball, ns=(stamp, stamp))
    made = prepare(archive.read(folder), out, SMALL, workers=1, progress=False)
    assert made.done_before == 0
    assert len(made.rejected) == 0, "what was not reached is not rejected"


def headers(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as stream:
        return [member.offset for member in stream]


@pytest.mark.parametrize("packing", [bytes, gzip.compress])
@pytest.mark.parametrize("cut", ["between members", "in a header", "damaged header", "zeros"])
def test_the_end_of_a_tarball_is_only_a_proper_one(cut, packing, root, tmp_path):
    folder = packed(root, tmp_path / "tar")
    content = gzip.decompress((folder / "train_val2018.tar.gz").read_bytes())
    (folder / "train_val2018.tar.gz").unlink()
    at = headers(content)[200]
    changed = {
        "between members": content[:at],
        "in a header": content[: at + 100],
        "damaged header": content[: at + 10] + b"\xff" + content[at + 11 :],
        "zeros": content[:at] + bytes(512) + content[at + 512 :],
    }[cut]
    (folder / "train_val2018.tar").write_bytes(packing(changed))
    rows = archive.read(folder).records
    absent = []
    with pytest.raises(
        tarball.DamagedTarball, match=r"no whole header at byte|goes on after its end"
    ):
        list(tarball.members(folder / "train_val2018.tar", rows, absent.append))
    assert not absent, "what was not reached is not missing"


def test_the_last_image_comes_after_the_checksum(root, tmp_path):
    """A call that has all images, and is then interrupted, must not leave a sum uncompared."""
    folder = packed(root, tmp_path / "tar")
    path = folder / "train_val2018.tar.gz"
    path.write_bytes(wrong_checksum(path.read_bytes()))
    rows = archive.read(folder).records
    work = tarball.members(path, rows, print)
    assert sum(1 for _ in itertools.islice(work, len(rows) - 1)) == len(rows) - 1
    with pytest.raises(tarball.DamagedTarball, match="CRC check failed"):
        next(work)


def test_a_tarball_of_annotations_is_checked_to_its_end(root, tmp_path):
    folder = packed(root, tmp_path / "tar", with_jsons=True)
    path = folder / "train2018.json.tar.gz"
    path.write_bytes(wrong_checksum(path.read_bytes()))
    with pytest.raises(DataError, match=r"train2018.json.tar.gz' is damaged or not whole"):
        archive.read(folder)


def test_an_interrupted_call_goes_on_and_another_tarball_starts_over(root, tmp_path):
    folder = packed(root, tmp_path / "tar")
    out, path = tmp_path / "out", folder / "train_val2018.tar.gz"
    first = prepare(archive.read(folder), out, SMALL, workers=1, progress=False)
    journal = out / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:101]))
    again = prepare(archive.read(folder), out, SMALL, workers=1, progress=False)
    assert again.done_before == 100
    pd.testing.assert_frame_equal(again.manifest, first.manifest)
    names = archive.read(root).records["path"].tolist()
    contents = [name.read_bytes() for name in names]
    for name, content in zip(names, contents[1:] + contents[:1], strict=True):
        name.write_bytes(content)
    packed(root, tmp_path / "other")
    shutil.copy(tmp_path / "other" / path.name, path)
    other = prepare(archive.read(folder), out, SMALL, workers=1, progress=False)
    assert other.done_before == 0
    assert (other.manifest["output_sha256"] != first.manifest["output_sha256"]).mean() > 0.9


def test_an_image_that_the_tarball_does_not_hold_is_rejected_by_name(root, tmp_path):
    records = archive.read(root).records
    counts = records[records["split"] == "train"]["category"].value_counts()
    gone = records[(records["category"] == counts.index[0]) & (records["split"] == "train")].iloc[0]
    folder = packed(root, tmp_path / "tar", leave_out=(gone["path"].name,))
    made = prepare(archive.read(folder), tmp_path / "out", SMALL, workers=1, progress=False)
    assert made.rejected[["id", "reason"]].values.tolist() == [[gone["id"], "not in the archive"]]


def test_hostile_members_write_nothing(root, tmp_path):
    inside = archive.read(root).records["name"].iloc[0]
    extra = [
        ("../outside.jpg", b"x"),
        ("/tmp/absolute-member.jpg", b"x"),
        ("train_val2018/../../outside.jpg", b"x"),
        (f"train_val2018/{inside}", "/etc/passwd"),  # a link of a listed name, before the file
        ("train_val2018/not/listed/a.jpg", b"x"),
    ]
    folder = packed(root, tmp_path / "tar", extra=extra)
    made = prepare(archive.read(folder), tmp_path / "out", SMALL, workers=1, progress=False)
    assert len(made.rejected) == 0
    assert not (tmp_path / "outside.jpg").exists()
    assert not Path("/tmp/absolute-member.jpg").exists()
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.jpg")}
    assert found == set(made.manifest["file"])


def test_an_image_twice_is_refused(root, tmp_path):
    """`tar` would take the last, and a stream has read the first."""
    name = archive.read(root).records["name"].iloc[0]
    folder = packed(root, tmp_path / "tar", extra=[(f"train_val2018/{name}", b"another")])
    with pytest.raises(DataError, match=rf"holds the image '{name}' twice"):
        prepare(archive.read(folder), tmp_path / "out", SMALL, workers=1, progress=False)


@pytest.mark.parametrize("what", ["a FIFO", "a folder"])
def test_annotations_that_are_no_file_are_named(what, root):
    path = root / "train2018.json"
    path.unlink()
    (os.mkfifo if what == "a FIFO" else os.mkdir)(path)
    with pytest.raises(DataError, match=r"train2018.json' is no regular file"):
        archive.read(root)


def test_the_tarballs_sum_is_compared_where_asked(root, tmp_path, monkeypatch):
    folder = packed(root, tmp_path / "tar")
    call = ["prepare", "inat2018", "--data-root", str(folder), "--size", "32", "--verify"]
    refused = CliRunner().invoke(main, [*call, "--workers", "1"])
    assert refused.exit_code == 1
    assert "is not the official file: its MD5 is" in refused.output
    assert not (folder / "prepared" / "manifest.csv").exists()
    sums = "torchvision.datasets.inaturalist.DATASET_MD5"
    content = (folder / "train_val2018.tar.gz").read_bytes()
    monkeypatch.setitem(pkgutil.resolve_name(sums), "2018", hashlib.md5(content).hexdigest())
    assert CliRunner().invoke(main, [*call, "--workers", "1"]).exit_code == 0
    unpacked = CliRunner().invoke(main, [*call[:3], str(root), *call[4:]])
    assert "there is no tarball" in unpacked.output
