"""The address of a Dask scheduler -> an executor whose workers grade. They see the same files, by the same paths.

Only jobs travel, paths and hashes, and verdicts come back. The scheduler and the workers are trusted: a verdict is
signed here, when it arrives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from graders import signing

PATIENCE = 10  # seconds for the scheduler to answer
INSTALL = f'{sys.executable} -m pip install "tinytrans[cluster]"'


class ClusterError(Exception):
    """The cluster cannot be used; the message says why, and what mends it."""


@contextmanager
def cluster(address: str, files: Sequence[Path] = ()) -> Iterator[Executor]:
    """Within, an executor over the workers of the scheduler at `address`, such as tcp://10.0.0.1:8786.

    Raises ClusterError where Dask is missing, no scheduler answers, it has no workers, or one of them runs another
    version of the graders or does not see one of the `files`.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(f"--dask needs the package distributed, which is not installed: {INSTALL}") from error
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        try:
            found = client.run(look, [str(path) for path in files])
        except Exception as error:  # whatever a worker raises comes through
            raise ClusterError(f"the workers at {address} cannot run the graders: {error}") from error
        check(address, found)
        with client.get_executor(pure=False) as executor:  # the same job twice is two jobs
            yield executor


def look(files: Sequence[str]) -> tuple[str, list[str]]:
    """On a worker: the graders' version, and which of these files are not there."""
    return signing.version(), [path for path in files if not Path(path).exists()]


def check(address: str, workers: dict[str, tuple[str, list[str]]]) -> None:
    """Raise ClusterError where there are no workers, or they would not grade as this process does."""
    if not workers:
        raise ClusterError(f"the scheduler at {address} has no workers: dask worker {address}")
    for worker, (version, unseen) in workers.items():
        if version != (own := signing.version()):
            raise ClusterError(f"the worker {worker} has version {version} of the graders, and this is {own}")
        if unseen:
            raise ClusterError(
                f"the worker {worker} does not see {', '.join(unseen)}: use a folder that all machines share"
            )
