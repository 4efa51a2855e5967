"""Corrects the quotas of a run's clients until each keeps its device's pace, and says what it did.

`python -m fedbench.engines.containers.governor RUN-FOLDER PID` runs beside a run, detached or not,
and ends with it; PID is the process that started the run. Calibration says what a device takes of
the host; this sees what it takes in fact: a client that is late and uses its quota up gets more, as
far as the host has any, and what it needs no more is taken back. What clients tell the server of
their pace is in the run's folder: no monitoring is needed to govern. Each correction is a line of
`corrections.jsonl`. Living as long as the run does, it watches over what the run needs
(`watcher.py`), renews quotas and networks of containers that started again, reads the host's energy
counters, and keeps at the end what the containers logged.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from fedbench.engines.containers import startup
from fedbench.engines.containers.runtime import daemon, links
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.containers.watcher import Watcher
from fedbench.errors import DockerError, FedbenchError
from fedbench.host.plan.plan import ClientPlan
from fedbench.host.plan.shares import MARGIN
from fedbench.host.setup import bootstrap
from fedbench.host.setup.locks import federation_lock
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.host.watch.log_sources import Sources
from fedbench.host.watch.vigil import watching
from fedbench.records import pacing
from fedbench.records.lines import append_line
from fedbench.records.pacing import Pacing
from fedbench.records.quota_corrections import FILE, Correction
from fedbench.records.runs import Run
from fedbench.telemetry import rapl

TICK_SECONDS = 4.0  # clients say every 5 how they do
LATE_SECONDS = 0.2  # a client that is less behind catches up by itself
_USED_UP = 0.9
_STEP = 1.25
_TRAINING = 0.9  # of a tick: a client that trained for less says nothing of its quota


@dataclass(frozen=True)
class Observation:
    """A tick of training: how many seconds a client is late, and the CPUs that it used."""

    late: float
    used: float


def observe(before: Pacing, after: Pacing) -> Observation | None:
    """Say what became of a client between two statements; None where it hardly trained.

    A client that started again has done less than before, which says nothing, either.
    """
    seconds = after.wall - before.wall
    if seconds <= 0 or after.training - before.training < _TRAINING * seconds:
        return None
    return Observation(after.late, (after.cpu - before.cpu) / seconds)


def together(observations: Sequence[Observation]) -> Observation:
    """Say what became of a computer, from what became of its clients."""
    return Observation(max(o.late for o in observations), sum(o.used for o in observations))


def corrected(quota: float, seen: Observation, least: float, most: float) -> float:
    """Return the quota that a computer should have, in CPUs.

    It is raised to `most` at most, and what was added is taken back down to `least`, the plan's:
    a host that is fast now may be slow again before the next tick.
    """
    if seen.late > LATE_SECONDS:
        # Late without using it up: the host is too busy, and a larger quota would not help.
        return max(quota, min(quota * _STEP, most)) if seen.used > _USED_UP * quota else quota
    enough = max(seen.used * MARGIN, least)
    return enough if enough < _USED_UP * quota else quota


class Governor:
    """Looks at each tick, and corrects."""

    def __init__(
        self,
        clients: Sequence[ClientPlan],
        quotas: Callable[[], Quotas],
        paces: Callable[[], Mapping[str, Pacing]],
        cpus: float,
    ) -> None:
        self._computers = {client.name: client.computer for client in clients}
        self._planned = {client.computer: client.cpus for client in clients}
        self._threads = Counter[str]()
        for client in clients:
            self._threads[client.computer] += client.threads
        self._quotas = quotas
        self._paces = paces
        self._cpus = cpus
        self._before: dict[str, Pacing] = {}

    def tick(self) -> list[Correction]:
        """Correct what has to be, and return what was corrected."""
        seen = self._look()
        control = self._quotas()
        quotas = control.in_force()
        made = []
        for computer in seen.keys() & quotas.keys():
            quota, observation = quotas[computer], together(seen[computer])
            free = self._cpus - sum(quotas.values())
            most = min(quota + free, self._threads[computer])
            new = corrected(quota, observation, self._planned[computer], most)
            if new != quota:
                control.correct(computer, new)
                quotas[computer] = new
                stamp = datetime.now(UTC).isoformat(timespec="seconds")
                made.append(Correction(stamp, computer, quota, new, **asdict(observation)))
        return made

    def _look(self) -> dict[str, list[Observation]]:
        """Return what became of the clients of each computer, of those that said something new."""
        seen = defaultdict(list)
        paces = self._paces()
        for client in paces.keys() & self._computers.keys():
            after = paces[client]
            before = self._before.get(client, after)
            self._before[client] = after
            if observation := observe(before, after):
                seen[self._computers[client]].append(observation)
        return seen


class Vigil:
    """What is done at each tick, beside a run, whatever becomes of Docker meanwhile."""

    def __init__(self, run: Run, stack: Stack) -> None:
        self._run = run
        self._stack = stack
        self._meter = rapl.HostEnergyMeter(run.path)
        self._watcher = Watcher(run)
        self._containers: Containers | None = None
        self._governor: Governor | None = None
        self._starts: startup.Starts = frozenset()

    def tick(self) -> None:
        """Bring back, shape, govern: what fails is printed, and tried again at the next tick."""
        with _going_on():
            self._meter.tick()
        try:
            containers = self._containers = self._containers or _docker()
            services = self._stack.services(containers)
        except FedbenchError as error:
            print(error.message, file=sys.stderr)  # noqa: T201 (into its own log)
            self._watcher.miss("Docker does not answer")
            return
        with _going_on():
            self._watcher.look(containers, services)
        with _going_on():
            self._starts = startup.renew_quotas(self._stack, containers, services, self._starts)
        with _going_on():
            links.enforce(self._stack, containers)
        with _going_on():
            for correction in self._governed(containers).tick():
                append_line(self._run.path / FILE, json.dumps(asdict(correction)))

    def end(self) -> None:
        """Keep what was logged."""
        with _going_on():
            if self._containers:
                logs.keep(Sources(self._containers, PROJECT), self._run)

    def _governed(self, containers: Containers) -> Governor:
        self._governor = self._governor or Governor(
            self._stack.clients,
            lambda: Quotas(self._stack, containers),
            lambda: pacing.read(self._run.path),
            containers.host().cpus,
        )
        return self._governor


def _docker() -> Containers:
    """Return the containers of the daemon that answers; one of fedbench's that died is started.

    Raises:
        DockerError: none does.
        InUseError: somebody takes the federation down, or brings it up.
    """
    if containers := daemon.find():
        return containers
    if not bootstrap.daemon_died():
        raise DockerError("no Docker daemon answers")
    with federation_lock():
        return daemon.connect(lambda line: print(line, file=sys.stderr))  # noqa: T201


def main(folder: Path, launch: int) -> None:
    """Govern the run in `folder` until it is over; the process `launch` has started it."""
    run, stack = Run(folder), Stack.load(Places(folder.parents[1]))
    if stack is None:
        return
    with suppress(BlockingIOError), watching(run):
        vigil = Vigil(run, stack)
        while psutil.pid_exists(launch) or run.is_executing():
            time.sleep(TICK_SECONDS)
            vigil.tick()
        vigil.end()


@contextmanager
def _going_on() -> Iterator[None]:
    """Print why something failed, as where the federation was taken down or a disk is full."""
    try:
        yield
    except FedbenchError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 (into its own log)
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
