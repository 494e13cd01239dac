"""Fixtures: a course of one tiny lesson, made anew for each module of tests, and a box that they share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graders import checks

torch.set_num_threads(1)  # tensors this small gain nothing from a second thread, and lose much where others compute

TINY = Path(__file__).parent / "tiny"


@pytest.fixture(scope="session", autouse=True)
def _key_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests sign with a key of their own, not with the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a course that consists of the lesson `tiny`, whose tables are in tests/tiny/."""
    from tiny_course import build

    checks.__path__.append(str(TINY))
    root = tmp_path_factory.mktemp("course")
    build(root)
    yield root
    checks.__path__.remove(str(TINY))
    sys.modules.pop("graders.checks.tiny", None)
