"""Laws of the docs: real prose of what is installed, read once, checked when read again."""

from __future__ import annotations

import json
import socket
import sys
from operator import attrgetter
from pathlib import Path

import pytest

from tinytrans.data import docs, load
from tinytrans.data.cache import cache_folder
from tinytrans.data.docs import LIBRARIES, Docs, without_names
from tinytrans.data.likeness import runs
from tinytrans.data.prose import documentation, paragraphs, source_files

LIBRARY = attrgetter("origin")  # of a paragraph
LINE = "{} sentence of plain words with the name {} in it."
PROSE = "The quick brown fox jumps over the lazy dog, and nobody is hurt."


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYTRANS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "docs"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small libraries in place of numpy and torch; networkx is missing."""
    for name, more in (("numpy", "One"), ("torch", "Two")):
        (tmp_path / name).mkdir()
        lines = [PROSE, *(LINE.format(more, "x" * i) for i in range(1, 60))]
        (tmp_path / name / "core.py").write_text('"""' + "\n\n".join(lines) + '"""')
    found = {"numpy": (tmp_path / "numpy", "1.0"), "torch": (tmp_path / "torch", "2.0")}
    monkeypatch.setattr(docs, "source", found.get)
    return tmp_path


def test_real_documentation_is_read(monkeypatch: pytest.MonkeyPatch):
    """The installed numpy alone gives over a thousand paragraphs of prose, without a socket and without an import."""
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
    monkeypatch.delitem(sys.modules, "numpy.f2py", raising=False)
    prose = load("docs", libraries=("numpy",))
    assert len(prose) > 1000
    assert set(map(LIBRARY, prose)) == {"numpy"}
    assert all(len(part.text) >= 40 and part.text[0].isupper() and part.text[-1] in ".!?" for part in prose)
    assert "numpy.f2py" not in sys.modules
    assert f"numpy {prose.versions['numpy']}: NumPy developers, BSD-3-Clause" in prose.credits()


def test_what_is_missing_is_skipped(small: Path):
    """A library that is not installed is left out, and the versions say so."""
    assert Docs(("networkx", "numpy")).versions == {"numpy": "1.0"}


def test_copied_paragraphs_stand_once(small: Path):
    """A paragraph in two libraries belongs to the one named first."""
    both = [*Docs(("torch", "numpy")), *Docs(("torch", "numpy"), split="validation")]
    assert [LIBRARY(part) for part in both if part.text == PROSE] == ["torch"]
    assert len({part.text for part in both}) == len(both) > 110


def test_splits_are_disjoint_and_stable(small: Path):
    """A paragraph's split is its own: whatever else is installed, it stays on its side."""
    train, validation = (Docs(("numpy", "torch"), split=split) for split in docs.SPLITS)
    assert len(validation) > 0
    assert not {part.text for part in train} & {part.text for part in validation}
    assert {part.text for part in Docs(("numpy",))} <= {part.text for part in train}


def test_what_validates_has_no_near_twin_in_training(small: Path):
    """A paragraph that training has in nearly the same words does not validate; training keeps its own."""
    train, validation = (Docs(("numpy", "torch"), split=split) for split in docs.SPLITS)
    for part in validation:
        own = runs(part.text)
        assert all(len(own & theirs) < 0.5 * len(own | theirs) for theirs in (runs(each.text) for each in train))
    held_out = {LINE.format(more, "x" * i) for more in ("One", "Two") for i in range(1, 60)} - {
        part.text for part in train
    }
    assert {part.text for part in validation} < held_out, "nothing was left out"


