"""Files that are none, or say more than they hold: named and refused, never waited for or swallowed."""

from __future__ import annotations

import errno
import functools
import gzip
import inspect
import io
import json
import lzma
import os
import shutil
import signal
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from data_prep.inaturalist import archive as inaturalist
from data_prep.inaturalist import strict_tar, tarball
from data_prep.isic import archive as isic
from data_prep.isic import splits
from hml_core import engines, runs
from hml_core.config import RunConfig
from hml_core.datasets import prepared
from hml_core.errors import (
    ConfigError,
    DataError,
    ForeignRecordError,
    HmlError,
    RunBusyError,
    RunError,
)
from hml_core.models import imagenet, prediction
from hml_core.runs import Run, compact_predictions, exporting
from hml_core.runs.folder import FORMAT
from hml_core.runs.record import RECORDED
from hml_core.system import arrays, files, image_parts, images, locks, states, yaml_files
from hml_core.trainer import fit
from hml_lab import published
from hml_lab.cli import main
from hml_lab.notebooks import executed, interface, outputs
from tests.chaos.foreign import hole

WATCHED_S = 60  # whoever waits for a pipe would wait for ever


@pytest.fixture(autouse=True)
def _watched():
    def stop(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(WATCHED_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    config = RunConfig(epochs=1, batch_size=64)
    return fit(config, runs_root=tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture
def run(done, tmp_path) -> Run:
    """A copy that a test may damage."""
    return Run(shutil.copytree(done.path, tmp_path / "runs" / done.run_id))


# Readers ------------------------------------------------------------------------------------------


def noticed(notebook: executed.Executed) -> None:
    """One notebook that cannot be read ends no site: it is a notice there, and an error here."""
    if notebook.notice:
        raise ConfigError(notebook.notice)


READERS = {
    "YAML": (yaml_files.read, ConfigError),
    "weights": (lambda path: imagenet.load_weights(_Backbone(), str(path)), DataError),
    "a state": (states.read, OSError),
    "arrays": (arrays.read, OSError),
    "predictions": (compact_predictions.arrays_of, RunError),
    "an image": (images.load, images.ImageError),
    "a split": (lambda path: splits.from_csv(None, path), DataError),
    "a table of ISIC": (lambda path: isic._read_csv(path, set()), DataError),
    "annotations": (lambda path: inaturalist._read_json(path, path.name), DataError),
    "a description": (prepared._read, DataError),
    "a notebook to run": (lambda path: interface.parameters(path), HmlError),
    "an executed notebook": (lambda path: noticed(executed.read(path)), ConfigError),
    "a shared manifest": (files.read_xz, OSError),
    "a checksum": (functools.partial(files.sha256, limit=2**20), OSError),
}


class _Backbone:
    name = "resnet18"
    backbone = torch.nn.Linear(1, 1)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, hole], ids=["pipe", "folder", "hole"])
@pytest.mark.parametrize("what", READERS)
def test_a_reader_waits_for_no_pipe_and_swallows_no_hole(what, make, tmp_path):
    read, expected = READERS[what]
    path = tmp_path / "a.file"
    make(path)
    with pytest.raises(expected):
        read(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, hole], ids=["pipe", "folder", "hole"])
def test_what_is_no_notebook_is_none(make, tmp_path):
    make(tmp_path / "a.ipynb")
    assert outputs.read(tmp_path / "a.ipynb") is None


@pytest.mark.parametrize("make", [os.mkfifo, hole], ids=["pipe", "hole"])
def test_a_note_of_a_lock_that_is_none_names_nobody(make, tmp_path):
    (tmp_path / locks.FOLDER).mkdir()
    with locks.held(tmp_path, "it", "works"):
        note = tmp_path / locks.FOLDER / "it.json"
        note.unlink()
        make(note)
        with (
            pytest.raises(RunBusyError, match="Another process works"),
            locks.held(tmp_path, "it", "works", wait=0),
        ):
            pass


