"""The house is in order: imports run downhill, a concept has one name, what is built is fresh, promises are kept."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from graders.exercise import concepts, table
from solutions import build

ROOT = build.ROOT
MEGABYTE = 1_000_000

# A module may import what stands beside the longest name that begins its own, and its own package.
MAY_IMPORT = {
    "tinytrans": {"tinytrans"},  # the front door
    "tinytrans.__main__": {"tinytrans"},
    "tinytrans.commands": {"tinytrans"},
    "tinytrans.commands.options": {"tinytrans.__version__", "tinytrans.config", "tinytrans.data"},  # no torch for help
    "tinytrans.config": set(),
    "tinytrans.files": set(),  # anybody may write a file whole
    "tinytrans.interrupt": set(),
    "tinytrans.device": set(),
    "tinytrans.tokenizers": set(),
    "tinytrans.nn": set(),
    "tinytrans.data": {"tinytrans.tokenizers"},
    "tinytrans.models": {"tinytrans.nn", "tinytrans.config", "tinytrans.device"},
    "tinytrans.sampling": {"tinytrans.nn.cache"},
    "tinytrans.training": {"tinytrans.device", "tinytrans.interrupt"},
    "tinytrans.adapters": set(),
    "tinytrans.checkpoints": {"tinytrans.models", "tinytrans.tokenizers"},
    "tinytrans.recipes": {"tinytrans"},  # where models, data and training meet
    "tinytrans.plots": {"tinytrans.nn"},
    "tinytrans.widgets": {"tinytrans.nn", "tinytrans.plots"},
    "graders": {"graders"},
    "graders.overview": {"graders", "tinytrans.plots"},
    "graders.checks": {"tinytrans", "graders.exercise", "graders.draw", "graders.subject", "graders.compare"},
    "solutions": {"tinytrans", "graders", "solutions"},
}
LIBRARY = {"torch", "numpy", "tokenizers", "safetensors", "tqdm"}  # pyproject's dependencies
PICTURES = {"matplotlib", "IPython", "ipywidgets"}
OUTSIDE = {
    "tinytrans": LIBRARY,
    "tinytrans.config": set(),
    "tinytrans.files": set(),
    "tinytrans.interrupt": set(),
    "tinytrans.device": {"torch"},
    "tinytrans.nn": {"torch"},
    "tinytrans.models.convert": LIBRARY | {"transformers"},  # whose models it makes
    "tinytrans.data": LIBRARY | {"babel", "unicode_rbnf", "sklearn"},
    "tinytrans.plots": LIBRARY | PICTURES,
    "tinytrans.widgets": LIBRARY | PICTURES,
}
OURS = ("tinytrans", "graders", "solutions")
NOT_AT_IMPORT = sorted(
    {*PICTURES, "jupyter_core", "nbformat", "notebook", "sklearn", "babel", "transformers", "graders", "solutions"}
)


@cache
def kept() -> tuple[Path, ...]:
    """The files that are committed, or would be: what git tracks and what it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this copy is no git repository")
    return tuple(sorted(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()))


