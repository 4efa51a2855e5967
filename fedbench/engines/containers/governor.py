"""Corrects the quotas of a run's clients until each keeps its device's pace, and says what it did.

`python -m fedbench.engines.containers.governor RUN-FOLDER PID` runs beside a run, detached or not,
and ends with its process. Calibration says what a device takes of the host; this sees what it takes
in fact: a client that is late and uses its quota up gets more, as far as the host has any, and what
it needs no more is taken back. What clients tell the server of their pace is in the run's folder:
no monitoring is needed to govern. Each correction is a line of `corrections.jsonl`. Living as
long as the run does, it reads the host's energy counters as well, and keeps at the end what the
containers logged.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from fedbench.engines.containers.runtime import daemon, links
from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import ClientPlan
from fedbench.host.plan.shares import MARGIN
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.host.watch.log_sources import Sources
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


def main(folder: Path, launch: int) -> None:
    """Govern the run in `folder` for as long as the process `launch` is alive."""
    stack, containers = Stack.load(Places(folder.parents[1])), daemon.find()
    if stack is None or containers is None:
        return
    governor = Governor(
        stack.clients,
        lambda: Quotas(stack, containers),
        lambda: pacing.read(folder),
        containers.host().cpus,
    )
    meter = rapl.HostEnergyMeter(folder)
    while psutil.pid_exists(launch):
        time.sleep(TICK_SECONDS)
        with _going_on():
            meter.tick()
            links.enforce(stack, containers)
            for correction in governor.tick():
                append_line(folder / FILE, json.dumps(asdict(correction)))
    with _going_on():
        logs.keep(Sources(containers, PROJECT), Run(folder))


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
