"""CIFAR through torchvision's real download code, against a stand-in for its file server."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import http.client
import http.server
import os
import pickle
import shutil
import socket
import tarfile
import threading
import types
import urllib.error
import urllib.request

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep import cifar as archive
from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import cifar
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.system import downloads
from hml_lab.cli import main
from tests.chaos.foreign import hole
from tests.test_processes import LIMIT_S

PER_BATCH = 1000  # images in each of the five stand-in training batches


@pytest.fixture(scope="module")
def tiny_archive(tmp_path_factory):
    """A tiny CIFAR-10 archive in the official layout; its sums, by their names in torchvision's class."""
    kind = archive.ARCHIVES["cifar10"]
    root = tmp_path_factory.mktemp("cifar")
    folder = root / kind.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(number: int) -> dict:
        labels = [int(x) for x in random.permutation(np.arange(number) % 10)]
        return {"data": random.integers(0, 256, (number, 3072), dtype=np.uint8), "labels": labels}

    train = [write(f"data_batch_{i}", batch(PER_BATCH)) for i in range(1, 6)]
    test = [write("test_batch", batch(100))]
    names = {"label_names": ["airplane", *map(str, range(1, 10))]}
    meta_name, meta_sum = write("batches.meta", names)
    packed = root / kind.filename
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(folder, kind.base_folder)
    sums = {
        "train_list": train,
        "test_list": test,
        "meta": {**kind.meta, "filename": meta_name, "md5": meta_sum},
    }
    return root, {**sums, "tgz_md5": hashlib.md5(packed.read_bytes()).hexdigest()}


@pytest.fixture
def server(tiny_archive, tmp_path, monkeypatch):
    """A loopback server with a copy of that archive; its sums are patched in."""
    cifar.read.cache_clear()
    kind = archive.ARCHIVES["cifar10"]
    root, sums = tiny_archive
    packed = shutil.copytree(root, tmp_path / "server") / kind.filename
    for name, value in sums.items():
        monkeypatch.setattr(kind, name, value)
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    handler = functools.partial(quiet, directory=tmp_path / "server")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        address = f"http://127.0.0.1:{running.server_address[1]}/{kind.filename}"
        monkeypatch.setattr(kind, "url", address)
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield packed
        running.shutdown()
    cifar.read.cache_clear()


def prepare(root, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["prepare", "cifar10", "--data-root", str(root)])
    assert result.exit_code == code, result.output
    return result.output


def test_prepare_downloads_verifies_and_counts(server, tmp_path):
    output = prepare(tmp_path / "data")
    assert "5000 training and 100 test images, 10 classes" in output
    server.unlink()  # nothing is fetched twice
    assert "5000 training" in prepare(tmp_path / "data")


def test_the_standard_subset_is_drawn_in_official_order(server, tmp_path):
    """Member for member what the LDAM code would keep of these files."""
    prepare(tmp_path / "data")
    splits = datasets.load(RunConfig(dataset="cifar10", imbalance_ratio=100.0), tmp_path / "data")
    everything, _, names = cifar.read("cifar10", str(tmp_path / "data"))
    assert names[0] == "airplane"
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    expected = []
    for label, count in enumerate(splits.class_counts):
        where = np.where(everything.targets == label)[0]
        np.random.shuffle(where)  # noqa: NPY002
        expected.extend(where[:count])
    np.random.set_state(state)  # noqa: NPY002
    assert splits.train_indices.tolist() == expected
    assert (splits.train.images == everything.images[expected]).all()
    assert splits.mean == (0.4914, 0.4822, 0.4465)


def test_a_wrong_checksum_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.ARCHIVES["cifar10"], "tgz_md5", "0" * 32)
    output = prepare(tmp_path / "data", code=1)
    assert "could not be prepared" in output
    assert "by hand: http://127.0.0.1" in output


