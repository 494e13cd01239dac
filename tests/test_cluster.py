"""A class on the workers of a Dask scheduler: the same verdicts, and a plain sentence where there is no cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_course import NAME, submit

from graders import signing
from graders.__main__ import main
from graders.autograde import JOURNAL, autograde
from graders.cluster import ClusterError, check, cluster
from graders.release import load

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed: the extra `cluster`")
TESTS = Path(__file__).parent
KNOWS_THE_TINY_LESSON = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from graders import checks
checks.__path__.append({str(TESTS / "tiny")!r})
"""
CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    about = {"dashboard_address": None, "preload": [sys.argv[1]], "local_directory": sys.argv[2]}
    with LocalCluster("127.0.0.1", n_workers=2, threads_per_worker=1, processes=True, **about) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, processes on this machine that know the tiny lesson."""
    place = tmp_path_factory.mktemp("dask")
    (place / "known.py").write_text(KNOWS_THE_TINY_LESSON)
    (place / "cluster.py").write_text(CLUSTER)
    command = [sys.executable, "-W", "ignore", str(place / "cluster.py"), str(place / "known.py"), str(place)]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    with (place / "log").open("w") as log:
        run = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert run.stdout is not None
        address = run.stdout.readline().strip()
        assert address, (place / "log").read_text()
        yield address
        run.communicate("")


@needs_dask
@pytest.mark.slow
def test_a_class_on_two_workers(tiny: Path, scheduler: str, tmp_path: Path) -> None:
    """The workers grade each submission once, broken ones too, and the verdicts are signed here."""
    release = load(tiny / "course" / NAME / f"{NAME}.ipynb")
    for i in range(4):
        submit(tiny, tmp_path / "in" / f"s{i}.ipynb", {"why": "why = 'a'"} if i == 1 else None)
    (tmp_path / "in" / "cut.ipynb").write_text("{")
    key = tmp_path / "key"
    graded = autograde(release, tiny, tmp_path / "in", tmp_path / "out", trust=True, dask=scheduler, key=key)
    assert {s: v["score"] for s, v in graded.verdicts.items()} == {"cut": 0, "s0": 8, "s1": 7, "s2": 8, "s3": 8}
    assert graded.errors == {}
    secret = signing.key(key)
    assert all(signing.genuine(v, student, NAME, secret) for student, v in graded.verdicts.items())
    assert (tmp_path / "out" / JOURNAL).read_text().count('"student"') == 5


@needs_dask
@pytest.mark.slow
def test_workers_that_see_other_files(scheduler: str, tmp_path: Path) -> None:
    """A worker that lacks the course or the submissions is named before anything is graded."""
    with pytest.raises(ClusterError, match=r"does not see .*nowhere"), cluster(scheduler, [tmp_path / "nowhere"]):
        pass


@needs_dask
def test_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address at which nothing answers ends in a sentence that names it."""
    monkeypatch.setattr("graders.cluster.PATIENCE", 0.2)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ClusterError, match=re.escape(address)), cluster(address):
            pass


def test_without_dask(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Dask is missing the command ends with 1 and the line that installs it, and grades nothing."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    submit(tiny, tmp_path / "in" / "ann.ipynb")
    command = ["autograde", "--course", str(tiny), "--assignment", NAME, "--submissions", str(tmp_path / "in")]
    assert main([*command, "--out", str(tmp_path / "out"), "--trust", "--dask", "tcp://127.0.0.1:8786"]) == 1
    assert 'pip install "tinytrans[cluster]"' in capsys.readouterr().err
    assert not (tmp_path / "out" / "verdicts.json").exists()


def test_every_worker_has_the_same_graders() -> None:
    """No workers at all, and one with another version of the graders, are told by name."""
    with pytest.raises(ClusterError, match="has no workers"):
        check("tcp://here", {})
    check("tcp://here", {"a": (signing.version(), [])})
    with pytest.raises(ClusterError, match="the worker b has version other"):
        check("tcp://here", {"a": (signing.version(), []), "b": ("other", [])})
