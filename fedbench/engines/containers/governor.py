"""Corrects the quotas of a run's clients until each keeps its device's pace, and says what it did.

`python -m fedbench.engines.containers.governor RUN-FOLDER PID` runs beside a run, detached or not,
and ends with its process. Calibration says what a device takes of the host; this sees what it takes
in fact: a client that is late and uses its quota up gets more, as far as the host has any, and what
it needs no more is taken back. Each correction is a line of `corrections.jsonl`. Living as long as
the run does, it reads the host's energy counters as well, and keeps at the end what the containers
logged.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from fedbench.engines.containers.runtime import links
from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.engines.containers.runtime.stack import Stack, host_facts
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import ClientPlan
from fedbench.host.plan.shares import MARGIN
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.host.watch.log_sources import Sources
from fedbench.host.watch.prometheus import Prometheus
from fedbench.records.quota_corrections import FILE, Correction
from fedbench.records.runs import Run
from fedbench.telemetry import rapl

TICK_SECONDS = 4.0  # several scrapes of Prometheus
LATE_SECONDS = 0.2  # a client that is less behind catches up by itself
_USED_UP = 0.9
_STEP = 1.25
_TRAINING = 0.9  # of a tick: a client that trained for less says nothing of its quota


@dataclass(frozen=True)
class Reading:
    """A client's counters from one scrape, in seconds: of all phases, of training, of CPU time.

    `late` is by how much it is behind its device.
    """

    wall: float
    training: float
    cpu: float
    late: float


@dataclass(frozen=True)
class Observation:
    """A tick of training: how many seconds a client is late, and the CPUs that it used."""

    late: float
    used: float


def observe(before: Reading, after: Reading) -> Observation | None:
    """What became of a tick; None where the client did not train for nearly all of it."""
    seconds = after.wall - before.wall
    if seconds <= 0 or after.training - before.training < _TRAINING * seconds:
        return None
    return Observation(after.late, (after.cpu - before.cpu) / seconds)


def together(observations: Sequence[Observation]) -> Observation:
    """What became of a computer, from what became of its clients."""
    return Observation(max(o.late for o in observations), sum(o.used for o in observations))


def corrected(quota: float, seen: Observation, least: float, most: float) -> float:
    """The quota that a computer should have, in CPUs.

    It is raised to `most` at most, and what was added is taken back down to `least`, the plan's:
    a host that is fast now may be slow again before the next tick.
    """
    if seen.late > LATE_SECONDS:
        # Late without using it up: the host is too busy, and a larger quota would not help.
        return max(quota, min(quota * _STEP, most)) if seen.used > _USED_UP * quota else quota
    wanted = max(seen.used * MARGIN, least)
    return wanted if wanted < _USED_UP * quota else quota


class Governor:
    """Looks at each tick, and corrects."""

    def __init__(
        self,
        clients: Sequence[ClientPlan],
        look: Callable[[], Quotas],
        prometheus: Prometheus,
        cpus: float,
    ) -> None:
        self._computers = {client.name: client.computer for client in clients}
        self._planned = {client.computer: client.cpus for client in clients}
        self._threads = Counter[str]()
        for client in clients:
            self._threads[client.computer] += client.threads
        self._quotas = look
        self._prometheus = prometheus
        self._cpus = cpus
        self._before: dict[str, Reading] = {}

    def tick(self) -> list[Correction]:
        """Corrects what has to be."""
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
        seen = defaultdict(list)
        for client, reading in self._readings().items():
            before = self._before.get(client, reading)
            self._before[client] = reading
            if observation := observe(before, reading):
                seen[self._computers[client]].append(observation)
        return seen

    def _readings(self) -> dict[str, Reading]:
        phases = "fedbench_client_phase_seconds_total"
        figures = [
            self._values(f"sum by (client) ({phases})"),
            self._values(f'{phases}{{phase="training"}}'),
            self._values("fedbench_cpu_seconds_total"),
            self._values("fedbench_pace_late_seconds"),
        ]
        known = self._computers.keys() & set.intersection(*(set(one) for one in figures))
        return {name: Reading(*(one[name] for one in figures)) for name in known}

    def _values(self, query: str) -> Mapping[str, float]:
        return {
            sample.labels["client"]: sample.value
            for sample in self._prometheus.query(query)
            if "client" in sample.labels
        }


def main(folder: Path, launch: int) -> None:
    """Governs the run in `folder` for as long as the process `launch` is alive."""
    stack, client = Stack.load(Places(folder.parents[1])), bootstrap.find_docker()
    if stack is None or client is None:
        return
    prometheus = Prometheus(stack.prometheus_url)

    def quotas() -> Quotas:
        return Quotas(stack, client, stack.containers(client))

    governor = Governor(stack.clients, quotas, prometheus, host_facts(client).cpus)
    meter = rapl.HostEnergyMeter(folder)
    with (folder / FILE).open("a", encoding="utf-8") as log:
        while psutil.pid_exists(launch):
            time.sleep(TICK_SECONDS)
            meter.tick()
            try:
                links.enforce(stack, client, stack.containers(client))
                corrections = governor.tick()
            except FedbenchError as error:  # the federation was taken down, or its Prometheus was
                print(error.message, file=sys.stderr)  # noqa: T201 (into its own log)
                continue
            for correction in corrections:
                log.write(json.dumps(asdict(correction)) + "\n")
                log.flush()
    try:
        logs.keep(Sources(client, PROJECT), Run(folder))
    except FedbenchError as error:  # as above
        print(error.message, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