def test_a_server_that_is_not_there_is_explained(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.ARCHIVES["cifar10"], "url", "http://127.0.0.1:9/cifar.tar.gz")
    assert "could not be prepared" in prepare(tmp_path / "data", code=1)


@contextlib.contextmanager
def answering(says: bytes, monkeypatch):
    """An address at which whoever connects hears ``says`` and then nothing, though it stays open."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):  # nobody listens any more
                while True:
                    held.append(listening.accept()[0])
                    with contextlib.suppress(OSError):  # who asked for a header alone has hung up
                        held[-1].sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/cifar.tar.gz"
        monkeypatch.setattr(archive.ARCHIVES["cifar10"], "url", address)
        yield address
        listening.shutdown(socket.SHUT_RDWR)
    for one in held:
        one.close()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"", "timed out"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<html>", "timed out"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", "IncompleteRead"),
    ],
)
def test_a_server_that_falls_silent_or_is_none_is_explained(
    says, told, server, tmp_path, monkeypatch
):
    """What an open port behind a firewall, another service or a login page of a network answers."""
    # For one that says nothing more; others may be slow.
    seconds = 0.2 if told == "timed out" else LIMIT_S
    brief = functools.partial(downloads.patience, seconds)
    monkeypatch.setattr(archive.downloads, "patience", brief)
    with answering(says, monkeypatch):
        output = prepare(tmp_path / "data", code=1)
    assert "could not be prepared" in output
    assert told in output
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("status", "most"), [(200, 2**22), (203, 2**22), (302, 2**20), (404, 2**20)]
)
def test_no_more_is_read_at_once_than_may_come(status, most):
    """As urllib reads what stands beside a redirect: all of it, into memory."""

    class Endless:
        length = None

        def read(self, size=None):
            assert size is not None, "would never end"
            return bytes(size)

    Endless.status = status
    asked = urllib.request.Request("http://localhost/")
    response = downloads._Limited(2**22).http_response(asked, Endless())
    with pytest.raises(RunError, match=f"gives more than {most:,} bytes"):
        response.read()


def test_what_says_that_it_is_too_large_is_not_read():
    response = types.SimpleNamespace(status=200, length=2**22 + 1, read=None)
    asked = urllib.request.Request("http://localhost/")
    with pytest.raises(RunError, match="gives more than 4,194,304 bytes"):
        downloads._Limited(2**22).http_response(asked, response)


def test_a_limit_holds_with_encryption_too_and_for_its_block_alone(monkeypatch):
    """All real addresses are https; the program's own opener is there before and after."""
    opener = urllib.request.build_opener()
    monkeypatch.setattr(urllib.request, "_opener", opener)

    def limits() -> dict[str, list[int]]:
        by_protocol = urllib.request._opener.process_response
        return {
            protocol: [one.limit for one in by_protocol[protocol] if hasattr(one, "limit")]
            for protocol in ("http", "https")
        }

    for limit in (1000, 2000):  # and no more is left of it from time to time
        with downloads.patience(limit=limit):
            assert limits() == {"http": [limit], "https": [limit]}
    assert urllib.request._opener is opener
    assert limits() == {"http": [None], "https": [None]}
    monkeypatch.setattr(urllib.request, "_opener", None)
    with downloads.patience():
        assert urllib.request._opener is not None
    assert urllib.request._opener is None


def test_of_downloads_in_two_threads_nothing_is_left(monkeypatch):
    """Whichever ends first: urllib and socket keep their settings for the whole process."""
    monkeypatch.setattr(urllib.request, "_opener", None)
    before = socket.getdefaulttimeout()
    one, other = downloads.patience(10.0, limit=1000), downloads.patience(20.0, limit=2000)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    (limited,) = (h for h in urllib.request._opener.handlers if hasattr(h, "limit"))
    assert (socket.getdefaulttimeout(), limited.limit) == (20.0, 2000)
    other.__exit__(None, None, None)
    assert (socket.getdefaulttimeout(), urllib.request._opener) == (before, None)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 99999999999\r\n\r\n", "404: Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx", "IncompleteRead"),
    ],
    ids=["large page of an error", "cut off"],
)
def test_a_limit_hides_no_other_reason(head, told):
    with socket.create_server(("127.0.0.1", 0)) as listening, downloads.patience(limit=2**20):
        asked = threading.Thread(target=_answer_once, args=(listening, head))
        asked.start()
        with pytest.raises((urllib.error.HTTPError, http.client.IncompleteRead), match=told):
            urllib.request.urlopen(f"http://127.0.0.1:{listening.getsockname()[1]}/").read()
        asked.join()


