"""Downloads: the name of a public data set -> its file on this machine, only when asked for, and only as pinned.

Every file has a size, a SHA-256 and a licence; what differs from them is thrown away. Nothing is ever fetched
silently: `fetch(name)` finds what is there, `fetch(name, download=True)` gets what is not.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from tinytrans.data.cache import cache_folder
from tinytrans.data.splits import check_split

CHUNK = 2**16  # bytes read at once
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)  # not the connection's fault
TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Download:
    """A file on the internet: where it is, what it must be, and under which licence."""

    url: str
    size: int
    sha256: str
    licence: str

    @property
    def file(self) -> Path:
        """Where it lies on this machine, once fetched: the name begins with its digest, so versions never mix."""
        return cache_folder() / "downloads" / f"{self.sha256[:12]}-{self.url.rsplit('/', 1)[-1]}"


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_MNIST_LICENCE = "Y. LeCun, C. Cortes, C. Burges: MNIST, CC BY-SA 3.0"

DOWNLOADS = {
    "tinyshakespeare": Download(
        "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/"
        "data/tinyshakespeare/input.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "William Shakespeare, public domain",
    ),
    "tinystories": Download(
        "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64/"
        "TinyStories-valid.txt",
        19_447_282,
        "94e431816c4cce81ff71e4408ff8d3bda9a42e8d2663986697c3954288cb38b4",
        "R. Eldan and Y. Li 2023, CDLA-Sharing-1.0",
    ),
    "mnist-train-images": Download(
        _MNIST + "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        _MNIST_LICENCE,
    ),
    "mnist-train-labels": Download(
        _MNIST + "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        _MNIST_LICENCE,
    ),
    "mnist-test-images": Download(
        _MNIST + "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        _MNIST_LICENCE,
    ),
    "mnist-test-labels": Download(
        _MNIST + "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        _MNIST_LICENCE,
    ),
}


def fetch(name: str, *, download: bool = False) -> Path:
    """The file of a data set: from the cache, or with `download=True` from the internet.

    Raises FileNotFoundError, which says what to do, when it is not here and was not asked for; ConnectionError when it
    cannot be had; ValueError on an unknown name and on a file that is not what was pinned.
    """
    if name not in DOWNLOADS:
        raise ValueError(f"no download {name!r}; there are {', '.join(DOWNLOADS)}")
    source = DOWNLOADS[name]
    if source.file.exists():
        if wrong := differs(source, source.file):  # somebody has put it there
            raise ValueError(f"{source.file} is not the file of {source.url}: {wrong}")
        return source.file
    if not download:
        raise FileNotFoundError(
            f"{name} is not on this machine ({source.size / 1e6:.1f} MB, {source.licence}). With internet, pass "
            f"download=True once; without, put the file of {source.url} at {source.file}, or take a data set that "
            f'needs none: load("tales")'
        )
    print(f"downloading {name}: {source.size / 1e6:.1f} MB, {source.licence}")
    return retrieve(source)


def retrieve(source: Download) -> Path:
    """Get the file whole or not at all: into a `.part` that a broken download goes on with, checked, then renamed."""
    source.file.parent.mkdir(parents=True, exist_ok=True)
    part = source.file.with_name(source.file.name + ".part")
    try:
        _continue(source, part)
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"{source.url} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in DISK:
            error.filename = os.fspath(part)  # a full disk does not say which file it had no room for
            raise
        raise ConnectionError(
            f"{source.url} cannot be reached ({str(error).strip()}). Try again later, the download goes on where it "
            f'stopped; offline, take a data set that needs no internet: load("tales")'
        ) from error
    if wrong := differs(source, part):
        part.unlink()
        raise ValueError(f"{source.url} is not the file that was pinned and was deleted: {wrong}")
    os.replace(part, source.file)
    return source.file


def _continue(source: Download, part: Path) -> None:
    """Read what the part lacks, and never more than one byte above the size."""
    have = part.stat().st_size if part.exists() else 0
    if have >= source.size:
        return
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the server does not know ranges and sends all of it
            have = 0
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=source.size, initial=have, unit="B", unit_scale=True, leave=False, mininterval=0.5) as bar,
        ):
            while have <= source.size and (chunk := answer.read(min(CHUNK, source.size + 1 - have))):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    if have < source.size:
        raise ConnectionError(f"the connection ended after {have} of {source.size} bytes")


def differs(source: Download, path: Path) -> str:
    """In what a file differs from the one that was pinned, or nothing."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    same = (size, digest) == (source.size, source.sha256)
    return "" if same else f"SHA-256 {digest}, want {source.sha256}; {size} bytes, want {source.size}"


def tinyshakespeare(*, download: bool = False) -> str:
    """The plays that are often a first language model's reading, 1.1 MB of text."""
    return fetch("tinyshakespeare", download=download).read_text(encoding="utf-8")


def tinystories(*, download: bool = False) -> list[str]:
    """The stories of TinyStories' smaller file, 22 thousand; some are sad: look before you show them to a class."""
    text = fetch("tinystories", download=download).read_text(encoding="utf-8")
    return [story for part in text.split("<|endoftext|>") if (story := part.strip())]


def mnist(*, split: str = "train", download: bool = False) -> tuple[Tensor, Tensor]:
    """MNIST: images (N, 1, 28, 28) in [0, 1] and labels (N,); 55,000 train, 5,000 more validate, 10,000 test."""
    name = "mnist-test" if check_split(split) == "test" else "mnist-train"
    images = read_idx(fetch(f"{name}-images", download=download)).unsqueeze(1).float() / 255
    labels = read_idx(fetch(f"{name}-labels", download=download)).long()
    part = {"train": slice(None, 55_000), "validation": slice(55_000, None), "test": slice(None)}[split]
    return images[part], labels[part]


def read_idx(file: Path) -> Tensor:
    """A gzipped IDX file of bytes -> a uint8 tensor of its shape; raises ValueError on anything else."""
    data = gzip.decompress(file.read_bytes())
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{file.name} is no IDX file of bytes: it begins with {data[:4].hex()}")
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i]) for i in range(axes)]
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=4 + 4 * axes).reshape(shape)
