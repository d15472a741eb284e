"""The one opener of images: what it takes, what it refuses and in which words; no other program runs."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from hml_core.datasets import imagefolder
from hml_core.errors import DataError
from hml_core.models import preprocessing
from hml_core.system import images
from hml_core.trainer import feeds

RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 200
RED[0, 0] = (0, 0, 255)


def encoded(pixels=RED, kind="PNG", mode=None, **options) -> bytes:
    image = Image.fromarray(pixels)
    image = image if mode is None else image.convert(mode)
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = struct.pack(">I", 1000) + b"IDAT"
    return (
        images.PNG + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + pixels
    )


def tiff(pixels: np.ndarray, **tags) -> bytes:
    """An uncompressed TIFF as Pillow writes none: whatever its tags say."""
    height, width, channels = pixels.shape
    data, bits = pixels.tobytes(), 8 * pixels.dtype.itemsize
    values = {
        "width": (256, [width]), "height": (257, [height]), "bits": (258, [bits] * channels),
        "compression": (259, [1]), "colours": (262, [2 if channels == 3 else 1]),
        "channels": (277, [channels]), "rows": (278, [height]),
    }  # fmt: skip
    values |= tags
    start = 8 + 2 + 12 * (len(values) + 2) + 4
    entries, beyond = [], b""
    for tag, numbers in values.values():
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(packed) > 4:
            beyond += packed
            packed = struct.pack("<I", start + len(beyond) - len(packed))
        entries.append(struct.pack("<HHI4s", tag, 3, len(numbers), packed))
    for tag, number in ((273, start + len(beyond)), (279, len(data))):
        entries.append(struct.pack("<HHII", tag, 4, 1, number))
    folder = struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda e: e[1::-1]))
    return b"II*\0" + struct.pack("<I", 8) + folder + bytes(4) + beyond + data


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG", "TIFF", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "CMYK"])
def test_every_format_and_mode_of_the_list_becomes_rgb(kind, mode):
    try:
        data = encoded(kind=kind, mode=mode)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{kind} holds no {mode}")
    found = images.decode(data)
    assert (found.mode, found.size) == ("RGB", (6, 4))


@pytest.mark.parametrize(
    "way", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "group4", "jpeg"]
)
def test_tiff_is_read_however_it_was_packed(way, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail(f"started {a}"))
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255
    found = images.decode(
        encoded(pixels, "TIFF", "1" if way == "group4" else None, compression=way)
    )
    assert np.abs(np.asarray(found).astype(int) - pixels).max() <= (8 if way == "jpeg" else 0)


def test_grey_levels_of_a_scanner_that_calls_white_zero_stand_the_right_way_round():
    levels = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    found = np.asarray(images.decode(tiff(levels, colours=(262, [0]))))
    assert (found == 255 - levels).all()
    assert (np.asarray(images.decode(tiff(levels))) == levels).all()


def test_transparent_parts_show_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    found = np.asarray(images.decode(encoded(pixels)))
    assert (found[:2] == 0).all()
    assert (found[2:] == 255).all()


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "is no JPEG, PNG, BMP, WEBP"),
        (b"DDS " + b"\0" * 200, "is no JPEG"),
        (b"", "is empty"),
        (encoded(kind="ICO"), "is no JPEG"),
        (b"\0\0\0 ftypheic" + bytes(40), "it is HEIC or AVIF, whatever it is called; save them as"),
        (encoded(kind="TIFF", save_all=True, append_images=[Image.new("RGB", (6, 4))]), "several"),
        (encoded(kind="GIF", save_all=True, append_images=[Image.new("RGB", (6, 4))]), "several"),
        (encoded(np.full((4, 4), 3000, np.uint16), "TIFF"), "more than 8 bits.*16-bit TIFF"),
        (tiff(np.full((4, 4, 3), 3000, np.uint16)), r"more than 8 bits.*mode RGB, 16-bit TIFF"),
        (encoded(np.full((4, 4), 0.5, np.float32), "TIFF"), "more than 8 bits.*32-bit TIFF"),
        (tiff(RED[..., :1], signed=(339, [2])), "levels that are no whole numbers from 0 on"),
        (tiff(np.zeros((4, 6, 5), np.uint8)), "a TIFF that is damaged, or of channels that make no"),
        (tiff(RED, wide=(322, [60_000]), high=(323, [60_000])), "is 6 × 4 pixels"),
        (tiff(RED, colours=(262, [8])), r"colours of L\*a\*b\*"),
        (encoded(kind="TIFF")[:60], "does not decode"),
        (encoded(np.full((4, 4), 3000, np.uint16)), "more than 8 bits a channel"),
        (encoded(kind="WEBP", save_all=True, append_images=[Image.new("RGB", (6, 4))]), "2 images"),
        (encoded(np.zeros((1, 1, 3), np.uint8)), "is 1 × 1 pixels: expected sides of at least 2"),
        (encoded(np.zeros((1, 9, 3), np.uint8)), "is 9 × 1 pixels"),
        (header_of(16_000, 10_000), "is 16000 × 10000 pixels: expected at most 150 million"),
        (header_of(10**6, 10**6), "could be decompression bomb"),
        (encoded()[:50], "does not decode"),
        (encoded(kind="JPEG")[:300], "does not decode"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(data, said, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail(f"started {a}"))
    with pytest.raises(images.ImageError, match=said):
        images.decode(data)


def test_an_unforeseen_error_of_a_decoder_is_the_images(monkeypatch):
    def fail(*_, **__):
        raise KeyError("tile")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(images.ImageError, match="does not decode: 'tile'"):
        images.decode(encoded())


def test_no_png_whose_bytes_changed_shows_its_pixels():
    """Whichever bit it is: Pillow by itself shows other pixels, without a word."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    data = encoded(pixels)
    shown = 0
    for place in range(len(images.PNG), len(data)):
        other = bytearray(data)
        other[place] ^= 16
        try:
            found = np.asarray(images.decode(bytes(other)))
        except images.ImageError:
            continue
        shown += 1
        assert (found == pixels).all()
    assert shown == 0, "every byte of this file stands in a critical part"
    for end in range(len(data)):
        with pytest.raises(images.ImageError, match="does not decode"):
            images.decode(data[:end])


