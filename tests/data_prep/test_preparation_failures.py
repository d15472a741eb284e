"""Preparation meets odd images and folders, full disks and sudden ends: what is there stays whole."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep import output as outputs
from data_prep import parallel, worker
from data_prep.inaturalist import archive
from data_prep.inaturalist.images import Options, process
from data_prep.inaturalist.prepare import NEEDED, prepare
from data_prep.isic import archive as isic_archive
from data_prep.isic import images as isic_images
from data_prep.isic import prepare as isic_prepare
from data_prep.isic import synthetic as isic_synthetic
from data_prep.parallel import Journal
from hml_core.errors import ConfigError, DataError, RunBusyError, RunError
from hml_core.system import locks
from hml_lab.cli import main
from tests.test_processes import is_gone, wait_for

SMALL = Options(size=16)


def prepare_small(root, output):
    return prepare(archive.read(root), output, SMALL, workers=1, progress=False)


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


# Originals ----------------------------------------------------------------------------------------


def linked_images(root):
    (root / "prepared").mkdir()
    (root / "prepared" / "images").symlink_to("../train_val2018")
    return root / "prepared"


def linked_supercategory(root):
    (root / "prepared" / "images").mkdir(parents=True)
    (root / "prepared" / "images" / "Aves").symlink_to("../../train_val2018/Aves")
    return root / "prepared"


def linked_root(root):
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


@pytest.mark.parametrize(
    "choose",
    [
        linked_images,
        linked_supercategory,
        linked_root,
        lambda root: root,
        lambda root: root / "train_val2018",
        lambda root: root / "train_val2018" / "x",
        lambda root: root / "2018",
    ],
)
def test_an_output_among_the_originals_is_refused_before_anything_is_written(choose, root):
    output = choose(root)
    before = contents(root)
    with pytest.raises(DataError, match=r"own folder|among the original images"):
        prepare_small(root, output)
    assert contents(root) == before


def test_isic_refuses_an_output_among_the_originals_too(tmp_path):
    root = isic_synthetic.make("isic2018", tmp_path / "archive", 120, side=16)
    images = isic_archive.ARCHIVES["isic2018"].images
    (root / "prepared").mkdir()
    (root / "prepared" / "images").symlink_to(root / images)
    before = contents(root)
    for output in (root, root / images, root / images / "x", root / "prepared"):
        with pytest.raises(DataError, match=r"own folder|among the original images"):
            isic_prepare.prepare(isic_archive.read("isic2018", root), output, progress=False)
    assert contents(root) == before


@pytest.mark.parametrize("name", ["isic2018", "inat2018"])
def test_an_empty_output_is_not_the_current_folder(name, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["prepare", name, "--data-root", str(made), "--output", ""]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 2
    assert "expected a folder, got ''" in result.output
    with pytest.raises(ConfigError, match="`output`"):
        prepare_small(made, "")
    assert not list(tmp_path.iterdir())


# What cannot be written ---------------------------------------------------------------------------


def test_an_output_that_cannot_be_a_folder_is_called_so(root):
    with pytest.raises(
        RunError, match=r"output folder .*train2018.json.*File exists\): .*`output`"
    ):
        prepare_small(root, root / "train2018.json")


def test_an_image_that_cannot_be_written_ends_the_call_with_the_reason(root, tmp_path):
    supercategory = archive.read(root).categories["supercategory"].iloc[0]
    prepare_small(root, tmp_path / "out")
    blocked = tmp_path / "out" / "images" / supercategory
    shutil.rmtree(blocked)
    blocked.write_text("")
    with pytest.raises(RunError, match=r"Cannot write '.*\.jpg': .*What was done is kept"):
        prepare_small(root, tmp_path / "out")


def test_an_image_that_does_not_fit_leaves_no_part_of_it(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    (tmp_path / "out" / "b.jpg").mkdir(parents=True)  # it cannot be replaced by a file
    with pytest.raises(RunError, match="Is a directory"):
        process(tmp_path / "a.jpg", tmp_path / "out" / "b.jpg", SMALL)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.jpg"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_ends_the_journal_with_the_reason(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", {}, NEEDED)
    journal.path.unlink()
    journal.path.symlink_to("/dev/full")
    row = SimpleNamespace(id="a", file="a.jpg", path=tmp_path / "a.jpg")
    with pytest.raises(RunError, match=r"journal.jsonl': No space left on device\. What was done"):
        journal.add(row, {"error": "x"})


# Odd images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options", "reason"),
    [
        ((70_000, 2000), Options(size=2000), r"has a longer side of 70000 pixels: .* at most 65500"),
        ((70_000, 2000), Options(size=0), r"has a longer side of 70000"),
        ((5100, 100), Options(size=64), r"is 5100 × 100 pixels: .* at most 50 to 1"),
        ((100, 5100), Options(size=0), r"is 100 × 5100 pixels"),
    ],
)  # fmt: skip
def test_an_image_that_training_would_blow_up_is_rejected(size, options, reason, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.new("L", size).save(tmp_path / "a.jpg", "png", compress_level=1)
        result = process(tmp_path / "a.jpg", tmp_path / "b.jpg", options)
    assert set(result) == {"error"}
    assert re.search(reason, result["error"])
    assert not (tmp_path / "b.jpg").exists()


def test_a_long_image_is_kept_up_to_the_limit(tmp_path):
    Image.new("RGB", (5000, 100)).save(tmp_path / "a.jpg")
    assert "error" not in process(tmp_path / "a.jpg", tmp_path / "b.jpg", SMALL)


@pytest.mark.parametrize("kind", ["inat", "isic"])
def test_an_image_that_does_not_encode_is_rejected(kind, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "a.jpg")

    def save(*_, **__):
        raise OSError("broken data stream when writing image file")

    monkeypatch.setattr(Image.Image, "save", save)
    work, options = (
        (process, SMALL) if kind == "inat" else (isic_images.process, isic_images.Options(size=24))
    )
    result = work(tmp_path / "a.jpg", tmp_path / "b.jpg", options)
    assert result == {"error": "does not encode: broken data stream when writing image file"}


def test_isic_without_a_crop_rejects_what_would_be_blown_up(tmp_path):
    Image.new("RGB", (5100, 2)).save(tmp_path / "a.jpg")
    options = isic_images.Options(crop=False)
    result = isic_images.process(tmp_path / "a.jpg", tmp_path / "b.jpg", options)
    assert result == {"error": "is 5100 × 2 pixels: expected sides of at most 50 to 1"}


def test_a_reason_holds_no_address_in_memory(tmp_path):
    result = process(b"<html>404</html>", tmp_path / "b.jpg", SMALL)
    assert result == {
        "error": "does not decode: it is no JPEG, PNG, BMP, WEBP, TIFF, GIF that can be identified"
    }


def test_workers_do_not_write_pillows_warnings_across_the_progress(monkeypatch):
    monkeypatch.setattr(worker.threading.Thread, "start", lambda self: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        worker.begin()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        Image.new("P", (4, 4)).save(file := io.BytesIO(), "png", transparency=b"\0\1")
        Image.open(file).convert("RGB")
    assert not caught


# Odd annotations ----------------------------------------------------------------------------------


def rewritten(content):
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: b"\xff" * 10**6, "is not an annotation file .*UnicodeDecodeError"),
        (lambda c: b"[" * 200_000, "is not an annotation file .*RecursionError"),
        (lambda c: b'{"images":' + b"[" * 200_000, "RecursionError"),
        (lambda c: c["images"][0].update(id="9" * 10**6), "`id` is '999"),
        (lambda c: c["images"][0].update(file_name="x" * 10**6), "is no path in"),
        (lambda c: c["images"][0].update(file_name="2018/a\0b.jpg"), r"`file_name` is '2018/a\\x00b"),
        (lambda c: c["images"][0].update(file_name="2018/A\ud800.jpg"), r"`file_name` is .*ud800"),
        (lambda c: c["categories"][1].update(name="K\ud800"), r"a category .*`name` is .*ud800"),
        (lambda c: c["categories"].append({"id": 24, "name": "new", "supercategory": "y"}),
         "lists no image of the category 'new'"),
    ],
)  # fmt: skip
def test_odd_annotations_are_refused_in_a_few_words(change, message, root):
    for name in archive.ANNOTATIONS.values():
        content = json.loads((root / name).read_text())
        changed = change(content)
        (root / name).write_bytes(changed if isinstance(changed, bytes) else rewritten(content))
    with pytest.raises(DataError, match=message) as caught:
        archive.read(root)
    assert len(str(caught.value)) < 600
    str(caught.value).encode()  # it can be printed


def test_a_byte_order_mark_is_no_damage(root):
    before = archive.read(root).records
    path = root / "train2018.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert archive.read(root).records.equals(before)


# The journal --------------------------------------------------------------------------------------


def without(key):
    return lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != key})


@pytest.mark.parametrize(
    "change",
    [
        *map(without, ["id", "source", "output", "output_sha256", "bytes"]),
        lambda line: json.dumps({**json.loads(line), "id": [1]}),
        lambda line: json.dumps({**json.loads(line), "bytes": "7"}),
        lambda line: json.dumps({**json.loads(line), "error": 7}),
        lambda line: json.dumps([line]),
        lambda line: "[" * 200_000,
        lambda line: line[:20],
    ],
)
def test_an_odd_line_of_the_journal_is_not_believed(change, tmp_path):
    entry = {"id": "a", "source": None, "output": None, "output_sha256": "0", "bytes": 1}
    good = json.dumps({**entry, "id": "b"})
    options = {"archive": "x"}
    path = tmp_path / "journal.jsonl"
    path.write_text("\n".join([json.dumps(options), change(json.dumps(entry)), good]) + "\n")
    assert set(Journal(path, options, NEEDED).entries) == {"b"}


@pytest.mark.parametrize(
    "text", ["", "\n", '{"archi', "[]", '{"id": "a"}\n', "Mon: sowed 3 plates\n", '{"mode": 1}\n']
)
def test_a_journal_that_does_not_say_our_options_is_somebody_elses(text, tmp_path):
    """It is not written over, and neither is what lies beside it."""
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"holds 'journal\.jsonl' that was not prepared here"):
        Journal(path, {"archive": "x"}, NEEDED)
    assert path.read_text() == text


def test_what_a_killed_preparation_wrote_half_goes_with_the_next_one(tmp_path):
    records = pd.DataFrame({"path": [tmp_path / "a.png"], "file": ["images/a.png"]})
    folder = tmp_path / "out"
    folder.mkdir()
    for name in (
        ".prepared.json.abcd1234.new",
        ".manifest.csv.abcd1234.new",
        ".notes.csv.original",
    ):
        (folder / name).touch()
    with outputs.made(folder, records, tmp_path / "archive", []):
        assert [path.name for path in folder.glob(".*.*")] == [".notes.csv.original"]


@pytest.mark.parametrize("name", ["images", "prepared.json", "manifest.csv", "rejected.csv"])
def test_what_was_not_prepared_here_is_not_written_over(name, tmp_path):
    """Of every preparation: without a journal of ours, nothing that has our names is ours."""
    records = pd.DataFrame({"path": [tmp_path / "a.png"], "file": ["images/a.png"]})
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).symlink_to("nowhere")
    with (
        pytest.raises(DataError, match=rf"holds '{name}' that was not prepared here"),
        outputs.made(folder, records, tmp_path / "archive", []),
    ):
        pass
    (folder / "journal.jsonl").touch()
    if name == "images":  # what lies behind a link may be others' images
        with (
            pytest.raises(DataError, match=r"In the output '.*out' 'images' is a link"),
            outputs.made(folder, records, tmp_path / "archive", []),
        ):
            pass
        return
    with outputs.made(folder, records, tmp_path / "archive", []) as made:
        assert made == folder


def test_two_processes_do_not_prepare_into_one_folder(root, tmp_path, monkeypatch):
    """Each would vouch for the split that the other one writes last."""
    output = tmp_path / "out"
    found = prepare_small(root, output)
    before = contents(output)
    with locks.held(output, "prepare", "prepares"):
        with pytest.raises(RunBusyError, match=r"^Process \d+ on .* prepares images in '.*out'\.$"):
            prepare_small(root, output)
        assert contents(output) == {**before, **contents(output / ".locks")}
    assert prepare_small(root, output).manifest.equals(found.manifest)

    def no_locks(*arguments, **options):
        raise RunError("Cannot lock a file.")

    monkeypatch.setattr(locks, "held", no_locks)
    with pytest.warns(UserWarning, match="Nobody else may prepare there meanwhile"):
        assert prepare_small(root, output).manifest.equals(found.manifest)


def test_a_journal_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(RunError, match=r"Cannot read .*journal.jsonl': it is no regular file"):
        Journal(tmp_path / "journal.jsonl", {}, NEEDED)


# Sudden ends --------------------------------------------------------------------------------------


def test_a_worker_that_never_answers_does_not_keep_who_is_interrupted(tmp_path, monkeypatch):
    """It reads from a dead network, say, and hears no signal but the last one."""
    (tmp_path / "stuck_for_tests.py").write_text(
        "import pathlib, signal, time\n"
        "def stuck(source, target, options):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    pathlib.Path(options).touch()\n"
        "    time.sleep(3600)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(parallel, "PATIENCE_S", 0.2)
    begun = tmp_path / "begun"

    def interrupt(*_, **__):
        wait_for(begun.exists, "worker")
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "wait", interrupt)
    stuck = importlib.import_module("stuck_for_tests").stuck
    work = iter([(SimpleNamespace(id="a", file="a"), b"")])
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        list(parallel.in_parallel(stuck, work, tmp_path, str(begun), 1))
    # (The pool's own thread may have taken note of its end, and not have said so yet.)
    after = {one for one in multiprocessing.active_children() if not is_gone(one.pid)}
    assert after <= before
    sys.modules.pop("stuck_for_tests", None)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_command(sent, root):
    large = io.BytesIO()  # so slow that the command cannot end before it is killed
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large, "png", compress_level=0)
    first, *others = archive.read(root).records["path"].iloc[20:]
    first.write_bytes(large.getvalue())
    for path in others:
        path.unlink()
        os.link(first, path)
    command = [sys.executable, "-m", "hml_core", "prepare", "inat2018", "--data-root", str(root)]
    started = subprocess.Popen(
        [*command, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        journal, limit = root / "prepared" / "journal.jsonl", time.monotonic() + 600
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
            assert time.monotonic() < limit
            assert started.poll() is None
            time.sleep(0.02)
        started.send_signal(sent)
        started.communicate(timeout=600)  # the output ends once the last worker is gone
        # What can be caught is told as shells tell it.
        assert started.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 128 + 15}[sent]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
