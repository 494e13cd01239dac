"""A notebook executed by nbclient in the sandboxed kernel: it runs, and reaches nothing of this machine."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import nbformat
import pytest
from boxes import needs_box
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from graders import provisioner
from graders.watch import below

pytestmark = needs_box
ROOT = Path(__file__).parents[1]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the kernel, installed for this test."""
    monkeypatch.setattr(provisioner.sys, "prefix", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    provisioner.main()
    entry = EntryPoint(provisioner.NAME, "graders.provisioner:Sandboxed", "jupyter_client.kernel_provisioners")
    monkeypatch.setitem(KernelProvisionerFactory.instance().provisioners, provisioner.NAME, entry)
    return provisioner.NAME


ESCAPES = f"""
import os, socket
def can(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True
def connect():
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.connect(("1.1.1.1", 53))
open("/tmp/own", "w").close()
reached = [can(connect), can(lambda: socket.socket(40)), os.path.exists({str(ROOT / "solutions")!r}),
           os.path.exists({str(ROOT / "course")!r}), os.path.exists({str(Path.home() / ".profile")!r}),
           os.path.exists("/etc/passwd"),
           can(lambda: open("/usr/x", "w")), can(lambda: open("/sockets/x", "w")), os.getuid() == 0,
           "SECRET" in os.environ]
print(reached)
"""


def test_a_notebook_runs_and_reaches_nothing(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run with torch and the course's packages; network, home, course and files of the machine are not there."""
    monkeypatch.setenv("SECRET", "x")
    check = "import torch, tinytrans\nfrom graders.check import check\nprint(torch.ones(2).sum().item())"
    notebook = new_notebook(cells=[new_code_cell(check), new_code_cell(ESCAPES)])
    NotebookClient(notebook, kernel_name=kernel, timeout=120, startup_timeout=120).execute()
    assert [cell.outputs[0].text for cell in notebook.cells] == ["2.0\n", f"{[False] * 10}\n"]


def test_a_kernel_ends_with_all_that_it_started(kernel: str) -> None:
    """Killed or shut down, it leaves no process and no folder."""
    before = set(below(os.getpid()))
    manager = KernelManager(kernel_name=kernel)
    manager.start_kernel()
    folder = Path(manager.connection_file).parent
    assert json.loads(Path(manager.connection_file).read_text())["transport"] == "ipc"
    with_kernel = set(below(os.getpid())) - before
    assert with_kernel
    manager.shutdown_kernel(now=True)
    until = time.monotonic() + 20
    while set(below(os.getpid())) & with_kernel and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(below(os.getpid())) & with_kernel
    assert not folder.exists()


def _cell(source: str, name: str, **role: object) -> NotebookNode:
    given = {"grade_id": name, "schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    return new_code_cell(source, metadata={"nbgrader": given | role})


def _assignment(double: str, halve: str) -> NotebookNode:
    answer = "def {}(x):\n    ### BEGIN SOLUTION\n    {}\n    ### END SOLUTION"
    cells = [
        _cell(answer.format("double", double), "double", solution=True),
        _cell("assert double(2) == 4", "check_double", grade=True, locked=True, points=3),
        _cell(answer.format("halve", halve), "halve", solution=True),
        _cell("assert halve(3) == 1.5", "check_halve", grade=True, locked=True, points=2),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


@pytest.mark.slow
def test_plain_nbgrader_in_the_sandbox(kernel: str, tmp_path: Path) -> None:
    """Stock `nbgrader autograde` grades in the sandbox by the option that its help names, and its folders stay whole.

    None of our configuration is read; the one submission that removes the course's folder finds none.
    """
    root = tmp_path / "course"
    rob = f"import shutil; shutil.rmtree({str(root)!r}, ignore_errors=True); open({str(root / 'mine')!r}, 'w')"
    notebooks = {
        "source/ps1": _assignment("return x + x", "return x / 2"),
        "submitted/right/ps1": _assignment("return x + x", "return x / 2"),
        "submitted/wrong/ps1": _assignment("return x", "return x / 2"),
        "submitted/hostile/ps1": _assignment("return x + x", rob),
    }
    for folder, notebook in notebooks.items():
        (root / folder).mkdir(parents=True)
        nbformat.write(notebook, root / folder / "ps1.ipynb")
    environment = {k: v for k, v in os.environ.items() if k != "JUPYTER_CONFIG_PATH"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment["PYTHONPATH"] = str(ROOT)
    autograde = ["autograde", "ps1", f"--Execute.kernel_name={kernel}"]
    for command in (["generate_assignment", "ps1"], autograde, ["export"]):
        ran = subprocess.run(
            [sys.executable, "-m", "nbgrader", *command],
            cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    with open(root / "grades.csv", newline="") as file:
        scores = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert scores == {"right": 5, "wrong": 2, "hostile": 3}
    assert (root / "source" / "ps1" / "ps1.ipynb").is_file()
    assert not (root / "mine").exists()