def modules() -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module of ours."""
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name that is imported, line) for every import of a module, wherever it stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            yield from ((f"{base}.{alias.name}" if base in OURS else base, node.lineno) for alias in node.names)


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; a lesson's magics are left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in lines))


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def rule(name: str, rules: dict[str, set[str]]) -> str | None:
    """The longest name in the rules that begins this one."""
    return max((prefix for prefix in rules if within(name, prefix)), key=len, default=None)


def own(name: str) -> str:
    """The package within which modules may know each other: `tinytrans.nn` for `tinytrans.nn.masks`."""
    return ".".join(name.split(".")[:2])


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


@pytest.mark.parametrize("package", OURS)
def test_imports_run_downhill(package: str) -> None:
    """A module imports only what lies below it: parts know no models, models no training, the library no graders."""
    uphill = []
    for name, path in modules():
        home = rule(name, MAY_IMPORT)
        if not within(name, package):
            continue
        if home is None or (home == "tinytrans" != name):  # the front door's rule is its own
            pytest.fail(f"{name} is new: say in MAY_IMPORT of tests/test_house.py what it may import")
        for target, line in imports(name, path):
            allowed = (
                MAY_IMPORT[home]
                | {"tinytrans.files"}
                | ({own(name)} if package == "tinytrans" and name != "tinytrans" else set())
            )
            if target.split(".")[0] in OURS and not any(within(target, prefix) for prefix in allowed):
                uphill.append(f"{where(path, line)}: {name} imports {target}, but may only import {sorted(allowed)}")
    assert not uphill, "move the code to where both can reach it, or hand it in as an argument:\n" + "\n".join(uphill)


def test_the_library_needs_only_its_dependencies() -> None:
    """tinytrans imports the standard library and what pyproject.toml names, each package no more than its share."""
    foreign = []
    for name, path in modules():
        if (home := rule(name, OUTSIDE)) is None:
            continue
        for target, line in imports(name, path):
            top = target.split(".")[0]
            if top not in {*sys.stdlib_module_names, *OURS, *OUTSIDE[home]}:
                foreign.append(f"{where(path, line)}: {name} imports {top}")
    assert not foreign, "do without it, or add it to pyproject.toml and to OUTSIDE in this test:\n" + "\n".join(foreign)


def test_nothing_is_imported_by_star_or_in_hiding() -> None:
    """No star imports, and no import of our own modules inside a function, where it would hide a circle."""
    found = []
    for name, path in modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                found.append(f"{where(path, node.lineno)}: import the names one by one")
            if isinstance(node, ast.FunctionDef) and not name.endswith("__main__") and within(name, "tinytrans"):
                inner = [
                    n for n in ast.walk(node) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith(OURS)
                ]
                found += [f"{where(path, n.lineno)}: move the import to the top of the file" for n in inner]
    assert not found, "\n".join(found)


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_front_door_costs_nothing() -> None:
    """`import tinytrans` loads no torch; torch comes with the first name that needs it."""
    loaded = run_python("import sys, tinytrans; print(*sorted({'torch', 'numpy', 'tqdm'} & set(sys.modules)))")
    assert not loaded, (
        f"`import tinytrans` loads {loaded}: import it where it is used, the front door fetches names lazily"
    )


def test_the_library_is_importable_alone() -> None:
    """No module of tinytrans but plots and widgets needs Jupyter, pictures, data extras or graders to be imported."""
    drawing = ("tinytrans.__main__", "tinytrans.plots", "tinytrans.widgets")
    names = [name for name, _ in modules() if within(name, "tinytrans") and name not in drawing]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]"
    code += f"; print(*(name for name in {NOT_AT_IMPORT} if name in sys.modules))"
    loaded = run_python(code)
    assert not loaded, f"importing tinytrans loads {loaded}: import it inside the function that needs it"


def test_one_concept_has_one_name_everywhere() -> None:
    """A table of exercises has the stem of a library file and of a test file."""
    library = {path.stem for path in (ROOT / "tinytrans").rglob("*.py")}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    for concept in concepts():
        assert concept in library, f"graders/checks/{concept}.py: rename it after the library file that it checks"
        assert concept in tests, (
            f"graders/checks/{concept}.py: write tests/test_{concept}.py, the laws of the library file"
        )


def test_every_exercise_is_asked_for() -> None:
    """Every exercise and question of the tables is asked for in a lesson, or in one that was put aside in a folder."""
    found = sorted((ROOT / "solutions").rglob(f"{build.LESSON}.py"))
    lessons = "\n".join(path.read_text(encoding="utf-8") for path in found)
    asked = set(re.findall(r'^# %%.* (?:exercise|question)="([^"]+)"', lessons, re.MULTILINE))
    idle = [exercise.id for concept in concepts() for exercise in table(concept).values() if exercise.id not in asked]
    assert not idle, f"ask for it in a lesson of solutions/, or take it out of graders/checks/: {', '.join(idle)}"


def test_the_course_is_freshly_built() -> None:
    """course/ is what a build makes of solutions/ today."""
    found = build.stale()
    assert not found, f"run `make course` and commit what it writes; not fresh: {', '.join(found)}"


def test_a_file_says_what_it_is_in_its_first_line() -> None:
    """Every module of ours begins with a docstring."""
    silent = [where(p, 1) for n, p in modules() if not re.match(r"\d", p.stem) and ast.get_docstring(parsed(p)) is None]
    assert not silent, f"write in one line what goes in and what comes out: {', '.join(silent)}"


def test_what_is_public_is_explained() -> None:
    """Every public function and class of tinytrans has a docstring."""
    silent = [
        f"{where(path, node.lineno)} {node.name}"
        for name, path in modules()
        for node in parsed(path).body
        if within(name, "tinytrans") and isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and ast.get_docstring(node) is None and not overloads(node)
    ]
    assert not silent, "write one true sentence:\n" + "\n".join(silent)


def test_every_example_is_true() -> None:
    """What a docstring of the library shows is what comes out when it is run."""
    ran, failed = 0, []
    for name, _ in modules():
        if within(name, "tinytrans") and not name.endswith("__main__"):
            if name in ("tinytrans.plots", "tinytrans.widgets") and importlib.util.find_spec("ipywidgets") is None:
                continue  # pictures without their packages
            found = doctest.testmod(importlib.import_module(name))
            ran += found.attempted
            failed += [name] * bool(found.failed)
    assert not failed, f"run `python -m doctest` on {', '.join(failed)}"
    assert ran > 200


def overloads(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether a function is one of several signatures of another."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def test_no_file_is_heavy() -> None:
    """No committed file is over 1.5 MB but the trained models that come with the library, each under 5 MB."""
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size / MEGABYTE for path in kept()}
    limits = {name: 5 if re.fullmatch(r"tinytrans/checkpoints/\w+/model\.safetensors", name) else 1.5 for name in sizes}
    heavy = [f"{name} ({size:.1f} MB)" for name, size in sizes.items() if size > limits[name]]
    assert not heavy, f"make it smaller, or generate it: {', '.join(heavy)}"


def test_no_machine_is_named() -> None:
    """No committed file names a folder of somebody's machine, or the index that packages were fetched from."""
    folders = {str(place) for place in (ROOT, Path.home(), Path(sys.prefix)) if len(place.parts) > 1}
    places = "|".join(re.escape(f"{folder}/") for folder in sorted(folders))
    pattern = re.compile(
        rf"(?<![\w.])(?:{places})"
        r"|(?<![\w.])/(?:home|Users)/(?!(?:you|learner|student|jovyan)\b)\w+"
        r"|[Cc]:\\+Users|file:///\w|index[-_]url\s*[=:]|https?://\S+/simple\b"
    )
    found = []
    for path in kept():
        if path.is_relative_to(ROOT / "tests" / "attacks") or path == Path(__file__).resolve():
            continue  # attacks name the places that they would like to read
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").split("\n"), start=1):
            if hit := pattern.search(line):
                found.append(f"{where(path, number)}: {hit[0]}")
    assert not found, "write it relative to the repository, or leave it out:\n" + "\n".join(found)


