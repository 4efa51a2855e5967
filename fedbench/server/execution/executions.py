"""Executes one run at a time, and goes on with it where what executes it died.

A ServerApp that ends says how in its run's events. One that was killed, by itself or with the
executor, cannot: it is started again, and goes on after the last complete round. So does a run
that an earlier process of this server left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from fedbench.records import executing

AGAIN_SECONDS = 0.5
SERVER_DIED, SERVER_STOPPED = "the server's process died", "the server was stopped"

Start = Callable[[str], Awaitable[str | None]]

log = logging.getLogger("fedbench.server")


class BusyError(Exception):
    """The server executes another run, which the message names."""


class Executions:
    """Executes runs by their folders. For one event loop.

    `start(folder)` executes what is in a folder, and returns None once that completed, else why it
    did not; `ended(run)` is true of a run that said how it ended; `failed(run)` is told of one that
    could not, and is not started again. `project` is the server's.
    """

    def __init__(
        self,
        start: Start,
        ended: Callable[[str], bool],
        failed: Callable[[str], object],
        project: str,
    ) -> None:
        self._project = project
        self._start = start
        self._ended = ended
        self._failed = failed
        self._folder = Path()
        self._task: asyncio.Task[bool] | None = None

    async def execute(self, folder: Path) -> bool:
        """Execute a run, or wait for the end of it if that goes on; return whether it completed.

        Raises:
            BusyError: another one goes on.
            OSError: its folder is not there, or cannot be written to.
        """
        while self._task and not self._task.done():
            if self._ended(self._folder.name):  # all but its process
                await asyncio.wait([self._task])
            elif self._folder == folder:
                return await asyncio.shield(self._task)
            else:
                raise BusyError(self._folder.name)
        executing.begin(folder, self._project)
        return await asyncio.shield(self._begin(folder))  # it outlives whoever asked for it

    def go_on(self, runs: Path) -> None:
        """Go on with the run that an earlier process of this server was executing, if any."""
        folders = executing.all_executing(runs, self._project)
        for folder in folders[:-1]:
            executing.end(folder)
        for folder in folders[-1:]:
            log.warning("going on with run %s", folder.name)
            reason = SERVER_STOPPED if executing.was_put_down(folder) else SERVER_DIED
            self._begin(folder, reason)

    async def put_down(self) -> None:
        """Leave the run to the next process of this server: this one ends in order."""
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        with suppress(OSError):
            executing.put_down(self._folder)

    def _begin(self, folder: Path, died_of: str | None = None) -> asyncio.Task[bool]:
        self._folder = folder
        self._task = asyncio.create_task(self._execute(folder, died_of))
        return self._task

    async def _execute(self, folder: Path, died_of: str | None) -> bool:
        problem = died_of
        while problem is None or await self._may_go_on(folder, problem):
            problem = await self._attempt(folder)
            if problem is None or self._ended(folder.name):
                executing.end(folder)
                return problem is None
            log.error("run %s: %s", folder.name, problem)
            await asyncio.sleep(AGAIN_SECONDS)
        self._failed(folder.name)
        return False

    async def _may_go_on(self, folder: Path, problem: str) -> bool:
        try:
            return await run_in_threadpool(executing.went_on, folder, problem)
        except OSError as error:  # the disk is full, or the folder is gone
            log.error("run %s does not go on: %s", folder.name, error)
            executing.end(folder)
            return False

    async def _attempt(self, folder: Path) -> str | None:
        try:
            return await self._start(str(folder))
        except Exception as error:  # whatever it is, nothing executes the run any more
            log.exception("the run could not be executed")
            return f"{type(error).__name__}: {error}"
