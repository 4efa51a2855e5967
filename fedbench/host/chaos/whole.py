"""What can become of a whole computer or federation, and of who watches over a run."""

from __future__ import annotations

import psutil

from fedbench.engines.containers import teardown
from fedbench.errors import HostError
from fedbench.host.chaos.victim import Fault
from fedbench.host.setup.locks import federation_lock
from fedbench.records.runs import Run

_GOVERNOR = "fedbench.engines.containers.governor"


class Clock(Fault):
    """The clock jumps, which it does for a whole computer and for no container alone."""

    def impossible(self) -> str | None:
        """Say so."""
        return "a container has its host's clock; tests/server has clocks that jump"


class Unwatch(Fault):
    """`kill -9` of the run's governor, a process of the host."""

    _run: Run

    def prepare(self, run: Run) -> None:
        """Know the run."""
        self._run = run

    def look(self) -> None:
        """Take note of the process that is there."""
        self._killed = self._governors()

    def begin(self) -> None:
        """Do it."""
        if not self._killed:
            raise HostError(f"nobody watches over run {self._run.id}")
        for process in self._killed:
            process.kill()

    def noticed(self) -> str | None:
        """Say that another watches in its place."""
        return "it is started again" if set(self._governors()) - set(self._killed) else None

    def _governors(self) -> list[psutil.Process]:
        """Return the host's processes that govern the run."""
        asked = {_GOVERNOR, str(self._run.path)}
        listed = psutil.process_iter(["cmdline"])
        return [each for each in listed if asked <= set(each.info["cmdline"] or ())]


class Down(Fault):
    """`fedbench down`, in mid-run."""

    def begin(self) -> None:
        """Do it."""
        with federation_lock():
            teardown.down(self.victim.stack.places, lambda _: None, volumes=False)