def test_the_second_time_nothing_is_parsed(small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The cache is read instead of the library, gives the same digest, and its first line says what it is."""
    first = Docs(("numpy",))
    (file,) = cache.iterdir()
    head = json.loads(file.read_text().split("\n")[0])
    assert (head["library"], head["version"], len(head["sha256"])) == ("numpy", "1.0", 64)
    monkeypatch.setattr(docs, "extract", lambda *_: pytest.fail("the library was read again"))
    assert Docs(("numpy",)).digest == first.digest


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"not json\nat all", b"\xff\xfe", None])
def test_a_damaged_cache_is_made_again(small: Path, cache: Path, damage: bytes | None):
    """A cache that is not what its digest says is not believed."""
    first = Docs(("numpy",))
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_bytes(whole.replace("quick", "slow").encode() if damage is None else damage)
    assert Docs(("numpy",)).digest == first.digest
    assert file.read_text() == whole
    assert [entry.name for entry in cache.iterdir()] == [file.name]


def test_without_room_for_a_cache_the_texts_are_there(small: Path, cache: Path):
    """On a read-only or full disk the documentation is read all the same; a warning says why it takes long again."""
    first = Docs(("numpy",))
    (file,) = cache.iterdir()
    file.unlink()
    cache.rmdir()
    cache.write_text("no folder can be made here")
    with pytest.warns(UserWarning, match="numpy will be read anew the next time: .*File exists"):
        assert Docs(("numpy",)).digest == first.digest


def test_another_version_is_another_cache(small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """An upgraded library is read anew."""
    Docs(("numpy",))
    monkeypatch.setattr(docs, "source", lambda name: (small / name, "9.9"))
    assert Docs(("numpy",)).versions == {"numpy": "9.9"}
    assert len(list(cache.iterdir())) == 2


def test_unknown_names_list_the_known(small: Path):
    """An unknown library or split is an error that lists what there is."""
    with pytest.raises(ValueError, match="no library 'scipy'; there are python, torch, sympy, networkx, numpy"):
        Docs(("numpy", "scipy"))
    with pytest.raises(ValueError, match="no split 'test'; there are train, validation"):
        Docs(split="test")


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch):
    """$TINYTRANS_CACHE comes first, then $XDG_CACHE_HOME, then the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("TINYTRANS_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("TINYTRANS_CACHE")
    assert cache_folder() == Path("/xdg/tinytrans")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().is_relative_to(Path.home())


def test_prose_is_told_from_the_rest():
    """Paragraphs of prose are kept on one line, without their heading; code, lists, short and cut ones are not."""
    text = f"""{PROSE.replace(" jumps", chr(10) + "    jumps")}

    >>> print("The quick brown fox jumps over the lazy dog.")

    - A list item that is long enough to be a paragraph of prose.

    Short one.

    The sentence that has no end, although it is long enough

    x_1 = f(a, b) + 2 ** 3 ; y[0] = {{}} != None -> (1, 2, 3) :class:`A`.

    Returns
    -------
    {PROSE}

    Note: {PROSE}"""
    assert list(paragraphs(text)) == [PROSE] * 3


def test_documentation_is_found_without_running_it(tmp_path: Path):
    """Docstrings at every depth and `add_docstr` texts are found, comments and strings are not; nothing is run."""
    file = tmp_path / "module.py"
    file.write_text(
        '"""module"""\nraise SystemExit\nif x:\n    class A:\n        """class"""\n        async def f(s):\n'
        '            """method"""\n            return "not this one"\nadd_docstr(abs, """a b""")\nprint("nor this")\n'
    )
    assert list(documentation(file)) == ["module", "class", "method", "a b"]
    file.write_text("print 'of Python 2'")
    assert list(documentation(file)) == []


def test_tests_are_no_documentation(tmp_path: Path):
    """Files of tests and vendored packages are left out, the order is fixed, and the root's own name is free."""
    for name in ("b/x.py", "a.py", "tests/t.py", "b/_vendor/v.py", "a.txt"):
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).write_text("")
    root = tmp_path / "test"
    assert [path.relative_to(root).as_posix() for path in source_files(root)] == ["a.py", "b/x.py"]


def test_documents_end(small: Path):
    """Each document is a paragraph and the end token."""
    prose = Docs(("numpy",))
    assert prose.documents()[0] == prose[0].text + "<|end|>"


def test_no_paragraph_names_its_library():
    """Without names no library is named, alone, within a word or by its alias, in any case; other words stay."""
    text = "NumPy's np.dot, a CPython thing; import networkx as nx or torchvision. The snap of inputs is SymPy-like."
    assert without_names(text) == "it's it.dot, a it thing; import it as it or it. The snap of inputs is it-like."
    plain = [without_names(part.text).lower() for part in Docs(("numpy",))[:300]]
    assert not [name for name in LIBRARIES for line in plain if name in line]
