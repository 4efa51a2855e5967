"""Every metric, declared once: its name, help text, unit and labels (more in collectors.py).

Prometheus adds `client` and `device` to what it scrapes from a client; a metric itself carries only
`run`, and only where it describes that run. The round number is a value, never a label: each new
label value is a new time series. For the same reason a new run drops the previous run's series
here; Prometheus keeps their history.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from fedbench.records import ClientRound, RoundParts, RoundRecord
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.collectors import CgroupCollector, ClientPhase, PhaseClock

RunPhase = Literal["waiting", "running", "finished", "failed", "interrupted"]
RUN_PHASES: tuple[RunPhase, ...] = get_args(RunPhase)
ROUND_PARTS = tuple(RoundParts.model_fields)
# From an epoch of digits on a workstation to one of CIFAR-10 on a slowed legacy PC.
SECONDS_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)

# `_created` series double the series of every counter, and Prometheus has no use for them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ClientMetrics:
    """What one client is doing, has done and has used. `clock` gives seconds."""

    def __init__(
        self,
        registry: CollectorRegistry,
        cgroup: Cgroup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        runs = self._runs = _RunGauges(registry)
        self._round = runs.gauge("fedbench_client_round", "Round last worked on.")
        self._epoch = runs.gauge("fedbench_local_epoch", "Local epoch last worked on, from 1.")
        self._epochs = runs.gauge("fedbench_local_epochs", "Local epochs in each round.")
        self._epoch_last = runs.gauge(
            "fedbench_local_epoch_last_seconds", "Duration of the last finished local epoch."
        )
        self._speed = runs.gauge(
            "fedbench_samples_per_second", "Samples trained per second of the local epoch."
        )
        self._loss = runs.gauge("fedbench_local_loss", "Training loss of the last local epoch.")
        self._accuracy = runs.gauge(
            "fedbench_local_accuracy", "Training accuracy of the last local epoch, 0 to 1."
        )
        self._global_loss = runs.gauge(
            "fedbench_global_model_loss", "Loss of the global model as this client evaluated it."
        )
        self._global_accuracy = runs.gauge(
            "fedbench_global_model_accuracy", "Accuracy of the global model likewise, 0 to 1."
        )
        self._evaluation_last = runs.gauge(
            "fedbench_evaluation_last_seconds", "Duration of the last evaluation by this client."
        )
        self._epoch_seconds = Histogram(
            "fedbench_local_epoch_seconds",
            "Duration of local epochs.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._samples = Counter(
            "fedbench_trained_samples_total", "Samples trained.", registry=registry
        )
        self._late = runs.gauge(
            "fedbench_pace_late_seconds",
            "Seconds by which the local epoch is behind the emulated device; 0 while it keeps up.",
        )
        self._partition = Gauge(
            "fedbench_partition_samples", "Training samples of this client.", registry=registry
        )
        self._sent = Counter(
            "fedbench_sent_bytes_total", "Bytes sent to the server.", registry=registry
        )
        self._received = Counter(
            "fedbench_received_bytes_total", "Bytes received from the server.", registry=registry
        )
        self._connected = Gauge(
            "fedbench_client_connected", "1 while the server answers, else 0.", registry=registry
        )
        self._errors = Counter(
            "fedbench_client_errors_total", "Messages answered with an error.", registry=registry
        )
        self._phases = PhaseClock(clock)
        registry.register(self._phases)
        registry.register(CgroupCollector(cgroup))
        self._epoch_samples = 0

    @contextmanager
    def phase(self, name: ClientPhase) -> Iterator[None]:
        """Be in this phase within the block, then in the one before."""
        before = self._phases.enter(name)
        try:
            yield
        finally:
            self._phases.enter(before)

    def connected(self, value: bool) -> None:
        """Say whether the server answers."""
        self._connected.set(value)

    def partition(self, samples: int) -> None:
        """Say how many training samples this client has."""
        self._partition.set(samples)

    def progress(
        self, *, run: str, round_number: int, epoch: int, epochs: int, samples: int, seconds: float
    ) -> None:
        """Report `samples` done after `seconds` of `epoch` (of `epochs`, counted from 1)."""
        self._runs.enter(run)
        self._round.labels(run).set(round_number)
        self._epoch.labels(run).set(epoch)
        self._epochs.labels(run).set(epochs)
        self._count(samples)
        if seconds > 0:
            self._speed.labels(run).set(samples / seconds)

    def epoch_finished(
        self,
        *,
        run: str,
        round_number: int,
        seconds: float,
        loss: float,
        accuracy: float,
        samples: int,
    ) -> None:
        """Report a whole local epoch over `samples`, those told to `progress` included."""
        self._runs.enter(run)
        self._round.labels(run).set(round_number)
        self._epoch_last.labels(run).set(seconds)
        self._epoch_seconds.observe(seconds)
        self._speed.labels(run).set(samples / seconds)
        self._loss.labels(run).set(loss)
        self._accuracy.labels(run).set(accuracy)
        self._count(samples)
        self._epoch_samples = 0

    def evaluated(
        self, *, run: str, round_number: int, seconds: float, loss: float, accuracy: float
    ) -> None:
        """Report the global model's evaluation on this client's test samples."""
        self._runs.enter(run)
        self._round.labels(run).set(round_number)
        self._evaluation_last.labels(run).set(seconds)
        self._global_loss.labels(run).set(loss)
        self._global_accuracy.labels(run).set(accuracy)

    def late(self, run: str, seconds: float) -> None:
        """Say by how much training is behind the emulated device."""
        self._late.labels(run).set(seconds)

    def transferred(self, sent: int = 0, received: int = 0) -> None:
        """Add bytes exchanged with the server."""
        self._sent.inc(sent)
        self._received.inc(received)

    def error(self) -> None:
        """Count a message that was answered with an error."""
        self._errors.inc()

    def _count(self, samples: int) -> None:
        counted = self._epoch_samples if samples >= self._epoch_samples else 0  # 0: a new epoch
        self._samples.inc(samples - counted)
        self._epoch_samples = samples


class ServerMetrics:
    """What the server knows of the current run and of its clients."""

    def __init__(self, registry: CollectorRegistry) -> None:
        runs = self._runs = _RunGauges(registry)
        self._round = runs.gauge("fedbench_round", "Round in progress, or the last one.")
        self._rounds = runs.gauge("fedbench_rounds", "Rounds that the run wants.")
        self._last = runs.gauge("fedbench_round_last_seconds", "Duration of the last round.")
        self._overhead = runs.gauge(
            "fedbench_round_overhead_seconds",
            "Duration of the last round less its slowest client's training and evaluation.",
        )
        self._parts = runs.gauge(
            "fedbench_round_part_seconds",
            "Part of the last round's overhead; not a number where it is not known.",
            "part",
        )
        self._aggregate = runs.gauge(
            "fedbench_aggregate_seconds", "Duration of the last aggregation."
        )
        self._evaluation = runs.gauge(
            "fedbench_server_epoch_seconds", "Duration of the server's last evaluation."
        )
        self._accuracy = runs.gauge(
            "fedbench_server_accuracy", "Accuracy of the global model after the last round, 0 to 1."
        )
        self._loss = runs.gauge(
            "fedbench_server_loss", "Loss of the global model after the last round."
        )
        self._wanted = runs.gauge("fedbench_clients_wanted", "Clients asked in the last round.")
        self._answered = runs.gauge("fedbench_clients_answered", "Those that answered in time.")
        self._failed = runs.gauge("fedbench_clients_failed", "Those that failed or were too late.")
        self._dilation = runs.gauge(
            "fedbench_dilation", "Wall seconds for each second of the emulated devices."
        )
        self._emulated = runs.gauge(
            "fedbench_emulated_epoch_seconds",
            "Median local epoch of the last round, in seconds of the emulated device.",
            "client",
        )
        self._target = runs.gauge(
            "fedbench_target_epoch_seconds",
            "What such an epoch takes on the real device, by its profile.",
            "client",
        )
        self._error = runs.gauge(
            "fedbench_emulation_error_ratio",
            "How far the median epoch was from its target: 0.05 is five percent too slow.",
            "client",
        )
        self._held = runs.gauge(
            "fedbench_emulation_held",
            "1 where the emulation held in the last round, 0 where it was too far off its target.",
            "client",
        )
        self._phase = runs.gauge(
            "fedbench_run_phase", "1 for the phase that the run is in, else 0.", "phase"
        )
        self._round_seconds = Histogram(
            "fedbench_round_seconds",
            "Duration of rounds.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._clients = Gauge(
            "fedbench_clients_connected", "Clients that the server can reach.", registry=registry
        )

    def clients_connected(self, clients: int) -> None:
        """Say how many clients the server can reach now."""
        self._clients.set(clients)

    def run_phase(self, run: str, phase: RunPhase) -> None:
        """Put the run into this phase."""
        self._runs.enter(run)
        for name in RUN_PHASES:
            self._phase.labels(run, name).set(name == phase)

    def round_started(self, run: str, round_number: int, rounds: int) -> None:
        """Report that round `round_number` of `rounds`, counted from 1, begins."""
        self._runs.enter(run)
        self._round.labels(run).set(round_number)
        self._rounds.labels(run).set(rounds)

    def observe(self, record: RoundRecord, run: str, rounds: int) -> None:
        """Report a round that is over."""
        self.round_started(run, record.round, rounds)
        failed = sum(client.error is not None for client in record.clients)
        self._wanted.labels(run).set(len(record.clients))
        self._failed.labels(run).set(failed)
        self._answered.labels(run).set(len(record.clients) - failed)
        self._round_seconds.observe(record.duration_seconds)
        self._last.labels(run).set(record.duration_seconds)
        self._overhead.labels(run).set(record.overhead_seconds)
        for part in ROUND_PARTS:
            value = getattr(record.parts, part, None)
            self._parts.labels(run, part).set(math.nan if value is None else value)
        self._aggregate.labels(run).set(record.aggregate_seconds)
        # Real devices among the clients have none.
        self._dilation.labels(run).set(max((c.dilation for c in record.clients), default=1.0))
        for client in record.clients:
            self._emulation(client, run)
        for gauge, value in (
            (self._evaluation, record.server_epoch_seconds),
            (self._accuracy, record.server_accuracy),
            (self._loss, record.server_loss),
        ):
            if value is not None:
                gauge.labels(run).set(value)

    def _emulation(self, client: ClientRound, run: str) -> None:
        if not client.emulated_epoch_seconds:
            return
        emulated = median(client.emulated_epoch_seconds)
        self._emulated.labels(run, client.client).set(emulated)
        if client.target_epoch_seconds is not None and client.emulation_error is not None:
            self._target.labels(run, client.client).set(client.target_epoch_seconds)
            self._error.labels(run, client.client).set(client.emulation_error)
            self._held.labels(run, client.client).set(client.not_held is None)


class _RunGauges:
    """The gauges that carry a run; only those of the current run are kept."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: list[Gauge] = []
        self._run: str | None = None

    def gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        gauge = Gauge(name, help_text, ("run", *labels), registry=self._registry)
        self._gauges.append(gauge)
        return gauge

    def enter(self, run: str) -> None:
        if run == self._run:
            return
        self._run = run
        for gauge in self._gauges:
            gauge.clear()
