"""The container's first process: starts the one that trains, and outlives it.

When a container needs more memory than it may have, the kernel kills its largest process: the one
that trains. That one can tell nobody any more, and Flower's server would believe in it for another
minute; this one, small, tells the server at once.

A process that was killed for memory is started again in the same container, whose cgroup goes on
counting the kills. Whatever else it dies of ends the container, which Docker starts again. So does
a kill before it was connected: then the device is too small to take part, and `up` has to see it.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkProcess
from types import FrameType

from fedbench.client.settings import Settings
from fedbench.telemetry.cgroup import Cgroup

STOCK_POLL_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_fork = multiprocessing.get_context("fork")  # a second interpreter would cost time and memory

log = logging.getLogger("fedbench.client")


class Supervisor:
    """Runs `work` in a process of its own; `configure` makes the settings of each start."""

    def __init__(
        self, work: Callable[[Settings], int], configure: Callable[[], Settings], cgroup: Cgroup
    ) -> None:
        self._work = work
        self._configure = configure
        self._cgroup = cgroup
        self._worker: ForkProcess | None = None
        self._stopping = False

    def run(self) -> int:
        """Work until it is told to stop or the worker ended for good; return the exit code."""
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        while True:
            code, again = self._run_once()
            if self._stopping or not again:
                return code if code >= 0 else 128 - code

    def _run_once(self) -> tuple[int, bool]:
        """Return the exit code, and whether the worker was killed for memory as it took part."""
        settings, kills = self._configure(), self._cgroup.oom_kills()
        settings.ready.unlink(missing_ok=True)
        worker = self._start(settings)
        self._wait(worker, settings, kills)
        killed = self._cgroup.oom_kills() > kills
        if amid_work := settings.ready.exists():  # it said no goodbye
            # A connection after the first is another instance's.
            instance = settings.ready.read_text() or settings.instance
            settings.ready.unlink()
            self._report(replace(settings, instance=instance), worker.exitcode or 0, killed)
        if worker.is_alive():
            worker.terminate()
            worker.join()
        return worker.exitcode or 0, killed and amid_work

    def _start(self, settings: Settings) -> ForkProcess:
        worker = _fork.Process(target=_in_worker, args=(self._work, settings), name="worker")
        worker.start()
        self._worker = worker
        if self._stopping:  # told so in between
            worker.terminate()
        return worker

    def _wait(self, worker: ForkProcess, settings: Settings, kills: int) -> None:
        """Wait until the worker ends, or the stock node's own process for a message was killed."""
        if not settings.stock:
            worker.join()
        while worker.is_alive() and self._cgroup.oom_kills() == kills:
            worker.join(STOCK_POLL_SECONDS)

    def _report(self, settings: Settings, code: int, killed: bool) -> None:
        limit = self._cgroup.memory().limit if killed else None
        # In a process of its own: what it imports would stay beside the next worker's memory.
        reporter = _fork.Process(target=_tell, args=(settings, code, killed, limit), name="report")
        reporter.start()
        reporter.join()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._worker:
            self._worker.terminate()


def _tell(settings: Settings, code: int, killed: bool, limit: int | None) -> None:
    from fedbench.client.ending import report
    from fedbench.wire import Ending

    ending = Ending(exit_code=code, killed_for_memory=killed, memory_limit=limit)
    log.warning("%r: %s", ending, report(settings, ending))


def _in_worker(work: Callable[[Settings], int], settings: Settings) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # until it has its own
    sys.exit(work(settings))
