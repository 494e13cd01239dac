"""A JupyterLab of its own on a copy of the course, and the system's Chromium to look at it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "test-results"
PATIENCE = 300  # seconds until JupyterLab answers on a busy machine
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, also below the fold
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    """The system's Chromium without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: install the package `chromium` to run the browser tests")
    return {"executable_path": chromium, "headless": True, "args": ["--no-sandbox", "--disable-gpu"]}


@pytest.fixture(scope="session")
def browser_context_args() -> dict[str, Any]:
    """A page as wide as a small laptop's."""
    return {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="session")
def lab(browser_type_launch_args: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab on a copy of course/, with settings of its own and no token."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "course", home / "course")
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with served("jupyterlab", home / "course", home, "--expose-app-in-browser") as address:
        yield address


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """`served`, for tests that need a server of their own."""
    return served


@contextmanager
def served(module: str, root: Path, home: Path, *options: str) -> Iterator[str]:
    """The address of a Jupyter server on the folder `root`: here alone, without a token or a window."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", module, "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--ServerApp.root_dir={root}", "--ServerApp.port_retries=0", "--IdentityProvider.token=", *options]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=surroundings(home), stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        if not answers(f"{address}/api/status", server):
            pytest.fail(f"{module} did not start:\n{(home / 'log').read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def surroundings(home: Path) -> dict[str, str]:
    """The environment of JupyterLab: nothing of the user's own settings, and this repository to import from."""
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return os.environ | {name: str(home / folder) for name, folder in folders.items()} | {"PYTHONPATH": str(ROOT)}


def answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    """Whether the server answers before patience ends."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    return False


@pytest.fixture
def picture(page: Page) -> Callable[[str], Path]:
    """Save what the page shows under test-results/."""

    def save(name: str) -> Path:
        PICTURES.mkdir(exist_ok=True)
        path = PICTURES / f"{name}.png"
        page.screenshot(path=path)
        return path

    return save
