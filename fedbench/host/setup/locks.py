"""Locks between processes, on files and folders: each ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock of what is at `path`, alone or together with others who share it.

    Raises:
        FileNotFoundError: nothing is there.
        BlockingIOError: others hold it, and this was not to `wait`.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, kind if wait else kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
