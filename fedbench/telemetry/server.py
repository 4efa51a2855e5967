"""What the server knows of the current run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from statistics import median
from typing import Literal, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.records import ClientRound, RoundRecord
from fedbench.records.clock import Dilation, WallSeconds
from fedbench.records.rounds import MISSING
from fedbench.telemetry.families import RunMetrics, counter, gauge, single
from fedbench.telemetry.metrics import ROUND_PARTS

RunPhase = Literal["waiting", "running", "finished", "failed", "interrupted"]
RUN_PHASES: tuple[RunPhase, ...] = get_args(RunPhase)
_GOING_ON: tuple[RunPhase, ...] = ("waiting", "running")


class ServerMetrics:
    """Fills the metrics of runs. `clock` gives seconds, `now` those since 1970."""

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        runs = self._runs = RunMetrics(registry)
        self._info = runs.gauge("fedbench_run_info")
        self._phase = runs.gauge("fedbench_run_phase")
        self._start = runs.gauge("fedbench_run_start_timestamp_seconds")
        self._progress = runs.gauge("fedbench_progress_timestamp_seconds")
        self._round = runs.gauge("fedbench_round")
        self._rounds = runs.gauge("fedbench_rounds")
        self._recorded = runs.gauge("fedbench_round_recorded")
        self._last = runs.gauge("fedbench_round_last_seconds")
        self._overhead = runs.gauge("fedbench_round_overhead_seconds")
        self._parts = runs.gauge("fedbench_round_part_seconds")
        self._aggregate = runs.gauge("fedbench_aggregate_seconds")
        self._evaluation = runs.gauge("fedbench_server_epoch_seconds")
        self._accuracy = runs.gauge("fedbench_server_accuracy")
        self._loss = runs.gauge("fedbench_server_loss")
        self._wanted = runs.gauge("fedbench_clients_wanted")
        self._answered = runs.gauge("fedbench_clients_answered")
        self._failed = runs.gauge("fedbench_clients_failed")
        self._late = runs.gauge("fedbench_clients_late")
        self._dilation = runs.gauge("fedbench_dilation")
        self._time = runs.gauge("fedbench_run_emulated_seconds")
        self._emulated = runs.gauge("fedbench_emulated_epoch_seconds")
        self._target = runs.gauge("fedbench_target_epoch_seconds")
        self._error = runs.gauge("fedbench_emulation_error_ratio")
        self._held = runs.gauge("fedbench_emulation_held")
        self._energy = runs.gauge("fedbench_round_energy_joules")
        self._so_far = _RunSoFar(runs)
        self._round_seconds = runs.histogram("fedbench_round_seconds")
        self._clients = gauge("fedbench_clients_connected", registry)
        self._missing = counter("fedbench_client_missing_total", registry)
        self._waiting = _Waiting(clock)
        registry.register(self._waiting)

    def clients_connected(self, clients: int) -> None:
        """Say how many clients the server can reach now."""
        self._clients.set(clients)

    def run_started(self, run: str, *, experiment: str, profile: str, model: str) -> None:
        """Say what the run is of, as it starts or goes on."""
        self._runs.enter(run)
        self._info.labels(run, experiment, profile, model).set(1)
        self._start.labels(run).set(self._now())
        self.progressed(run)

    def run_phase(self, run: str, phase: RunPhase) -> None:
        """Put the run into this phase."""
        self._runs.enter(run)
        for name in RUN_PHASES:
            self._phase.labels(run, name).set(name == phase)
        self._waiting.set(phase == "waiting")
        if phase not in _GOING_ON:
            self._progress.clear()

    def progressed(self, run: str) -> None:
        """Report that the run got on just now."""
        self._runs.enter(run)
        self._progress.labels(run).set(self._now())

    def round_started(self, run: str, round_number: int, rounds: int) -> None:
        """Report that round `round_number` of `rounds`, counted from 1, begins."""
        self.progressed(run)
        self._round.labels(run).set(round_number)
        self._rounds.labels(run).set(rounds)

    def observe(self, record: RoundRecord, run: str, rounds: int) -> None:
        """Report a round that is over."""
        self.round_started(run, record.round, rounds)
        self._count(record.clients, run)
        for client, reason in product(record.clients, MISSING):
            self._missing.labels(client.client, reason)  # so that Prometheus sees it grow
        for client in record.missing:
            self._missing.labels(client.client, client.missing).inc()
        self._round_seconds.labels(run).observe(record.duration_seconds)
        self._last.labels(run).set(record.duration_seconds)
        self._overhead.labels(run).set(record.overhead_seconds)
        for part in ROUND_PARTS:
            value = getattr(record.parts, part, None)
            self._parts.labels(run, part).set(math.nan if value is None else value)
        self._aggregate.labels(run).set(record.aggregate_seconds)
        # Real devices among the clients have none.
        dilation = Dilation(max((c.dilation for c in record.clients), default=1.0))
        self._dilation.labels(run).set(dilation)
        self._recorded.labels(run).set(record.round)
        self._time.labels(run).inc(dilation.emulated(WallSeconds(record.duration_seconds)))
        self._forget_clients()
        for client in record.clients:
            self._emulation(client, run)
            self._so_far.add(client, run)
        for metric, value in (
            (self._evaluation, record.server_epoch_seconds),
            (self._accuracy, record.server_accuracy),
            (self._loss, record.server_loss),
        ):
            if value is not None:
                metric.labels(run).set(value)

    def _count(self, clients: list[ClientRound], run: str) -> None:
        late = sum(client.late for client in clients)
        failed = sum(client.error is not None for client in clients) - late
        self._wanted.labels(run).set(len(clients))
        self._answered.labels(run).set(len(clients) - failed - late)
        self._failed.labels(run).set(failed)
        self._late.labels(run).set(late)

    def _forget_clients(self) -> None:
        """Drop the values of the round before: a client without new ones left, or failed."""
        for metric in (self._emulated, self._target, self._error, self._held, self._energy):
            metric.clear()

    def _emulation(self, client: ClientRound, run: str) -> None:
        if client.energy_joules is not None:
            self._energy.labels(run, client.client).set(client.energy_joules)
        if not client.emulated_epoch_seconds:
            return
        emulated = median(client.emulated_epoch_seconds)
        self._emulated.labels(run, client.client).set(emulated)
        if client.target_epoch_seconds is not None and client.emulation_error is not None:
            self._target.labels(run, client.client).set(client.target_epoch_seconds)
            self._error.labels(run, client.client).set(client.emulation_error)
            self._held.labels(run, client.client).set(client.not_held is None)


class _RunSoFar:
    """What each client did in a run's rounds, added up; what nobody knows of it stays away."""

    def __init__(self, runs: RunMetrics) -> None:
        self._energy = runs.gauge("fedbench_run_energy_joules")
        self._bytes = runs.gauge("fedbench_run_bytes")
        self._samples = runs.gauge("fedbench_run_samples")
        self._late = runs.gauge("fedbench_run_late_seconds")

    def add(self, client: ClientRound, run: str) -> None:
        """Add a round of a client, of which it may have told only a part."""
        name = client.client
        for metric, labels, value in (
            (self._energy, ("idle",), client.energy_idle_joules),
            (self._energy, ("busy",), client.energy_busy_joules),
            (self._bytes, ("sent",), client.bytes_sent),
            (self._bytes, ("received",), client.bytes_received),
            (self._samples, (), client.trained_samples or None),
            (self._late, (), client.late_epoch_seconds),
        ):
            if value is not None:
                metric.labels(run, name, *labels).inc(value)


class _Waiting(Collector):
    """The seconds that runs waited for clients, those of a wait that goes on included."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._since: float | None = None

    def set(self, waiting: bool) -> None:
        """Say whether a run waits from now on."""
        self._seconds = self._total()
        self._since = self._clock() if waiting else None

    def collect(self) -> Iterator[Metric]:
        """Read the clock."""
        yield single("fedbench_waited_for_clients_seconds_total", self._total())

    def _total(self) -> float:
        now = self._clock()
        return self._seconds + (0.0 if self._since is None else now - self._since)