def test_what_is_transparent_everywhere_is_no_picture():
    pixels = np.full((4, 4, 4), 90, np.uint8)
    pixels[..., 3] = 0
    for kind in ("PNG", "WEBP"):
        with pytest.raises(images.ImageError, match="is transparent everywhere"):
            images.decode(encoded(pixels, kind))
    pixels[0, 0, 3] = 1
    assert images.decode(encoded(pixels)).size == (4, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_by_both_readers(orientation, monkeypatch):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    data = encoded(pixels, "JPEG", exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (np.asarray(images.decode(data)) == expected).all()
    for _ in range(2):
        read = feeds.decode(data).numpy().transpose(1, 2, 0)
        assert read.shape == expected.shape
        assert np.abs(read.astype(int) - expected).max() <= 2
        monkeypatch.setattr(preprocessing, "_jpeg_reader", lambda: None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_applied_once(orientation):
    pixels = np.arange(16 * 32 * 3, dtype=np.uint8).reshape(16, 32, 3)
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    turn = images.UPRIGHT.get(orientation)
    upright = Image.fromarray(pixels)
    upright = upright if turn is None else upright.transpose(turn)
    data = encoded(pixels, "TIFF", exif=exif)
    assert images.size(data) == upright.size
    assert (np.asarray(images.decode(data)) == np.asarray(upright)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_no_image():
    data = encoded(kind="JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert images.decode(data).size == (6, 4)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)])
def test_what_is_no_file_is_refused_and_not_waited_for(make, tmp_path):
    make(tmp_path / "a.jpg")
    with pytest.raises(
        images.ImageError, match=r"cannot be read: (it is no regular|Is a directory)"
    ):
        images.load(tmp_path / "a.jpg")


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(images.LARGEST_FILE + 1)
    with pytest.raises(images.ImageError, match="expected at most"):
        images.load(tmp_path / "a.png")


# Folders of images ----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            (folder / "0.png").write_bytes(encoded())
    return tmp_path / "tree"


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n", encoded(np.full((4, 6), 3000, np.uint16))]
)
def test_an_odd_image_of_a_folder_is_named(data, tree):
    (tree / "train" / "bee" / "1.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bee/1\.png (does not decode|has more than 8 bits)"):
        imagefolder.pack(tree, progress=False)


def test_a_pipe_in_a_folder_is_named(tree):
    os.mkfifo(tree / "train" / "bee" / "1.png")
    with pytest.raises(DataError, match=r"bee/1\.png cannot be read: it is no regular file"):
        imagefolder.pack(tree, progress=False)


@pytest.mark.parametrize("place", ["1.png", "1.jp2", "train/bee/1.png", "train/1.png", "val"])
def test_a_link_in_circles_is_no_folder(place, tree):
    (tree / place).symlink_to((tree / place).name)
    if place.startswith("train/bee"):
        with pytest.raises(DataError, match=r"bee/1\.png cannot be read: Too many levels"):
            imagefolder.pack(tree, progress=False)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imagefolder.pack(tree, progress=False)


def test_what_a_folder_holds_and_is_not_read_is_counted(tree):
    (tree / "train" / "ant" / "1.jp2").write_bytes(b"x")
    (tree / "train" / "ant" / "deeper").mkdir()
    (tree / "train" / "ant" / "deeper" / "2.png").write_bytes(encoded())
    (tree / "val").mkdir()
    (tree / "val" / "3.png").write_bytes(encoded())
    (tree / "__MACOSX").mkdir()
    (tree / "__MACOSX" / "._0.png").write_bytes(b"x")
    with pytest.warns(
        UserWarning,
        match=r"Not read in .*1 \.jp2 \(train/ant/1\.jp2; save them as PNG or JPEG\), 1 images",
    ):
        folder = imagefolder.pack(tree, progress=False)
    assert imagefolder.index_of(folder)["left_out"] == [
        "1 .jp2 (train/ant/1.jp2; save them as PNG or JPEG)",
        "1 images beside train and test (val/3.png)",
        "1 images in no or deeper folders (train/ant/deeper/2.png)",
    ]


def test_a_folder_too_deep_is_named(tree):
    with pytest.raises(DataError, match=r"There is one in '.*tree': give that"):
        imagefolder.pack(tree.parent)


def test_a_pack_whose_class_names_were_swapped_is_made_anew(tree):
    index = imagefolder.pack(tree, progress=False) / "index.json"
    before = index.read_text()
    index.write_text(before.replace("ant", "gnu"))
    with pytest.raises(DataError, match="is damaged"):
        imagefolder.index_of(index.parent)
    imagefolder.pack(tree, progress=False)
    assert index.read_text() == before
