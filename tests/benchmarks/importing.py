"""Starting up: a fresh interpreter imports -> seconds, the interpreter's own start among them."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from tests.benchmarks.measure import Contest

STATEMENTS = {
    "import tinytrans": "import tinytrans",
    "from tinytrans import GPT, fit, generate, ...": "from tinytrans import GPT, BPETokenizer, fit, generate",
    "import torch": "import torch",
}


def run(statement: str) -> None:
    """One interpreter, from its start to its end."""
    subprocess.run([sys.executable, "-c", statement], check=True)


def importing(quick: bool) -> Contest:
    """The front door, the front door with what one came for, and torch alone."""
    return Contest(
        name="import",
        unit="/s",
        amount=1,
        runs={name: partial(run, statement) for name, statement in STATEMENTS.items()},
        rounds=1 if quick else 7,
        target={"import torch": 1 / 1.2},
        warmup=not quick,
    )
