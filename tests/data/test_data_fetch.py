"""Finding and downloading data sets, against a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from condensery.data import fetch, mnist
from condensery.data.fetch import DataMissing, Remote, Source, download, locate

GIT_OF_HELLO = "git:ce013625030ba8dba906f756967f9e9ca394464a"  # `printf 'hello\\n' | git hash-object --stdin`


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the address it is served at."""
    root = tmp_path / "served"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("CONDENSERY_DATA", raising=False)


def closed_address() -> str:
    """An address of this machine where nothing listens: as good as no network."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/"


def checksum(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def plain(*addresses: str, content: bytes = b"payload", names=("one.gz", "two.gz")) -> Source:
    remotes = tuple(Remote(n, tuple(a + n for a in addresses), checksum(content)) for n in names)
    return Source("Some Set", ("some", "Some/raw"), tuple((n, n.removesuffix(".gz")) for n in names), remotes)


def fill(root: Path, names=("one.gz", "two.gz"), content: bytes = b"payload") -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).write_bytes(content)


def test_download_once(served, tmp_path):
    root, address = served
    fill(root)
    place = locate(plain(address))
    assert place == tmp_path / "cache" / "some"
    assert (place / "two.gz").read_bytes() == b"payload"
    (root / "one.gz").unlink()
    assert locate(plain(address)) == place


def test_interrupted_download_is_finished(served, tmp_path):
    root, address = served
    fill(root)
    fill(tmp_path / "cache" / "some", ("one.gz",))
    (root / "one.gz").unlink()  # is there already, checksum right, so not asked for
    assert (locate(plain(address)) / "two.gz").exists()


def test_mirror_is_tried(served):
    root, address = served
    fill(root)
    assert (locate(plain(closed_address(), address)) / "one.gz").exists()


def test_wrong_checksum_is_not_kept(served, tmp_path):
    root, address = served
    fill(root, content=b"tampered")
    with pytest.raises(DataMissing, match=r"one\.gz: not the published file, its checksum is not sha256:") as caught:
        locate(plain(address))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "some").iterdir())


def test_git_number_as_checksum(served, tmp_path):
    root, address = served
    (root / "one.gz").write_bytes(b"hello\n")
    source = Source("Some Set", ("some",), (("one.gz",),), (Remote("one.gz", (address + "one.gz",), GIT_OF_HELLO),))
    assert (locate(source) / "one.gz").read_bytes() == b"hello\n"
    (tmp_path / "cache" / "some" / "one.gz").unlink()
    (root / "one.gz").write_bytes(b"hullo\n")
    with pytest.raises(DataMissing, match="not the published file"):
        locate(source)
    assert not (tmp_path / "cache" / "some" / "one.gz").exists()


def test_missing_on_the_server(served):
    with pytest.raises(DataMissing, match="404"):
        locate(plain(served[1]))


def test_offline_says_what_to_put_where(tmp_path):
    with pytest.raises(ValueError, match="could not be downloaded") as caught:
        locate(plain(closed_address()))
    message = str(caught.value)
    assert f"put one.gz, two.gz in {tmp_path / 'cache' / 'some'}" in message
    assert "CONDENSERY_DATA" in message
    assert "\n" not in message


def test_published_sets_offline(monkeypatch, tmp_path):
    import requests

    def unreachable(*_, **__):
        raise requests.ConnectionError("no\nroute")

    monkeypatch.setattr(requests, "get", unreachable)
    for source in (
        fetch.MNIST,
        fetch.FASHION_MNIST,
        fetch.KMNIST,
        fetch.CIFAR10,
        fetch.CIFAR100,
        fetch.TINY_IMAGENET,
    ):
        with pytest.raises(DataMissing, match=source.title) as caught:
            locate(source)
        assert "\n" not in str(caught.value)
        assert all(names[0] in str(caught.value) for names in source.needs)
        assert str(tmp_path / "cache" / source.folders[0]) in str(caught.value)
    with pytest.raises(DataMissing, match="emnist-letters-train-images-idx3-ubyte"):
        locate(fetch.emnist_source("letters"))
    with pytest.raises(DataMissing, match="MNIST"):
        mnist()


def archived(kind: str, inside: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as packed:
            packed.writestr(f"{inside}/data.bin", b"payload")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed_tar:
            info = tarfile.TarInfo(f"{inside}/data.bin")
            info.size = 7
            packed_tar.addfile(info, io.BytesIO(b"payload"))
    return buffer.getvalue()


def archive_source(address: str, content: bytes) -> Source:
    remote = Remote("all.archive", (f"{address}all.archive",), checksum(content))
    return Source("Packed", ("packed", "other"), (("data.bin",),), (remote,), "inner")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("partly", [True, False])
def test_archive(served, tmp_path, kind, partly):
    root, address = served
    content = archived(kind, "inner")
    (root / "all.archive").write_bytes(content)
    if partly:
        fill(tmp_path / "cache" / "packed", ("own notes",))
    place = locate(archive_source(address, content))
    assert (place / "data.bin").read_bytes() == b"payload"
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["packed"]
    assert (place / "own notes").exists() == partly


def test_archive_of_something_else(served):
    root, address = served
    content = archived("zip", "elsewhere")
    (root / "all.archive").write_bytes(content)
    with pytest.raises(ValueError, match="no folder inner"):
        locate(archive_source(address, content))


def test_archive_cannot_write_outside(served, tmp_path):
    root, address = served
    content = archived("tar", "inner/../..")
    (root / "all.archive").write_bytes(content)
    with pytest.raises(ValueError, match=r"all\.archive cannot be unpacked"):
        locate(archive_source(address, content))
    assert not list(tmp_path.glob("**/data.bin"))


def test_places_in_order(tmp_path, monkeypatch):
    source = plain(closed_address())
    fill(tmp_path / "cache" / "some")
    assert locate(source) == tmp_path / "cache" / "some"
    monkeypatch.setenv("CONDENSERY_DATA", str(tmp_path / "env"))
    assert locate(source) == tmp_path / "cache" / "some"  # named, but not there
    fill(tmp_path / "env" / "Some" / "raw", ("one", "two.gz"))
    assert locate(source) == tmp_path / "env" / "Some" / "raw"
    fill(tmp_path / "given")
    assert locate(source, tmp_path / "given") == tmp_path / "given"


def test_given_folder_is_never_filled(tmp_path):
    with pytest.raises(DataMissing, match=r"put one\.gz, two\.gz there"):
        locate(plain(closed_address()), tmp_path)
    assert not list(tmp_path.glob("*/*.gz"))


def test_progress_bar_does_what_pooch_asks(served, monkeypatch, capsys):
    root, address = served
    fill(root, content=gzip.compress(bytes(300_000)))
    bars = []

    class Watched(fetch._Bar):
        def __init__(self, label):
            super().__init__(label)
            bars.append(self)

    monkeypatch.setattr(fetch, "_Bar", Watched)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    download(plain(address, content=gzip.compress(bytes(300_000))), fetch.cache_folder())
    assert len(bars) == 2
    assert all(bar._progress.tasks[0].completed == bar.total and bar._progress.finished for bar in bars)


def test_cache_folder_is_the_users(monkeypatch):
    monkeypatch.undo()
    assert fetch.cache_folder().name == "condensery"
