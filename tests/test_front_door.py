"""Laws of the front door: everything listed is there, nothing is fetched before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tinytrans

SOURCE = Path(tinytrans.__file__)
PROJECT = SOURCE.parents[1] / "pyproject.toml"


@pytest.mark.parametrize("name", tinytrans.__all__)
def test_every_listed_name_is_there(name: str) -> None:
    """Each listed name is the thing of that name in its module, and is fetched once."""
    thing = getattr(tinytrans, name)
    assert thing is getattr(tinytrans, name)
    assert thing is getattr(sys.modules[f"tinytrans.{tinytrans.HOMES[name]}"], name)


def test_names_are_sorted_and_few() -> None:
    """A newcomer can read the list: without repeats, about thirty; ruff keeps it sorted."""
    assert len(tinytrans.__all__) == len(set(tinytrans.__all__))
    assert 25 <= len(tinytrans.__all__) <= 40
    assert set(tinytrans.__all__) <= set(dir(tinytrans))


def test_type_checkers_see_the_same_names() -> None:
    """The imports written for type checkers are exactly the table that is used at run time."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    written = {
        alias.name: node.module.removeprefix("tinytrans.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tinytrans.")
        for alias in node.names
    }
    assert written == tinytrans.HOMES
    assert set(tinytrans.__all__) == set(tinytrans.HOMES)  # a list in so many words: a strict checker evaluates nothing


CLIENT = """
import torch
from tinytrans import GPT, PRESETS, GPTConfig, causal, fit, generate, window
from tinytrans.adapters import bitfit, lora, merge

model = GPT(PRESETS["tales"])
longer: torch.Tensor = generate(model, torch.tensor([[1, 2]]), max_new_tokens=3)
mask: torch.Tensor = causal(3) & window(3, 2)
adapted: GPT = merge(lora(model, rank=2))
biased: GPT = bitfit(GPT(GPTConfig(vocab_size=9, n_layers=1, d_model=8, n_heads=2, bias=True)))
"""


def test_a_strict_client_is_well_typed(tmp_path: Path) -> None:
    """What a user writes against the front door, as the README does, satisfies `mypy --strict`; a slip does not."""
    api = pytest.importorskip("mypy.api")
    for code, good in ((CLIENT, True), (CLIENT + "generate(model, 'Once', max_new_tokens=3)\n", False)):
        (tmp_path / "client.py").write_text(code)
        options = ["--strict", "--no-error-summary", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
        out, _, status = api.run([*options, str(tmp_path / "client.py")])
        assert (status == 0) == good, out


def test_an_unknown_name_is_an_attribute_error() -> None:
    """What is not listed is not there."""
    with pytest.raises(AttributeError, match="no attribute 'transformers'"):
        _ = tinytrans.transformers


def test_the_door_itself_is_light() -> None:
    """`import tinytrans` alone loads neither torch nor numpy nor any module of ours."""
    command = [sys.executable, "-c", "import sys, tinytrans; print(*sys.modules)"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SOURCE.parents[1])
    assert not [name for name in out.stdout.split() if name in ("torch", "numpy") or name.startswith("tinytrans.")]


@pytest.mark.skipif(not PROJECT.is_file(), reason="the installed package has no pyproject.toml")
def test_the_version_is_the_projects() -> None:
    """`__version__` is what pyproject.toml says."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    assert tinytrans.__version__ == project["version"]
