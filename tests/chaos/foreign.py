"""Scenarios of foreign things: what stands where a file of ours is expected, and is none."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from hml_core.datasets import imagefolder
from hml_core.errors import DataError, RunError
from hml_core.runs import Run
from tests.chaos import tools
from tests.chaos.scenarios import Outcome, scenario

PATIENCE_S = 120  # seconds of what should wait for nothing


def hole(path: Path, size: int = 2**40) -> None:
    """A file that says it has so many bytes, a terabyte, and takes no room."""
    with path.open("wb") as stream:
        stream.truncate(size)


def folder_of(path: Path) -> None:
    """A folder with something in it."""
    path.mkdir()
    (path / "precious.txt").write_text("somebody's")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bomb(path: Path) -> None:
    """An archive that unpacks to a thousand times its size, whatever its name."""
    with path.open("wb") as stream:
        np.savez_compressed(stream, logits=np.zeros(2**22))


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """TimeoutError in what waits for ever."""

    def stop(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


KINDS: tuple[Callable[[Path], None], ...] = (os.mkfifo, hole, folder_of, endless, bomb)


@scenario("a file of a record replaced by a pipe, hole, folder, bomb", cases=30, few=3)
def replaced_file(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Noticed without waiting, set aside as it is, trained again; the neighbour is untouched."""
    config, neighbour = tools.config(0, epochs=2), tools.config(1, epochs=2)
    for made in (config, neighbour):
        tools.train(folder / "good", made)
    good = Run(folder / "good" / config.run_id)
    untouched = tools.contents(folder / "good" / neighbour.run_id)
    pairs = itertools.product(KINDS, tools.damageable(good))
    for kind, name in itertools.islice(pairs, cases) if cases > 5 else list(pairs)[::11][:cases]:
        root = folder / "replaced"
        shutil.copytree(folder / "good", root)
        (root / config.run_id / name).unlink()
        kind(root / config.run_id / name)
        survived, note = False, f"{name}: {kind.__name__}"
        try:
            with watched():
                survived = tools.same(tools.train(root, config), good)
        except (TimeoutError, RunError) as error:
            note += f": {error}"
        shelf = root / ".damaged" / f"{config.run_id}.0" / name
        lost = int(tools.contents(root / neighbour.run_id) != untouched)
        lost += int(not os.path.lexists(shelf))
        yield Outcome(survived, lost, note=note)
        shutil.rmtree(root)


def encoded(random: Random) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.randbytes(192)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb_of_pixels(path: Path) -> None:
    """A PNG of a few kilobytes that says it has a hundred million pixels."""
    side = 10_000
    rows = zlib.compress(bytes((1 + side // 8) * side), 9)

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = 2 * side.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    content = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@scenario("an image replaced by a pipe, hole, bomb of pixels", cases=20, few=4)
def replaced_image(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Refused by name; the other images are as they were."""
    tree = folder / "tree"
    for place in itertools.product(("train", "test"), ("ant", "bee"), range(3)):
        split, name, number = place
        (tree / split / name).mkdir(parents=True, exist_ok=True)
        (tree / split / name / f"{number}.png").write_bytes(encoded(random))
    kinds = (os.mkfifo, hole, endless, bomb_of_pixels)
    images = sorted(tree.rglob("*.png"))
    for _, kind in zip(range(cases), itertools.cycle(kinds)):
        image = random.choice(images)
        good = image.read_bytes()
        before = {path: path.read_bytes() for path in images if path != image}
        image.unlink()
        kind(image)
        try:
            with watched():
                imagefolder.pack(tree, progress=False)
            said = ""
        except (DataError, TimeoutError) as error:
            said = str(error)
        lost = sum(path.read_bytes() != content for path, content in before.items())
        named = f"{image.parent.name}/{image.name}" in said
        yield Outcome(named, lost, note=f"{kind.__name__}: {said}")
        image.unlink()
        image.write_bytes(good)