def _answer_once(listening: socket.socket, says: bytes) -> None:
    with listening.accept()[0] as one:
        one.recv(2**16)
        one.sendall(says)


@pytest.mark.parametrize("length", [b"", b"Content-Length: 99999999999\r\n"])
def test_a_server_that_gives_without_end_is_ended(length, server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_FILE", 2**20)
    with answering(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b"x" * 2**21, monkeypatch):
        output = prepare(tmp_path / "data", code=1)
    assert "gives more than 1,048,576 bytes: that is not the published file" in output
    assert {path.name for path in (tmp_path / "data").iterdir()} == {".locks"}


def test_what_a_server_says_does_nothing_to_a_terminal(server, tmp_path, monkeypatch):
    """It is escaped, and no more of it shown than anybody reads."""
    with answering(b"\x1b]0;title\x07\x1b[31m" + b"y" * 5000 + b"\r\n\r\n", monkeypatch):
        output = prepare(tmp_path / "data", code=1)
    assert "\\x1b]0;title\\x07\\x1b[31m" in output
    assert "\x1b" not in output
    assert len(output) < 1500


def test_of_two_tries_the_first_is_told(server, tmp_path, monkeypatch):
    """torchvision asks again without encryption, whatever it was: a full disk looks like a dead server."""

    def full(url, path, *_):
        raise OSError(
            *((errno.ENOSPC, "No space left") if url[:5] == "https" else (111, "refused"))
        )

    monkeypatch.setattr(archive.ARCHIVES["cifar10"], "url", "https://cifar.invalid/cifar.tar.gz")
    monkeypatch.setattr(archive.utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(archive.utils, "_urlretrieve", full)
    output = prepare(tmp_path / "data", code=1)
    assert "No space left" in output
    assert "refused" not in output


def test_what_a_program_has_installed_for_its_addresses_stays(server, tmp_path, monkeypatch):
    """Such as one that knows the way through a proxy."""
    asked, opener = [], urllib.request.build_opener()

    class Asked(urllib.request.BaseHandler):
        def http_request(self, request):
            asked.append(request.full_url)
            return request

    opener.add_handler(Asked())
    monkeypatch.setattr(urllib.request, "_opener", opener)
    prepare(tmp_path / "data")
    assert asked
    assert urllib.request._opener is opener
    with urllib.request.urlopen(asked[0]) as response:
        assert response.read(), "nothing is limited any more"


def test_an_address_of_a_proxy_that_is_none_is_explained(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.ARCHIVES["cifar10"], "url", "http://cifar.invalid/cifar.tar.gz")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:none")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it holds the proxies of before
    assert "nonnumeric port: 'none'" in prepare(tmp_path / "data", code=1)


def test_an_archive_put_there_by_hand_that_is_cut_off_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.ARCHIVES["cifar10"], "url", "http://127.0.0.1:9/cifar.tar.gz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / server.name).write_bytes(server.read_bytes()[:-1])
    output = prepare(tmp_path / "data", code=1)
    assert f"The {server.name} that lies there is not the published one, or cut off" in output


@pytest.mark.begun_first
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_3"])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (hole, "1,099,511,627,776 bytes"),
        (os.mkfifo, "no regular file"),
        (os.mkdir, "no regular file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
    ],
    ids=["hole", "pipe", "folder", "loop"],
)
def test_what_is_no_file_of_the_archive_is_named(make, told, name, server, tmp_path, monkeypatch):
    """Not waited for, and its sum not taken for minutes: neither by prepare nor by a run."""
    monkeypatch.setattr(archive.ARCHIVES["cifar10"], "_check_integrity", None)
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    make(path)
    output = prepare(tmp_path / "data", code=1)
    assert told in output
    assert path.name in output
    with pytest.raises(DataError, match=told):
        datasets.load(RunConfig(dataset="cifar10"), tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "is_hard"),
    [
        ("cifar-10-python.tar.gz", False),
        ("cifar-10-python.tar.gz", True),
        ("cifar-10-batches-py", False),
        ("cifar-10-batches-py/data_batch_3", False),
        ("cifar-10-batches-py/data_batch_3", True),
    ],
)
def test_what_a_link_leads_to_is_left_alone(name, is_hard, server, tmp_path):
    """A cache that others share, where the archive is just being copied; a copy made of hard links."""
    shared = tmp_path / "shared"
    if name == "cifar-10-batches-py":
        shared.mkdir()
    else:
        shared.write_text("of somebody else")
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.hardlink_to(shared) if is_hard else path.symlink_to(shared)
    output = prepare(tmp_path / "data", code=0 if is_hard else 1)
    assert is_hard or f"{name}' is a link to '{shared}'" in output
    assert (
        not list(shared.iterdir()) if shared.is_dir() else shared.read_text() == "of somebody else"
    )
    assert not list((tmp_path / "data").glob("hml-*"))


