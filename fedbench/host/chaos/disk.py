"""A disk that fills while a run goes on: the run's folder is on a small one of its own."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedbench.engines.containers.runtime.compose import run as run_command
from fedbench.errors import DockerError
from fedbench.host.chaos.scenario import Scenario
from fedbench.host.chaos.victim import Fault, Victim
from fedbench.records.runs import Run

_SIZE = "64m"
_FILLER = "filler"
_PIECE = bytes(2**20)


class DiskFull(Fault):
    """The run's folder has no room left until `end`.

    The server sees the small disk once it is started again, which `prepare` does.
    """

    disturbs = True

    def __init__(self, scenario: Scenario, victim: Victim) -> None:
        super().__init__(scenario, victim)
        self._folder: Path | None = None

    def impossible(self) -> str | None:
        """Say that no disk can be mounted."""
        if os.geteuid() != 0 or not self.victim.containers.local:
            return "only root on the containers' own machine can mount a small disk"
        try:
            with tempfile.TemporaryDirectory() as folder, _mounted(Path(folder)):
                return None
        except DockerError as error:
            return f"no small disk can be mounted: {error.message}"

    def prepare(self, run: Run) -> None:
        """Put the run's folder on a disk of its own."""
        with tempfile.TemporaryDirectory() as kept:
            shutil.copytree(run.path, kept, dirs_exist_ok=True)
            _mount(run.path)
            self._folder = run.path
            shutil.copytree(kept, run.path, dirs_exist_ok=True)
        run.path.chmod(0o755)
        self.victim.docker("restart", "--time", "5")

    def begin(self) -> None:
        """Fill it."""
        with suppress(_Full), self._filler().open("wb", buffering=0) as file:
            while True:
                _write(file.fileno())

    def end(self) -> None:
        """Make room."""
        if self._folder is not None:
            self._filler().unlink(missing_ok=True)

    def clear(self) -> None:
        """Keep what is in the folder, without the disk."""
        if self._folder is None:
            return
        folder, self._folder = self._folder, None
        with tempfile.TemporaryDirectory() as kept:
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            _unmount(folder)
            shutil.copytree(kept, folder, dirs_exist_ok=True)

    def _filler(self) -> Path:
        assert self._folder is not None  # noqa: S101 (prepared)
        return self._folder / _FILLER


class _Full(Exception):  # noqa: N818 (what was wanted)
    """The disk is full."""


def _write(descriptor: int) -> None:
    try:
        os.write(descriptor, _PIECE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from None


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    _mount(folder)
    try:
        yield
    finally:
        _unmount(folder)


def _mount(folder: Path) -> None:
    run_command(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "fedbench-chaos", str(folder)])


def _unmount(folder: Path) -> None:
    run_command(["umount", "--lazy", str(folder)])
