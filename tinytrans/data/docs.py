"""Docs: real English, the documentation of Python and four libraries as this machine has them installed.

Nothing is downloaded and nothing redistributed: the texts are read from the user's own files, once, and cached.
The texts change with the versions; `Docs.versions` and `Docs.digest` say which ones were read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import sysconfig
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from tqdm import tqdm

from tinytrans.data.cache import cache_folder
from tinytrans.data.chat import END
from tinytrans.data.likeness import twins
from tinytrans.data.prose import documentation, paragraphs, source_files
from tinytrans.files import write_whole

CREDITS = {
    "python": "Python Software Foundation, PSF-2.0",
    "torch": "PyTorch contributors, BSD-3-Clause",
    "sympy": "SymPy development team, BSD-3-Clause",
    "networkx": "NetworkX developers, BSD-3-Clause",
    "numpy": "NumPy developers, BSD-3-Clause",
}
LIBRARIES = tuple(CREDITS)
SPLITS = ("train", "validation")
_NAMES = re.compile(rf"\w*(?:{'|'.join(LIBRARIES)})\w*|\b(?:np|nx)\b", re.IGNORECASE)
RECIPE = 3  # raise it when the same sources give other paragraphs: older caches are then not read


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of documentation and the library it comes from."""

    text: str
    origin: str


def source(library: str) -> tuple[Path, str] | None:
    """A library's folder and version on this machine, found without importing it; None when it is not there."""
    if library == "python":
        return Path(sysconfig.get_paths()["stdlib"]), platform.python_version()
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent, importlib.metadata.version(library)


def extract(library: str, root: Path) -> list[str]:
    """All paragraphs of prose in a library's documentation, each once, in the order of its files."""
    title = f"reading the documentation of {library}"
    files = tqdm(source_files(root), desc=title, unit="file", leave=False, mininterval=0.5)
    return list(dict.fromkeys(line for file in files for text in documentation(file) for line in paragraphs(text)))


def sha256(lines: Sequence[str]) -> str:
    """The SHA-256 of lines, as hexadecimal digits."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_cache(file: Path) -> list[str] | None:
    """The paragraphs of a cache file; None when there is none, or when it is not what its first line says."""
    if not file.exists():
        return None
    try:
        head, *lines = file.read_text(encoding="utf-8").split("\n")
        return lines if json.loads(head)["sha256"] == sha256(lines) else None
    except (ValueError, KeyError, TypeError):
        return None


def library_paragraphs(library: str, root: Path, version: str) -> list[str]:
    """The paragraphs of an installed library, from the cache if it was read before; warns where none can be written."""
    file = cache_folder() / "docs" / f"{library}-{version}-recipe{RECIPE}.txt"
    lines = read_cache(file)
    if lines is None:
        lines = extract(library, root)
        head = {"library": library, "version": version, "credit": CREDITS[library], "sha256": sha256(lines)}
        try:
            write_whole(file, "\n".join([json.dumps(head), *lines]))
        except OSError as error:  # read-only, or full: what was read is there all the same
            warnings.warn(f"{library} will be read anew the next time: {error}", stacklevel=2)
    return lines


def without_names(text: str) -> str:
    """A paragraph that does not say which library it is from: each library's name, alone or within a word, is `it`.

    >>> without_names("PyTorch and sympy.core are like np.sum in NumPy.")
    'it and it.core are like it.sum in it.'
    """
    return _NAMES.sub("it", text)


def side_of(part: Paragraph) -> str:
    """Training or validation: one paragraph in twenty validates, whatever else there is."""
    return "validation" if zlib.crc32(part.text.lower().encode()) % 20 == 0 else "train"


class Docs(Sequence[Paragraph]):
    """The paragraphs of a split: 19 in 20 train, the others validate, by their hash.

    Documentation repeats itself: of those that validate, what has a near twin in training is left out (`likeness`).
    A library that is not installed is left out; `Docs.versions` says what was found. The quick form is
    `Docs(libraries=("python", "numpy"))`. Raises ValueError on an unknown library or split.
    """

    def __init__(self, libraries: Sequence[str] = LIBRARIES, *, split: str = "train") -> None:
        unknown = [name for name in libraries if name not in CREDITS]
        if unknown:
            raise ValueError(f"no library {unknown[0]!r}; there are {', '.join(LIBRARIES)}")
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        self.split = split
        self.versions: dict[str, str] = {}
        sides: dict[str, list[Paragraph]] = {name: [] for name in SPLITS}
        for part in self._collect(libraries):
            sides[side_of(part)].append(part)
        self._paragraphs = sides[split]
        if split == "validation":
            told = twins([part.text for part in sides[split]], (part.text for part in sides["train"]))
            self._paragraphs = [part for i, part in enumerate(sides[split]) if i not in told]
        self.digest = sha256([part.text for part in self._paragraphs])

    def _collect(self, libraries: Sequence[str]) -> Iterator[Paragraph]:
        """Every paragraph of the installed libraries, once: copied ones belong to the library named first."""
        seen: set[str] = set()
        for library in dict.fromkeys(libraries):
            found = source(library)
            if found is None:
                continue
            self.versions[library] = found[1]
            for line in library_paragraphs(library, *found):
                if line.lower() not in seen:
                    seen.add(line.lower())
                    yield Paragraph(line, library)

    def __len__(self) -> int:
        return len(self._paragraphs)

    @overload
    def __getitem__(self, i: int) -> Paragraph: ...
    @overload
    def __getitem__(self, i: slice) -> list[Paragraph]: ...
    def __getitem__(self, i: int | slice) -> Paragraph | list[Paragraph]:
        return self._paragraphs[i]

    def __repr__(self) -> str:
        named = ", ".join(f"{library} {version}" for library, version in self.versions.items())
        return f"Docs({len(self)} paragraphs of {named}; split={self.split!r}, sha256={self.digest[:12]})"

    def documents(self) -> list[str]:
        """The training texts: each paragraph and the end token."""
        return [part.text + END for part in self._paragraphs]

    def credits(self) -> str:
        """Who wrote these texts, one line a library."""
        return "\n".join(f"{name} {version}: {CREDITS[name]}" for name, version in self.versions.items())