def test_commands_say_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for command in (["train", "--config"], ["train", "--points"], ["sweep"], ["batch"]):
        result = CliRunner().invoke(main, [*command, str(tmp_path / "pipe")])
        assert result.exit_code in (1, 2), (command, result.output)
        assert "pipe" in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "maximum recursion depth"),
        ('{"seed": 1, "seed": 2}', "the name 'seed' stands twice"),
        ("", "Expecting value"),
    ],
)
@pytest.mark.parametrize("option", ["--config", "--points"])
def test_a_file_of_json_that_is_none_is_named(option, text, said, tmp_path):
    (tmp_path / "given.json").write_text(text)
    result = CliRunner().invoke(main, ["train", option, str(tmp_path / "given.json")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert "given.json" in result.output
    if option == "--config":
        assert said in result.output


def test_a_note_of_a_lock_that_is_none_says_nothing(tmp_path):
    (tmp_path / "note.json").write_text("[" * 4096)
    assert locks._holder(tmp_path / "note.json") == "Another process"


@pytest.mark.parametrize("name", ["comparable.csv", "cifar_lt.csv"])
def test_published_tables_are_files(name, tmp_path):
    folder = shutil.copytree(published.FOLDER, tmp_path / "published")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises((OSError, DataError)):
        published.comparable("ce", "cifar10", "exp", 100.0, folder)


# Records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [os.mkfifo, hole], ids=["pipe", "hole"])
@pytest.mark.parametrize("name", [*RECORDED, "metrics.json"])
def test_a_record_with_something_else_in_a_files_place_is_left_out(name, make, run):
    (run.path / name).unlink()
    make(run.path / name)
    with pytest.warns(UserWarning, match=f"{run.run_id} is damaged"):
        assert runs.load(run.path.parent).empty
    with pytest.warns(UserWarning, match="was set aside"):
        again = fit(run.config, runs_root=run.path.parent, progress=False)
    assert again.verify()


def test_a_failure_that_is_a_pipe_is_passed_over(run):
    os.mkfifo(run.path / "failed.json")
    assert runs.failures(run.path.parent).empty
    frame = engines.sweep([run.config], runs_root=run.path.parent, train=False)
    assert frame["status"].tolist() == ["done"]


@pytest.mark.parametrize("make", [os.mkfifo, hole], ids=["pipe", "hole"])
def test_a_checkpoint_that_is_none_is_named(make, tiny, tmp_path):
    config = tiny(epochs=1)
    (tmp_path / config.run_id).mkdir()
    make(tmp_path / config.run_id / "checkpoint.pt")
    with pytest.raises(RunError, match=r"Cannot read the checkpoint '.*checkpoint\.pt'"):
        fit(config, runs_root=tmp_path, progress=False)
    assert (tmp_path / config.run_id / "checkpoint.pt").exists()


def test_a_shared_manifest_unpacks_to_no_more_than_is_expected(tmp_path):
    path = tmp_path / "bomb.xz"
    path.write_bytes(lzma.compress(bytes(2**24)))
    with pytest.raises(OSError, match="unpacks to more than 1,048,576 bytes"):
        files.read_xz(path, 2**20)
    path.write_bytes(lzma.compress(b"all of it"))
    assert files.read_xz(path, 2**20) == b"all of it"
    path.write_bytes(lzma.compress(b"all of it")[:-9])
    with pytest.raises(EOFError):
        files.read_xz(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that fails as it is read")
@pytest.mark.parametrize("read", [files.read_bytes, files.read_xz, files.sha256])
def test_what_fails_as_it_is_read_is_named(read):
    """A disk or network that fails later than in opening: the system's error has no name of its own."""
    with pytest.raises(OSError, match=r"Input/output error: '/proc/self/mem'") as error:
        read("/proc/self/mem")
    assert error.value.errno == errno.EIO


@pytest.mark.parametrize("read", [files.read_bytes, files.read_xz, files.read_text])
def test_a_small_file_takes_little_memory_whatever_is_allowed(read, tmp_path):
    """A checkpoint of 1 MB may have 16 GiB: where there is less, it has to be read as well."""
    path = tmp_path / "small"
    path.write_bytes(lzma.compress(b"all of it") if read == files.read_xz else b"all of it")
    assert read(path, 2**50) in (b"all of it", "all of it")


def test_what_a_file_does_not_know_of_itself_is_read_up_to_the_limit():
    said = files.read_bytes("/proc/self/status")  # of 0 bytes
    assert b"Name:" in said
    with files.opened("/proc/self/status") as stream:
        assert files.read_all(stream, 5) == said[:5]


def test_a_compact_record_names_the_archive_that_it_cannot_read(done, tmp_path):
    (folder,) = exporting.export(done.path.parent, tmp_path)
    (folder / compact_predictions.ARRAYS).write_bytes(b"PK")
    with pytest.raises(RunError, match=r"Cannot read '.*predictions_compact\.npz'"):
        _ = Run(folder).test_targets


# Declared sizes -----------------------------------------------------------------------------------


def npz(path: Path, header: dict | None = None, content: bytes = b"", size: int | None = None):
    """An archive with one array whose header is given."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logits.npy", stream.getvalue() + content)
    if size is not None:  # say something else in the directory
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\1\2") + 24
        data[at : at + 4] = size.to_bytes(4, "little")
        path.write_bytes(data)


HEADER = {"descr": "<f4", "fortran_order": False, "shape": (2,)}


def test_arrays_are_read_as_they_are(tmp_path):
    kept = {"a": np.arange(6).reshape(2, 3), "b": np.zeros((0, 4), np.float16), "c": np.float64(3)}
    np.savez_compressed(tmp_path / "a.npz", **kept)
    read = arrays.read(tmp_path / "a.npz")
    assert all(np.array_equal(read[name], value) for name, value in kept.items())
    assert read.keys() == kept.keys()


def test_an_archive_that_unpacks_to_gigabytes_is_named_before_it_does(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, logits=np.zeros(2**22))
    assert path.stat().st_size < 2**17
    with pytest.raises(OSError, match=r"it unpacks to 33,55.* expected at most 1,048,576"):
        arrays.read(path, 2**20)
    npz(path, HEADER, bytes(8), size=2**32 - 2)
    with pytest.raises((OSError, ValueError), match=r"unpacks to|declared"):
        arrays.read(path, 2**30)


@pytest.mark.parametrize(
    ("header", "content"),
    [
        ({**HEADER, "shape": (2**40,)}, bytes(8)),
        ({**HEADER, "shape": (2,)}, bytes(4)),
        ({**HEADER, "shape": (2,)}, bytes(12)),
        ({**HEADER, "descr": "|O"}, bytes(8)),
    ],
)
def test_an_array_whose_shape_is_another_size_than_it_has_is_refused(header, content, tmp_path):
    npz(tmp_path / "a.npz", header, content)
    with pytest.raises(ValueError, match=r"'logits\.npy' is declared as"):
        arrays.read(tmp_path / "a.npz")


def test_an_array_of_a_version_that_numpy_has_yet_to_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("logits.npy", b"\x93NUMPY\x09\x00" + bytes(120))
    with pytest.raises(ValueError, match=r"'logits\.npy' is an array of version \(9, 0\)"):
        arrays.read(tmp_path / "a.npz")


def _encrypted(data: bytes) -> bytes:
    place = data.index(b"PK\x01\x02")
    return data[:place + 8] + b"\x01" + data[place + 9:]  # fmt: skip


ODD_ARCHIVES = {
    "encrypted": (zipfile.ZIP_STORED, b"\x93NUMPY\x01\x00", _encrypted),
    "another packer's, damaged": (
        zipfile.ZIP_LZMA,
        bytes(1000),
        lambda data: data[:50] + b"\xff" * 30 + data[80:],
    ),
    "a header of brackets": (
        zipfile.ZIP_STORED,
        b"\x93NUMPY\x01\x00\x04\x00((((",
        lambda data: data,
    ),
}


@pytest.mark.parametrize("what", ODD_ARCHIVES)
def test_an_archive_that_its_readers_cannot_take_is_named(what, tmp_path):
    packer, content, change = ODD_ARCHIVES[what]
    with zipfile.ZipFile(tmp_path / "a.npz", "w", packer) as archive:
        archive.writestr("logits.npy", content)
    (tmp_path / "a.npz").write_bytes(change((tmp_path / "a.npz").read_bytes()))
    with pytest.raises(ValueError, match=r"a\.npz is no archive of arrays: |Cannot parse"):
        arrays.read(tmp_path / "a.npz")


def test_a_checkpoint_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(2**18)}, tmp_path / "sound.pt")
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as sound,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in sound.infolist():
            bomb.writestr(member.filename, sound.read(member))
    for read in (states.read, states.weights):
        assert read(tmp_path / "sound.pt")["weights"].shape == (2**18,)
        with pytest.raises(RunError, match=r"it declares 1,0.* bytes and holds"):
            read(tmp_path / "bomb.pt")


def test_weights_in_torchs_old_format_are_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert states.weights(tmp_path / "old.pth")["a"].tolist() == [1, 1]


def chunk(kind: bytes, content: bytes) -> bytes:
    said = len(content).to_bytes(4, "big") + kind + content
    return said + zlib.crc32(kind + content).to_bytes(4, "big")


def bomb_png(side: int) -> bytes:
    """A black square of so many pixels in next to no bytes; its rows are made one after the other."""
    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(1 + side // 8)) for _ in range(side)) + pack.flush()
    head = 2 * side.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return images.PNG + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_of_pixels_is_told_by_its_header(monkeypatch):
    data = bomb_png(8_000)
    assert len(data) < 20_000
    monkeypatch.setattr(
        images.Image.Image, "load", lambda self: pytest.fail("its pixels were made")
    )
    with pytest.raises(images.ImageError, match=r"64000000|8000 × 8000 pixels in .* bytes"):
        images.decode(data)


def jpeg(side: int = 64, **options) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    images.Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def never_decoded(monkeypatch) -> None:
    for name in ("load", "draft"):
        told = f"Image.{name}: a decoder was asked"
        monkeypatch.setattr(images.Image.Image, name, lambda self, *_, told=told: pytest.fail(told))


@pytest.mark.parametrize("read", [images.decode, images.require_usable])
@pytest.mark.parametrize("number", [101, 3000])
def test_a_jpeg_of_many_scans_is_told_before_it_is_decoded(number, read, monkeypatch):
    """Each goes over every pixel: 200 kB kept a worker busy for half a minute."""
    whole = jpeg(progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    never_decoded(monkeypatch)
    with pytest.raises(images.ImageError, match="64 × 64 pixels in more than 100 scans"):
        read(whole[:-2] + scan * number + whole[-2:])


def test_a_large_jpeg_has_fewer_scans():
    data = jpeg(progressive=True)
    image_parts.require_few_scans(data, (12_000, 12_000))
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(images.ImageError, match="in more than 20 scans"):
        image_parts.require_few_scans(data[:-2] + scan * 20 + data[-2:], (12_000, 12_000))


PARTS = {
    "filling": b"\xff" * 10**5,
    "stray bytes": b"x" * 10**5,
    "escaped bytes": b"\xff\x00" * 10**5,
    "comments": b"\xff\xfe\x00\x02" * 10**5,
    "comments of no length": b"\xff\xfe\x00\x00" * 10**5,
    "markers without a length": b"\xff\xd8" * 10**5,
    "restarts": b"\xff\xd0" * 10**5,
}


@pytest.mark.parametrize("read", [images.decode, images.require_usable, images.size])
@pytest.mark.parametrize("name", PARTS)
def test_a_jpeg_of_many_parts_is_told_before_pillow_reads_it(name, read, monkeypatch):
    """Pillow takes a second for a megabyte of them; half a gigabyte is allowed."""
    data = jpeg()
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(images.ImageError, match=r"has more than .* in front of its pixels"):
        read(data[:2] + PARTS[name] + data[2:])


@pytest.mark.parametrize("read", [images.decode, images.require_usable, images.size])
@pytest.mark.parametrize(
    "begins", [b"\xff\xe1\xff\xffExif\0\0", b"\xff\xed\xff\xffPhotoshop 3.0\0"]
)
def test_notes_of_a_jpeg_in_many_parts_are_told_before_pillow_reads_them(begins, read, monkeypatch):
    """It copies all EXIF of before for each part: minutes for half a gigabyte."""
    data, part = jpeg(), begins + bytes(2**16 - 1 + 2 - len(begins))
    images.size(data[:2] + part + data[2:])
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(images.ImageError, match=r"has more than 4,194,304 bytes of EXIF"):
        read(data[:2] + 70 * part + data[2:])


def small(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    images.Image.new("RGB", (16, 16), "red").save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(*tags: tuple[int, int, int, int], data: bytes = b"", is_big: bool = False) -> bytes:
    """A grey TIFF of 16 × 16 pixels with further tags: number, kind, count, value or place."""
    usual = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: 256}
    entries = {number: (number, 4, 1, value) for number, value in usual.items()}
    entries |= {tag[0]: tag for tag in tags}
    form, head = ("<HHQQ", b"II+\0\x08\0\0\0") if is_big else ("<HHII", b"II*\0")
    whole = "<Q" if is_big else "<I"
    body = struct.pack("<Q" if is_big else "<H", len(entries))
    body += b"".join(struct.pack(form, *entries[number]) for number in sorted(entries))
    return head + struct.pack(whole, 16 if is_big else 8) + body + bytes(8) + bytes(512) + data


def twice(number: int, value: int, *tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF in which one tag stands there ten times more."""
    once = tiff(*tags)
    count = struct.unpack("<H", once[8:10])[0]
    more = struct.pack("<HHII", number, 4, 1, value) * 10
    return once[:8] + struct.pack("<H", count + 10) + more + once[10:]


def slow_parts(name: str) -> bytes:
    """An image whose parts Pillow keeps, unpacks or makes objects of, one by one."""
    png, gif, many = small("PNG"), small("GIF"), image_parts.NUMBERS + 1
    start = 13 + (3 << (1 + (gif[10] & 7)))  # behind the palette
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1000)))
    made = {
        "PNG, parts in front": lambda: png[:33] + chunk(b"abCd", b"") * 1001 + png[33:],
        "PNG, profiles": lambda: png[:33] + profile * 2 + png[33:],
        "TIFF, strips": lambda: tiff((273, 4, many, 300), data=bytes(4 * many)),
        "TIFF, bits": lambda: tiff((258, 3, many, 300), data=bytes(2 * many)),
        "BigTIFF": lambda: tiff((258, 3, many, 300), data=bytes(2 * many), is_big=True),
        "TIFF, one place": lambda: tiff(
            (278, 4, 1, 1), (279, 4, 2**16, 300), data=struct.pack("<I", 2**13) * 2**16
        ),
        "TIFF, tiles": lambda: tiff((325, 3, 2, 60_000 << 16 | 60_000)),
        "TIFF, lengths with a sign": lambda: tiff((279, 9, 1, 2**30)),
        "TIFF, lengths in bytes": lambda: tiff(
            (279, 1, 1000, 300), data=b"\xff" * 1000
        ),  # each of 255
        "BigTIFF, lengths with a sign": lambda: tiff((279, 17, 1, 2**40), is_big=True),
        "TIFF, places for lengths": lambda: tiff((279, 13, 1, 2**30)),
        "TIFF, a width twice": lambda: twice(256, 60_000, (279, 4, 1, 2**30)),
        "BigTIFF, long": lambda: tiff((279, 16, 1, 2**40), is_big=True),
        "GIF, comment": lambda: gif[:start] + b"!\xfe" + b"\x01x" * 100_000 + b"\0" + gif[start:],
        "GIF, comments": lambda: gif[:start] + b"!\xfe\x01x\0" * 100_000 + gif[start:],
        "GIF, stray bytes": lambda: gif[:start] + bytes(100_001) + gif[start:],
        "GIF, length": lambda: gif + bytes(image_parts.LARGEST_SLOW),
    }
    return made[name]()


