"""Watches over what a run needs, and brings back what Docker does not.

Docker starts a container again whose process died, but none that was killed by `docker kill`, and
none after a `docker stop`. The run's governor watches, as it lives as long as the run; `Guard`
watches over the governor.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.errors import InUseError, RunError
from fedbench.host.setup.locks import federation_lock
from fedbench.host.watch.vigil import GOVERNOR_LOG, is_watched
from fedbench.records import executing
from fedbench.records.events import append_event
from fedbench.records.runs import Run

WATCHED = ("server", "prometheus", "grafana")
MOST_STARTS = 3
STARTS_SECONDS = 600.0
AWAY_SECONDS = 180.0
GUARD_SECONDS = 2.0
MOST_GOVERNORS = 5
_GOVERNOR = "fedbench.engines.containers.governor"


class Watcher:
    """Brings back a run's server and monitoring, and ends the run where that does not help.

    A client that was stopped is nobody's business: its owner may want it so.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._starts: defaultdict[str, list[float]] = defaultdict(list)
        self._away_since: float | None = None

    def look(self, containers: Containers, services: Mapping[str, Container]) -> None:
        """Bring back what ended.

        Raises:
            DockerError: it cannot be started.
        """
        server = services.get("server")
        if server and server.is_running:
            self._away_since = None
        else:
            self.miss(f"the server is {server.status if server else 'gone'}")
        for name in WATCHED:
            if (container := services.get(name)) and container.status in ("exited", "dead"):
                self._bring_back(containers, container)

    def miss(self, what: str) -> None:
        """Note that the run cannot go on now; after three minutes of that it has failed."""
        now = self._clock()
        self._away_since = self._away_since or now
        if now - self._away_since > AWAY_SECONDS:
            self._give_up(f"{what}, for {AWAY_SECONDS:.0f} s")

    def _bring_back(self, containers: Containers, container: Container) -> None:
        name, now = container.service, self._clock()
        recent = [start for start in self._starts[name] if now - start < STARTS_SECONDS]
        if len(recent) >= MOST_STARTS:
            if name == "server":
                self._give_up(f"the server does not stay up ({_how(container)})")
            return
        # Whoever takes the federation down, or brings it up anew, knows what he does.
        with suppress(InUseError), federation_lock():
            if self._run.has_ended() or containers.look(container).is_running:
                return
            self._starts[name] = [*recent, now]
            containers.start_again(container)
            append_event(self._run.path, "revived", service=name, reason=_how(container))

    def _give_up(self, reason: str) -> None:
        with suppress(InUseError), federation_lock():
            if self._run.is_executing():
                executing.fail(self._run.path, f"{reason}; RESUME goes on")


def _how(container: Container) -> str:
    why = "killed for memory" if container.killed_for_memory else f"exit code {container.exit_code}"
    return f"container {container.name} had ended: {why}"


class Guard:
    """Starts a run's governor, and again where it died: nothing else brings containers back."""

    def __init__(self, run: Run, launch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._launch = launch
        self._clock = clock
        self._started = 0
        self._next = 0.0
        self._start()

    def ensure(self) -> None:
        """Start it if nobody watches over the run.

        Raises:
            RunError: it died again and again.
        """
        if self._clock() < self._next:
            return
        if is_watched(self._run):
            self._next = self._clock() + GUARD_SECONDS
            return
        if self._started == MOST_GOVERNORS:
            where = self._run.path / GOVERNOR_LOG
            raise RunError(f"nobody can watch over run {self._run.id}", f"{where} shows why")
        self._start()

    def _start(self) -> None:
        govern(self._run, self._launch)
        self._started += 1
        self._next = self._clock() + 5 * GUARD_SECONDS  # it has to import


def govern(run: Run, launch: int) -> None:
    """Start the run's governor, which outlives this process where the run does.

    `launch` is the process that started the run.
    """
    governor = [sys.executable, "-m", _GOVERNOR, str(run.path), str(launch)]
    with (run.path / GOVERNOR_LOG).open("ab") as log:
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", *governor],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
