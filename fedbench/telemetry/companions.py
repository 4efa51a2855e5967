"""The clients of one computer: how many are busy now, and what part of its time is whose.

They have a folder in common, and the clock of the one kernel that runs them all. While k of them
are busy each has 1/k of a second per second, so that no second of the computer counts twice. A
client alone on its computer needs no folder: all of its work's seconds are its own.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("/device")  # of a container; the plan mounts it where a computer has several clients
_STATE = struct.Struct("ddd")  # a reading's `always` and `now`, and how many were busy then


@dataclass
class Turn:
    """`share` is the part of its computer that a client had while it was busy: 1 alone."""

    share: float = 1.0


class BusyTime(NamedTuple):
    """A client's part of its busy time so far, in seconds; `active` are busy now, it included."""

    seconds: float
    active: int


class _Reading(NamedTuple):
    """A look at the common clock, at `now`.

    `always` are the seconds that would belong to a client which was busy all the time. `others` are
    busy now, apart from the client that reads.
    """

    now: float
    always: float
    others: int = 0


class Companions:
    """A file for each client in their folder, locked while it is busy; `clock` is one for them all.

    A lock ends with its process, so that a client that is killed counts no longer.
    """

    def __init__(
        self, folder: Path, client: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._mine = folder / f"{client}.busy"
        self._clock = clock
        self._lock = threading.Lock()  # busy in the client's thread, asked by a scrape
        self._done = 0.0
        self._began: _Reading | None = None

    @contextmanager
    def busy(self) -> Iterator[Turn]:
        """Count among the busy clients within the block; after it the turn has its share."""
        turn = Turn()
        try:
            with self._counted():
                self._begin()
                try:
                    yield turn
                finally:
                    turn.share = self._end()
        finally:
            self._read()  # from now on the others have more

    def active(self) -> int:
        """Return how many are busy now, this client taken to be."""
        return 1 + self._others()

    def usage(self) -> BusyTime:
        """Return this client's part of its busy time so far, and how many are busy."""
        with self._lock:
            now = self._read()
            mine = self._done + (now.always - self._began.always if self._began else 0.0)
        return BusyTime(mine, 1 + now.others)

    def _begin(self) -> None:
        with self._lock:
            self._began = self._read()

    def _end(self) -> float:
        """Return the share of the busy time that is over."""
        with self._lock:
            assert self._began is not None  # noqa: S101 (it began)
            began, ended = self._began, self._read()
            self._done += ended.always - began.always
            self._began = None
        seconds = ended.now - began.now
        return (ended.always - began.always) / seconds if seconds else 1.0

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if not self._folder.is_dir():
            yield
            return
        with self._mine.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> _Reading:
        """Settle the time until now for all clients, by the number that was busy then.

        A client reads after it is counted and before it no longer is: so all its time counts it.
        """
        if not self._folder.is_dir():
            now = self._clock()
            return _Reading(now, now)
        descriptor = os.open(self._folder / "seconds", os.O_RDWR | os.O_CREAT, 0o666)
        with open(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            always, since, busy = _STATE.unpack(file.read(_STATE.size) or bytes(_STATE.size))
            now = self._clock()
            always += (now - since) / busy if busy else 0.0
            others = self._others()
            file.seek(0)
            file.write(_STATE.pack(always, now, others + _locked(self._mine)))
        return _Reading(now, always, others)

    def _others(self) -> int:
        """Count the busy clients apart from this."""
        return sum(_locked(path) for path in self._folder.glob("*.busy") if path != self._mine)


def _locked(path: Path) -> bool:
    with suppress(OSError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