SLOW = (
    "PNG, parts in front", "PNG, profiles", "TIFF, strips", "TIFF, bits", "TIFF, one place",
    "TIFF, tiles", "TIFF, lengths with a sign", "TIFF, lengths in bytes", "TIFF, places for lengths",
    "BigTIFF, lengths with a sign", "TIFF, a width twice", "BigTIFF", "BigTIFF, long", "GIF, comment",
    "GIF, comments", "GIF, stray bytes", "GIF, length",
)  # fmt: skip


@pytest.mark.parametrize("read", [images.decode, images.require_usable, images.size])
@pytest.mark.parametrize("name", SLOW)
def test_an_image_of_very_many_parts_is_told_before_pillow_reads_it(name, read, monkeypatch):
    """A few megabytes of them took Pillow ten seconds and more, or gigabytes of memory."""
    data = slow_parts(name)
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(images.ImageError, match=r"more than|expected at most"):
        read(data)


@pytest.mark.parametrize("read", [images.decode, images.require_usable])
@pytest.mark.parametrize("where", ["pixels", "behind them"])
def test_parts_of_a_png_with_or_behind_its_pixels_are_counted_too(where, read, monkeypatch):
    png = small("PNG")
    never_decoded(monkeypatch)
    monkeypatch.setattr(image_parts, "DATA_CHUNKS", 1000)
    place = png.index(b"IDAT") - 4 if where == "pixels" else len(png) - 12
    part = chunk(b"IDAT", b"") if where == "pixels" else chunk(b"abCd", b"")
    with pytest.raises(images.ImageError, match="has more than 1,000 parts"):
        read(png[:place] + part * 1001 + png[place:])


