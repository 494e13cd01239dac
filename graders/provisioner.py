"""A Jupyter kernel in bubblewrap, for plain nbgrader: no network but its own loopback, no home, no course folder.

`python -m graders.provisioner` installs the kernel `tinytrans-sandbox`; then `nbgrader autograde LESSON
--Execute.kernel_name=tinytrans-sandbox`. It keeps code away from the machine; what a cell says of itself it still says
of itself: nbgrader reads the scores from its outputs. `graders autograde` never does.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner

from graders.confine import call_filter
from graders.levels import HERE, NOBODY, Box, IsolationError, bwrap_around, missing

NAME = "tinytrans-sandbox"
INSIDE, FILE = "/sockets", "connection.json"
TMPFS = 256 << 20  # bytes of each folder that the kernel can write to
# Unix sockets, and what ipykernel needs of its own loopback; netlink is how libzmq asks for its interfaces.
FAMILIES = (1, 2, 10, 16)
BOOT = (
    "import sys, runpy; sys.path[:0] = sys.argv[1].split('|'); from graders.confine import within_kernel; "
    "within_kernel(sys.argv[2]); sys.argv = ['ipykernel_launcher', '-f', sys.argv[3]]; "
    "runpy.run_module('ipykernel_launcher', run_name='__main__')"
)


def kernel_box(folder: Path) -> Box:
    """The command of a kernel that speaks through sockets in `folder`, which it may fill with nothing else."""
    library = find_spec("tinytrans")  # shown, and not imported here
    assert library is not None
    assert library.origin is not None
    shown = [(str(path), f"/course/{path.name}") for path in (HERE, Path(library.origin).parent)]
    return bwrap_around(
        BOOT, [INSIDE, f"{INSIDE}/{FILE}"], TMPFS, search=["/course"], shown=shown, shared=[(str(folder), INSIDE)],
        program=call_filter(families=FAMILIES),
    )  # fmt: skip


class Sandboxed(LocalProvisioner):
    """Starts the kernel in its box. Raises IsolationError where bubblewrap cannot be had."""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """The kernel's command and files: sockets in a folder of its own take the place of ports."""
        if why := missing():
            raise IsolationError(why)
        self.folder = Path(tempfile.mkdtemp(prefix="kernel-"))
        manager = cast(KernelManager, self.parent)
        manager.transport, manager.ip = "ipc", str(self.folder / "k")
        manager.connection_file = str(self.folder / "ours.json")
        kwargs = await super().pre_launch(**kwargs)
        told = json.loads(Path(manager.connection_file).read_text()) | {"ip": f"{INSIDE}/k"}
        with open(os.open(self.folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(told, file)
        if os.geteuid() == 0:
            for path in (self.folder, self.folder / FILE):
                os.chown(path, NOBODY, NOBODY)
        self.box = kernel_box(self.folder)
        return kwargs | {
            "cmd": list(self.box.command), "env": self.box.environment, "cwd": "/", "pass_fds": self.box.files,
        }  # fmt: skip

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start it; our copies of what it inherits are closed."""
        try:
            return await super().launch_kernel(cmd, **kwargs)
        finally:
            for fd in self.box.files:
                os.close(fd)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove its sockets. A kernel that starts again gets a folder of its own."""
        await super().cleanup(restart)
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    """Install the kernel beside those of this environment."""
    spec = {
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python in a sandbox", "language": "python", "interrupt_mode": "message",
        "metadata": {"kernel_provisioner": {"provisioner_name": NAME}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.json").write_text(json.dumps(spec, indent=1))
        os.chmod(folder, 0o755)
        where = KernelSpecManager().install_kernel_spec(folder, NAME, prefix=sys.prefix)
    print(f"{where}: nbgrader autograde LESSON --Execute.kernel_name={NAME}")


if __name__ == "__main__":
    main()
