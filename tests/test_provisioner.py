"""A notebook executed by nbclient in the sandboxed kernel: it runs, and reaches nothing of this machine."""

from __future__ import annotations

import json
import os
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from boxes import needs_box
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from nbclient import NotebookClient
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