@pytest.mark.parametrize("read", [images.decode, images.require_usable])
@pytest.mark.parametrize("with_end", [True, False])
def test_filling_between_the_scans_of_a_jpeg_is_told_before_it_is_decoded(
    with_end, read, monkeypatch
):
    """50 MB of it kept libjpeg busy for 19 seconds; behind the end it is nobody's business."""
    data = jpeg()
    assert images.decode(data + b"\xff" * 10**5).size == (64, 64)
    never_decoded(monkeypatch)
    with pytest.raises(images.ImageError, match="of filling"):
        read(data[:-2] + b"\xff" * 10**5 + (data[-2:] if with_end else b""))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_exif_that_is_no_cameras_is_told(kind):
    """A JPEG's fits 64 KiB; a count of 60 million in another's made 60 million numbers."""
    head = (
        b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, images.ORIENTATION, 3, 10**6, 30) + bytes(8)
    )
    data = small(kind, exif=head + b"\0\1" * 10**6)
    with pytest.raises(images.ImageError, match=r"has 2,000,0\d\d bytes of EXIF"):
        images.decode(data)


def test_a_compressed_bmp_is_short(monkeypatch):
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(head)) + head + b"\x10\7\0\0" * 16
    assert images.decode(data).size == (16, 16)
    monkeypatch.setattr(image_parts, "LARGEST_SLOW", len(data) - 1)
    assert images.decode(small("BMP") + bytes(len(data))).size == (16, 16)
    never_decoded(monkeypatch)
    with pytest.raises(images.ImageError, match="is a compressed BMP of"):
        images.decode(data)


