"""Laws of downloads: never silently, whole or not at all, only what was pinned.

A server on this machine stands for the internet.
"""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tinytrans.data import downloads
from tinytrans.data.downloads import DOWNLOADS, Download, fetch, mnist, read_idx, retrieve, tinystories

CONTENT = bytes(range(256)) * 1000


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT: at /whole with ranges, at /plain without, at /cut it breaks off half way, at /other it lies."""

    asked: list[tuple[str, str | None]] = []  # noqa: RUF012 - one server, one list

    def do_GET(self) -> None:
        """Answer as the path says."""
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/babble":
            self.wfile.write(b"no HTTP at all\r\n\r\n")
            return
        if self.path == "/torn":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ff\r\nfar fewer than 255 bytes")
            self.close_connection = True
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.path != "/plain" else 0
        body = CONTENT[start:]
        if self.path == "/other":
            body = b"x" * (len(CONTENT) - start)
        if self.path == "/long":
            body = CONTENT * 50
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.close_connection = True
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" and not start else body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYTRANS_CACHE", str(tmp_path))
    Server.asked.clear()
    return tmp_path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def pinned(url: str, content: bytes = CONTENT) -> Download:
    return Download(url, len(content), hashlib.sha256(content).hexdigest(), "public domain")


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "downloads").iterdir())


def test_a_file_comes_whole(url: str, cache: Path) -> None:
    """What was pinned lies in the cache, byte for byte, and nothing beside it."""
    file = retrieve(pinned(f"{url}/whole"))
    assert file.read_bytes() == CONTENT
    assert left(cache) == [file.name]


def test_a_broken_download_goes_on(url: str, cache: Path) -> None:
    """After a broken connection there is no file, only a part; the next call asks for the rest alone."""
    source = pinned(f"{url}/cut")
    with pytest.raises(ConnectionError, match="goes on where it stopped"):
        retrieve(source)
    assert left(cache) == [f"{source.file.name}.part"]
    assert not source.file.exists()
    assert retrieve(source).read_bytes() == CONTENT
    assert Server.asked == [("/cut", None), ("/cut", f"bytes={len(CONTENT) // 2}-")]


@pytest.mark.parametrize("path", ["/babble", "/torn"])
def test_a_server_that_babbles_is_no_connection(url: str, path: str) -> None:
    """An answer that is no HTTP, or that breaks off within a chunk, is a ConnectionError that says what to do."""
    with pytest.raises(ConnectionError, match=f"{path} cannot be reached.*goes on where it stopped"):
        retrieve(pinned(f"{url}{path}"))


def test_a_full_disk_is_not_the_servers_fault(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the part cannot be written, the error names it, and says nothing of a server that cannot be reached."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads, "_continue", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*whole\.part'"):
        retrieve(pinned(f"{url}/whole"))


def test_a_server_without_ranges_starts_again(url: str) -> None:
    """A server that sends all of it although the rest was asked for does not spoil the file."""
    source = pinned(f"{url}/plain")
    source.file.parent.mkdir(parents=True)
    source.file.with_name(source.file.name + ".part").write_bytes(b"half of it")
    assert retrieve(source).read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/other", "/long"])
def test_another_file_is_thrown_away(url: str, cache: Path, path: str) -> None:
    """A file of another digest or a longer one raises ValueError, which names both digests, and leaves nothing."""
    source = pinned(f"{url}{path}")
    with pytest.raises(ValueError, match=f"not the file that was pinned.*want {source.sha256}"):
        retrieve(source)
    assert left(cache) == []


def test_a_finished_part_is_checked_not_trusted(url: str, cache: Path) -> None:
    """A part that is long enough is not downloaded again, but checked like any other."""
    source = pinned(f"{url}/whole")
    part = source.file.with_name(source.file.name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[::-1])
    with pytest.raises(ValueError, match="was deleted"):
        retrieve(source)
    assert left(cache) == []
    part.write_bytes(CONTENT)
    assert retrieve(source).read_bytes() == CONTENT
    assert Server.asked == []


def test_a_missing_file_says_so(url: str) -> None:
    """An error of the server is a ConnectionError with its number."""
    with pytest.raises(ConnectionError, match="404"):
        retrieve(pinned(f"{url}/missing"))


def test_nothing_is_downloaded_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `download=True` no connection is opened; the error names size, licence, address and what to do."""

    def never(*args: object, **options: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", never)
    for name in DOWNLOADS:
        with pytest.raises(FileNotFoundError, match="download=True") as error:
            fetch(name)
        source = DOWNLOADS[name]
        for told in (source.licence, source.url, str(source.file), "MB", 'load("tales")'):
            assert told in str(error.value)
    with pytest.raises(ValueError, match=r"no download 'imagenet'.*tinystories"):
        fetch("imagenet")


def test_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Size and licence are said first; without internet a ConnectionError points to data that needs none."""

    def unreachable(*args: object, **options: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", unreachable)
    with pytest.raises(ConnectionError, match=r'unreachable.*load\("tales"\)'):
        fetch("tinyshakespeare", download=True)
    assert "downloading tinyshakespeare: 1.1 MB, William Shakespeare, public domain" in capsys.readouterr().out


def test_what_is_here_is_not_fetched_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once fetched, a file is found without asking anybody, with or without `download=True`."""
    monkeypatch.setitem(DOWNLOADS, "mine", pinned(f"{url}/whole"))
    file = fetch("mine", download=True)
    assert fetch("mine") == fetch("mine", download=True) == file
    assert len(Server.asked) == 1


def test_what_was_put_there_by_hand_is_checked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the right name that is another one is refused, with both digests, and left to whoever put it there."""
    monkeypatch.setitem(DOWNLOADS, "mine", source := pinned(f"{url}/whole"))
    source.file.parent.mkdir(parents=True)
    source.file.write_bytes(CONTENT[:-1])
    for download in (False, True):
        with pytest.raises(ValueError, match=f"is not the file of {url}/whole: SHA-256 .*want {source.sha256}"):
            fetch("mine", download=download)
    assert source.file.read_bytes() == CONTENT[:-1]
    source.file.write_bytes(CONTENT)
    assert fetch("mine") == source.file
    assert Server.asked == []


def test_every_download_is_pinned() -> None:
    """Each is fetched by https, with a size, a whole SHA-256 and a licence, and git hosts by a commit, not a branch."""
    for name, source in DOWNLOADS.items():
        assert source.url.startswith("https://"), name
        assert len(source.sha256) == 64 == len(f"{int(source.sha256, 16):064x}"), name
        assert source.size > 0 < len(source.licence), name
        if "github" in source.url or "huggingface" in source.url:
            assert any(len(part) == 40 and int(part, 16) for part in source.url.split("/")), name
    assert len({source.file for source in DOWNLOADS.values()}) == len(DOWNLOADS)


def idx(content: torch.Tensor) -> bytes:
    """A tensor of bytes as the gzipped IDX file that MNIST is kept in."""
    head = bytes([0, 0, 8, content.dim()]) + b"".join(n.to_bytes(4) for n in content.shape)
    return gzip.compress(head + content.numpy().tobytes(), mtime=0)


def put(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    """Let a download be there already, with this content."""
    source = pinned(f"https://example.org/{name}", content)
    source.file.parent.mkdir(parents=True, exist_ok=True)
    source.file.write_bytes(content)
    monkeypatch.setitem(DOWNLOADS, name, source)


def test_mnist_is_read_from_its_files(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Images come as (N, 1, H, W) between 0 and 1 with their labels, in the order of the files; test from its own."""
    images = torch.arange(3 * 28 * 28, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(3, 28, 28)
    labels = torch.tensor([7, 0, 9], dtype=torch.uint8)
    for split in ("train", "test"):
        shown = images if split == "train" else images.flip(0)
        put(monkeypatch, f"mnist-{split}-images", idx(shown))
        put(monkeypatch, f"mnist-{split}-labels", idx(labels))
    pictures, names = mnist()
    assert torch.equal(pictures, images.unsqueeze(1) / 255)
    assert names.tolist() == [7, 0, 9]
    assert torch.equal(mnist(split="test")[0], pictures.flip(0))
    assert len(mnist(split="validation")[1]) == 0
    (cache / "wrong").write_bytes(gzip.compress(b"no idx"))
    with pytest.raises(ValueError, match="no IDX file"):
        read_idx(cache / "wrong")


def test_stories_are_cut_at_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """TinyStories is a list of stories, without their end marks, white space around or empty ones."""
    put(monkeypatch, "tinystories", b"One.\n<|endoftext|>\nTwo.\nMore.\n<|endoftext|>\n")
    assert tinystories() == ["One.", "Two.\nMore."]
