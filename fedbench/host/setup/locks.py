"""Locks between processes: each ends with its process, however that ends.

`locked` is a lock of a file or folder that is there. `exclusive` has a file of its own, which says
who holds it; that file stays, for whoever waits at it must not wait at another.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from fedbench.errors import InUseError
from fedbench.host.say import Say
from fedbench.host.setup.places import PROJECT

# Of the host, not of a checkout: Docker knows a federation by its project's name alone. Who may not
# write there has a folder of his own.
FOLDER = (
    Path("/run/fedbench")
    if os.access("/run", os.W_OK)
    else Path(tempfile.gettempdir()) / f"fedbench-{os.getuid()}"
)
_POLL_SECONDS = 0.05
_NAMELESS_SECONDS = 1.0  # a holder writes its name a moment after it has the lock

_ours: set[Path] = set()


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


@contextmanager
def exclusive(file: Path, where: str, say: Say | None = None) -> Iterator[None]:
    """Hold a lock file alone; within a block that holds it already, in this process, just go on.

    `where` says what the file stands for, such as `on this host`. With `say`, say who holds it,
    and wait.

    Raises:
        InUseError: another process holds it, and there is no `say`.
    """
    if file in _ours:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _acquire(lock, file, where, say)
        with _named(lock, file):
            yield
    finally:
        os.close(lock)


@contextmanager
def _named(lock: int, file: Path) -> Iterator[None]:
    """Let the file say who holds it; nobody does without, for `down` has to work on a full disk."""
    os.ftruncate(lock, 0)  # who was killed left its name
    with suppress(OSError):
        os.pwrite(lock, json.dumps(asdict(_this_process())).encode(), 0)
    _ours.add(file)
    try:
        yield
    finally:
        _ours.remove(file)
        os.ftruncate(lock, 0)


def federation_lock(say: Say | None = None) -> AbstractContextManager[None]:
    """Keep other commands from changing the federation; with `say`, wait for one that does.

    Raises:
        InUseError: another one changes it right now, and there is no `say`.
    """
    return exclusive(FOLDER / f"federation-{PROJECT}.lock", "on this federation", say)


def host_lock(say: Say | None = None) -> AbstractContextManager[None]:
    """Keep others from what all checkouts share: Docker and its images, and cores to measure.

    Raises:
        InUseError: another works on it right now, and there is no `say`, with which this waits.
    """
    return exclusive(FOLDER / "host.lock", "on this host", say)


@dataclass(frozen=True)
class LockHolder:
    """Who holds a lock: a process, its command line, and the time since when, as ISO 8601.

    `created` is when the process began, by which it is told from a later one of the same pid.
    """

    pid: int
    created: float
    command: str
    since: str

    def __str__(self) -> str:
        since = datetime.fromisoformat(self.since).astimezone()
        today = datetime.now().astimezone().date()
        when = f"{since:%H:%M}" if since.date() == today else f"{since:%Y-%m-%d %H:%M}"
        return f"`{self.command}` (pid {self.pid}, since {when})"


def holder(file: Path) -> LockHolder | None:
    """Return who holds a lock file; None while the file does not say, or of one that has ended."""
    try:
        named = LockHolder(**json.loads(file.read_bytes()))
        datetime.fromisoformat(named.since)
        alive = psutil.Process(named.pid).create_time() == named.created
    except (OSError, ValueError, TypeError, OverflowError, psutil.Error):
        return None
    return named if alive else None


def _this_process() -> LockHolder:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return LockHolder(os.getpid(), psutil.Process().create_time(), command, now)


def _acquire(lock: int, file: Path, where: str, say: Say | None) -> None:
    told, nameless = "", time.monotonic() + _NAMELESS_SECONDS
    while not _try(lock):
        named = holder(file)
        if named or time.monotonic() > nameless:
            others = f"another fedbench works {where}" + (f": {named}" if named else "")
            if say is None:
                raise InUseError(others, _hint(named))
            if others != told:
                say(f"waiting: {others}")
                told = others
        time.sleep(_POLL_SECONDS)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _hint(named: LockHolder | None) -> str:
    return "wait for it" + (f", or end it: kill -INT {named.pid}" if named else "")