def test_images_as_people_have_them_have_few_parts():
    for kind in ("PNG", "GIF", "TIFF", "BMP", "WEBP"):
        data = small(kind)
        assert images.decode(data).size == images.size(data) == (16, 16)
        images.require_usable(data)
    private = tiff(
        (40_000, 3, image_parts.NUMBERS + 1, 300), data=bytes(2 * image_parts.NUMBERS + 2)
    )
    for data in (tiff(), tiff(is_big=True), private):
        assert images.decode(data).size == images.size(data) == (16, 16)


def test_jpegs_as_people_have_them_are_no_bombs():
    """Progressive, with restarts, filling, profiles, and with another image, or a film, behind them."""
    profile = b"\xff\xe2\xff\xff" + b"ICC_PROFILE\0".ljust(65_533, b"\xda")
    for data in (
        jpeg(),
        jpeg(progressive=True),
        jpeg(quality=100, subsampling=0, progressive=True),
    ):
        small = data[:2] + b"\xff" * 100 + profile * 20 + data[2:]
        for whole in (data, small, data + data * 200, data + b"\xff\xda" * 10**6):
            assert images.decode(whole).size == images.size(whole) == (64, 64)
            images.require_usable(whole)


def test_a_drawing_of_one_colour_is_no_bomb():
    assert images.decode(bomb_png(2_000)).size == (2_000, 2_000)