def promised(readme: str) -> list[PurePosixPath]:
    """The entries of the README's tree, the fenced block with `tinytrans/` at a line's start, nested by indentation."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    tree = next((block for block in blocks if re.search(r"^tinytrans/", block, re.MULTILINE)), "")
    entries: list[PurePosixPath] = []
    above: list[tuple[int, PurePosixPath]] = []
    for line in tree.split("\n"):
        if found := re.match(r"( *)([\w.-]+/?)(?=\s{2,}|$)", line):
            indent = len(found[1])
            above = [(n, path) for n, path in above if n < indent]
            entry = (above[-1][1] if above else PurePosixPath()) / found[2].rstrip("/")
            entries.append(entry)
            above.append((indent, entry))
    return entries


def test_the_readme_shows_the_tree_as_it_is() -> None:
    """Each top-level entry stands in the README's tree, and each entry of the tree exists."""
    readme = ROOT / "README.md"
    entries = promised(readme.read_text(encoding="utf-8")) if readme.exists() else []
    if not entries:
        pytest.skip("README.md has no tree yet")
    top = {path.relative_to(ROOT).parts[0] for path in kept()}
    missing = sorted(name for name in top if not name.startswith(".") and PurePosixPath(name) not in entries)
    assert not missing, f"add to the tree in README.md: {', '.join(missing)}"
    gone = [str(entry) for entry in entries if not any(p.relative_to(ROOT).is_relative_to(entry) for p in kept())]
    assert not gone, f"take out of the tree in README.md, or write it: {', '.join(gone)}"


def test_a_tree_is_read_by_its_indentation() -> None:
    """The README's tree gives every entry with its folders before it."""
    tree = [
        "tinytrans/    the library",
        "  nn/          parts",
        "    masks.py   who looks where",
        "Makefile      commands",
    ]
    readme = "\n".join(["text", "```", *tree, "```", ""])
    assert [str(entry) for entry in promised(readme)] == [
        "tinytrans",
        "tinytrans/nn",
        "tinytrans/nn/masks.py",
        "Makefile",
    ]