def test_an_archive_that_is_a_link_to_a_whole_one_is_taken(server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / server.name).symlink_to(server)
    assert "5000 training" in prepare(tmp_path / "data")
    assert (tmp_path / "data" / server.name).is_symlink()


def test_a_dangling_link_makes_no_file_where_it_leads(server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / server.name).symlink_to(tmp_path / "made")
    assert "nothing is written through one" in prepare(tmp_path / "data", code=1)
    assert not (tmp_path / "made").exists()


def test_an_older_archive_stays_until_the_new_one_is_whole(server, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / server.name).write_bytes(b"older")
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnever", monkeypatch):
        output = prepare(tmp_path / "data", code=1)
    assert "is not the published one, or cut off" in output
    assert (tmp_path / "data" / server.name).read_bytes() == b"older"
    assert {path.name for path in (tmp_path / "data").iterdir()} == {server.name, ".locks"}


def test_one_process_at_a_time_prepares_it(server, tmp_path):
    (tmp_path / "data").mkdir()
    with archive.outputs.alone(tmp_path / "data", "prepare-cifar10"):
        output = prepare(tmp_path / "data", code=1)
    assert f"prepares images in '{tmp_path / 'data'}'" in output
    assert "5000 training" in prepare(tmp_path / "data")
    with archive.outputs.alone(tmp_path / "data", "prepare-cifar10"):  # nothing is written any more
        assert "5000 training" in prepare(tmp_path / "data")


def test_a_full_disk_does_not_blame_an_archive_that_is_whole(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "data").mkdir()
    shutil.copy(server, tmp_path / "data")
    monkeypatch.setattr(archive.utils, "extract_archive", full)
    output = prepare(tmp_path / "data", code=1)
    assert "No space left on device" in output
    assert "cut off" not in output


def test_missing_files_say_how_to_get_them(tmp_path):
    config = RunConfig(dataset="cifar100")
    with pytest.raises(DataError, match=r"run `hml prepare cifar100 --data-root"):
        datasets.load(config, tmp_path)
    with pytest.raises(DataError, match="needs `data_root`"):
        datasets.load(config)


def test_ratios_that_empty_a_class_are_refused_before_the_files_are_read():
    with pytest.raises(ConfigError, match="'cifar100': With ratio 501, class 99 keeps 0 of 500"):
        RunConfig(dataset="cifar100", imbalance_ratio=501)