# Tarballs -----------------------------------------------------------------------------------------


def tar_of(path: Path, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    """A tarball whose only member declares so many bytes and has none."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    with path.open("wb") as stream:
        stream.write(member.tobuf(tarfile.GNU_FORMAT))
        stream.truncate(2**30)  # a hole
    return path


def rows_of(path: Path):
    import pandas as pd

    todo = pd.DataFrame({"name": ["x/1.jpg"]})
    return list(tarball.members(path, todo, lambda row: None))


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (tarfile.REGTYPE, rows_of),
        (tarfile.REGTYPE, lambda path: tarball.read_single(path, "1.jpg")),
        (tarfile.XHDTYPE, rows_of),
        (tarfile.GNUTYPE_LONGNAME, rows_of),
    ],
    ids=["an image", "annotations", "a header", "a name"],
)
def test_a_member_that_declares_too_much_is_named_with_its_tarball(kind, read, tmp_path):
    path = tar_of(tmp_path / "t.tar", "train_val2018/x/1.jpg", 2**35, kind)
    with pytest.raises(DataError, match=r"t\.tar.*1\.jpg' declares 34,359,738,368 bytes"):
        read(path)


def test_a_sparse_member_is_as_large_as_it_says(tmp_path):
    """GNU's sparse files: a map of a kilobyte for a terabyte of zeros. No photograph is one."""
    (tmp_path / "t.tar").write_bytes(sparse_header() + bytes(20 * 512))
    with pytest.raises(DataError, match=r"1\.jpg' is sparse"):
        rows_of(tmp_path / "t.tar")


def sparse_header(has_more: bool = False) -> bytes:
    member = tarfile.TarInfo("train_val2018/x/1.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[386:398] = block[398:410] = b"00000000000\0"  # one piece, of nothing
    block[482] = has_more
    block[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, content: bytes = b"") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", len(records), kind, records)


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = next(n for n in range(len(text), 10**7) if n == len(str(n)) + len(text))
    return str(length).encode() + text


# Before the one image that is wanted; None for what is to be read in spite of it.
BEFORE = {
    "nothing": (b"", None),
    "a long name": (header("L", 4, tarfile.GNUTYPE_LONGNAME, b"abc\0") + header("abc", 0), None),
    "a pax header": (pax(record("path", "q" * 300) + record("mtime", "inf")) + header("q", 0), None),
    "a pax header for all": (pax(record("comment", "made"), tarfile.XGLTYPE), None),
    "links, devices and folders": (
        b"".join(header(f"../../{kind!r}", 0, kind) for kind in b"1 2 3 4 5 6".split()), None
    ),
    "an unlisted member of 2^60 bytes": (header("x/zzz", 2**60), "declares 1,152,921,504,606,846,976"),
    "one of less than none": (
        pax(record("size", "-512")) + header("x/zzz", 0), "declares -512 bytes"
    ),
    "one whose pax header says 2^62": (
        pax(record("size", str(2**62))) + header("q", 0), "declares 4,611,686,018,427,387,904"
    ),
    "one whose size has 4,000 digits": (
        pax(record("size", "9" * 4000)) + header("q", 0), "more than 64 digits"
    ),
    "3,000 pax headers": (pax(record("path", "abc")) * 3000, "more than 16 headers for one"),
    "3,000 long names": (
        header("L", 4, tarfile.GNUTYPE_LONGNAME, b"abc\0") * 3000, "more than 16 headers for one"
    ),
    "20 pax headers for all": (
        (pax(record("comment", "made"), tarfile.XGLTYPE) + header("q", 0)) * 20,
        "more than 16 headers for all",
    ),
    "60,000 digits": (pax(b"1" * 60_000), "no row of records"),
    "60,000 digits in a value": (pax(record("comment", "1" * 60_000)), "more than 64 digits"),
    "half a megabyte of a pax header": (pax(b"1" * 2**19), "declares 524,288 bytes"),
    "a record longer than its header": (pax(b"99 path=abc\n"), "no row of records"),
    "a record of no length": (pax(b"0 path=abc\n"), "no row of records"),
    "a sparse map without its end": (sparse_header(has_more=True), "is sparse"),
    "a sparse map in a pax header": (
        pax(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")) + header("q", 512),
        "is sparse",
    ),
}  # fmt: skip


@pytest.mark.parametrize("packing", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("what", BEFORE)
def test_what_a_header_declares_is_looked_at_before_it_is_believed(what, packing, tmp_path):
    """(Without the limits these wait for ever, take all memory, or end in an error of tarfile's.)"""
    before, refusal = BEFORE[what]
    wanted = header("train_val2018/x/1.jpg", 5, content=b"photo")
    path = tmp_path / "t.tar"
    path.write_bytes(packing(before + wanted + bytes(1024)))
    for read in (rows_of, lambda path: tarball.read_single(path, "1.jpg")):
        if refusal is None:
            got = read(path)
            assert got == b"photo" or [content for _, content in got] == [b"photo"]
        else:
            with pytest.raises(tarball.DamagedTarball, match=refusal):
                read(path)


def test_a_header_behind_the_last_wanted_member_counts_too(tmp_path):
    path = tmp_path / "t.tar"
    wanted = header("train_val2018/x/1.jpg", 5, content=b"photo")
    for last in (header("zzz", 2**60), header("zzz", 2**20), sparse_header(has_more=True)):
        path.write_bytes(wanted + last)
        with pytest.raises(tarball.DamagedTarball):
            rows_of(path)


def test_a_tarball_does_not_unpack_without_end(tmp_path, monkeypatch):
    """Members that are small, one by one: a thousandth of what they are, packed."""
    monkeypatch.setattr(strict_tar, "ANY_UNPACKED", 2**20)
    content = header("train_val2018/x/1.jpg", 5, content=b"photo") + header("x/zero", 0) * 2**14
    (tmp_path / "t.tar").write_bytes(gzip.compress(content + bytes(1024)))
    with pytest.raises(tarball.DamagedTarball, match="unpacks to more than 100 times"):
        rows_of(tmp_path / "t.tar")


def test_zeros_without_end_after_a_tarball_are_not_read(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as stream:
        stream.addfile(tarfile.TarInfo("train_val2018/x/1.jpg"))
    os.truncate(tmp_path / "t.tar", 2**40)
    with pytest.raises(DataError, match="goes on after its end"):
        rows_of(tmp_path / "t.tar")


# Newer versions -----------------------------------------------------------------------------------


@pytest.fixture
def begun(tiny, tmp_path, begin):
    """A run of three epochs that was stopped after its first."""
    config = tiny(epochs=3)
    begin(config, runs_root=tmp_path)
    return config, tmp_path / config.run_id


def of_a_newer_version(folder: Path, **changes) -> None:
    state = states.read(folder / "checkpoint.pt")
    states.write(folder / "checkpoint.pt", {**state, "version": "99.0", **changes})


def newer_environment(folder: Path) -> None:
    path = folder / "environment.json"
    told = json.loads(path.read_text())
    told["versions"]["hml-core"] = "99.0"
    path.write_text(json.dumps(told))


def newer_archive(folder: Path) -> None:
    newer_environment(folder)
    (folder / "checkpoint.pt").write_bytes(b"what archives will be")


def newer_images(folder: Path) -> None:
    of_a_newer_version(folder)
    (folder / "manifest.json").write_text('{"images": "told in another way"}')


NEWER = {
    "format": lambda folder: of_a_newer_version(folder, format=FORMAT + 1),
    "config": lambda folder: of_a_newer_version(folder, config_hash="another"),
    "state": lambda folder: of_a_newer_version(folder, model={"renamed": torch.zeros(1)}),
    "fields": lambda folder: of_a_newer_version(folder, epoch="three"),
    "archive": newer_archive,
    "images": newer_images,
}


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_began_is_left_alone(what, begun):
    config, folder = begun
    NEWER[what](folder)
    before = (folder / "checkpoint.pt").read_bytes()
    for _ in range(2):
        with pytest.raises(ForeignRecordError, match=r"was begun by hml-core 99\.0"):
            fit(config, runs_root=folder.parent, progress=False)
        assert (folder / "checkpoint.pt").read_bytes() == before
    assert not (folder.parent / ".damaged").exists()


def test_what_a_newer_version_began_alike_is_gone_on_with(begun):
    config, folder = begun
    of_a_newer_version(folder)
    newer_environment(folder)
    assert len(fit(config, runs_root=folder.parent, progress=False).history) == 3


def test_folders_within_folders_are_gone_over_at_any_depth(tmp_path):
    """The standard library's own walk calls itself for each, and ends in a RecursionError."""
    deep = tmp_path / "/".join(["d"] * 200)
    deep.mkdir(parents=True)
    (tmp_path / "e" / "f").mkdir(parents=True)
    for path in (deep / "a.png", tmp_path / "e" / "b.png", tmp_path / "c.png"):
        path.touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "e" / "up").symlink_to("..")
    listed = {folder: (set(below), set(names)) for folder, below, names in os.walk(tmp_path)}
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = list(files.walk(tmp_path))
        some = prediction.read_paths(tmp_path)
    finally:
        sys.setrecursionlimit(before)
    assert {folder: (set(below), set(names)) for folder, below, names in found} == listed
    assert len(found) == len(listed)
    assert {path.name for path in some.files} == {"a.png", "b.png", "c.png"}


def test_what_a_walk_takes_out_is_not_gone_into_and_what_cannot_be_listed_is_told(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name / name).mkdir(parents=True)
    seen, told = [], []
    for folder, below, _ in files.walk(tmp_path, told.append):
        seen.append(os.path.relpath(folder, tmp_path))
        below[:] = sorted(name for name in below if name != "b")
        if folder.endswith("c"):
            shutil.rmtree(tmp_path / "c" / "c", ignore_errors=True)
    assert seen == [".", "a", "a/a", "c"]
    assert [error.filename for error in told] == [str(tmp_path / "c" / "c")]
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    linked = [os.path.relpath(one[0], tmp_path) for one in files.walk(tmp_path / "a", None, True)]
    assert "a/b/b" in linked
