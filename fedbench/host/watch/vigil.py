"""Who watches over a run: its governor, known by a lock that ends with its process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fedbench.host.setup.locks import locked
from fedbench.records.runs import Run

GOVERNOR_LOG = "governor.log"
_TRIES = 5  # whoever asks has the lock for a moment


@contextmanager
def watching(run: Run) -> Iterator[None]:
    """Be known to watch over the run while the block lasts.

    Raises:
        BlockingIOError: another process does so.
    """
    log = run.path / GOVERNOR_LOG
    log.touch()
    for _ in range(_TRIES):
        if not is_watched(run):
            break
        time.sleep(0.1)
    with locked(log, wait=False):
        yield


def is_watched(run: Run) -> bool:
    """Return whether a process watches over the run."""
    try:
        with locked(run.path / GOVERNOR_LOG, shared=True, wait=False):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
