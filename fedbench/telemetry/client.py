"""What one client is doing, has done and has used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from fedbench.records.pacing import Pacing
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.collectors import CgroupCollector, PhaseClock
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.emulated_device import REAL_DEVICE, EmulatedDevice, EnergyCollector
from fedbench.telemetry.families import RunMetrics, counter, gauge, histogram
from fedbench.telemetry.work import ClientPhase, EpochSamples


class NodeMetrics:
    """What is known of a client whatever its node: its device, its container, its connection."""

    def __init__(
        self, registry: CollectorRegistry, cgroup: Cgroup, device: EmulatedDevice = REAL_DEVICE
    ) -> None:
        self._connected = gauge("fedbench_client_connected", registry)
        gauge("fedbench_client_dilation", registry).set(device.dilation)
        registry.register(CgroupCollector(cgroup))

    def connected(self, value: bool) -> None:
        """Say whether the server answers."""
        self._connected.set(value)

    def pacing(self) -> Pacing | None:
        """Return nothing: this process does not train."""
        return None


class ClientMetrics(NodeMetrics):
    """The `WorkObserver` that fills a client's metrics for Prometheus.

    `clock` gives seconds, `companions` share its computer. It is for the process that trains: the
    stock node's others know nothing of its work.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        cgroup: Cgroup,
        clock: Callable[[], float] = time.monotonic,
        device: EmulatedDevice = REAL_DEVICE,
        companions: Companions | None = None,
    ) -> None:
        super().__init__(registry, cgroup, device)
        runs = self._runs = RunMetrics(registry)
        self._round = runs.gauge("fedbench_client_round")
        self._epoch = runs.gauge("fedbench_local_epoch")
        self._epochs = runs.gauge("fedbench_local_epochs")
        self._epoch_last = runs.gauge("fedbench_local_epoch_last_seconds")
        self._speed = runs.gauge("fedbench_samples_per_second")
        self._loss = runs.gauge("fedbench_local_loss")
        self._accuracy = runs.gauge("fedbench_local_accuracy")
        self._global_loss = runs.gauge("fedbench_global_model_loss")
        self._global_accuracy = runs.gauge("fedbench_global_model_accuracy")
        self._evaluation_last = runs.gauge("fedbench_evaluation_last_seconds")
        self._late = runs.gauge("fedbench_pace_late_seconds")
        self._emulated_speed = runs.gauge("fedbench_emulated_samples_per_second")
        self._target_speed = runs.gauge("fedbench_target_samples_per_second")
        self._speed_error = runs.gauge("fedbench_speed_error_ratio")
        self._epoch_seconds = histogram("fedbench_local_epoch_seconds", registry)
        self._samples = counter("fedbench_trained_samples_total", registry)
        self._partition = gauge("fedbench_partition_samples", registry)
        self._bytes = {
            "sent": counter("fedbench_sent_bytes_total", registry),
            "received": counter("fedbench_received_bytes_total", registry),
        }
        self._transfer_seconds = histogram("fedbench_transfer_seconds", registry)
        self._transfer_last = gauge("fedbench_transfer_last_seconds", registry)
        self._transfer_bytes = gauge("fedbench_transfer_last_bytes", registry)
        self._errors = counter("fedbench_client_errors_total", registry)
        self._dilation = device.dilation
        self._phases = PhaseClock(clock)
        registry.register(
            EnergyCollector(self._phases, device, companions) if device.watts else self._phases
        )
        self._cgroup = cgroup
        self._late_seconds: float | None = None
        self._epoch_samples = EpochSamples()

    @contextmanager
    def phase(self, name: ClientPhase) -> Iterator[None]:
        """Be in this phase within the block, then in the one before."""
        before = self._phases.enter(name)
        try:
            yield
        finally:
            self._phases.enter(before)

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
        self._samples.inc(self._epoch_samples.more(samples))
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
        due: float | None = None,
    ) -> None:
        """Report a whole local epoch over `samples`, those told to `progress` included.

        `due` are the wall seconds that it should have taken; None on a real device.
        """
        self._runs.enter(run)
        self._round.labels(run).set(round_number)
        self._epoch_last.labels(run).set(seconds)
        self._epoch_seconds.observe(seconds)
        self._speed.labels(run).set(samples / seconds)
        self._loss.labels(run).set(loss)
        self._accuracy.labels(run).set(accuracy)
        self._samples.inc(self._epoch_samples.more(samples))
        self._epoch_samples.finish()
        if due is not None:
            self._emulated_speed.labels(run).set(self._dilation.emulated_rate(samples / seconds))
            self._target_speed.labels(run).set(self._dilation.emulated_rate(samples / due))
            self._speed_error.labels(run).set(due / seconds - 1)

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
        self._runs.enter(run)
        self._late.labels(run).set(seconds)
        self._late_seconds = seconds

    def pacing(self) -> Pacing | None:
        """Return how this client keeps its device's pace; None where it never had to."""
        if self._late_seconds is None:
            return None
        _, phases = self._phases.read()
        return Pacing(
            wall=sum(phases.values()),
            training=phases["training"],
            cpu=self._cgroup.cpu().seconds,
            late=max(self._late_seconds, 0.0),
        )

    def transferred(
        self, *, sent: int = 0, received: int = 0, seconds: float = 0.0, model: bool = False
    ) -> None:
        """Add bytes exchanged with the server, in one direction or in both, and what that took.

        Those with a `model` alone are remembered as the last: others take next to no time.
        """
        for direction, size in (("sent", sent), ("received", received)):
            if size:
                self._bytes[direction].inc(size)
                self._transfer_seconds.labels(direction).observe(seconds)
                if model:
                    self._transfer_last.labels(direction).set(seconds)
                    self._transfer_bytes.labels(direction).set(size)

    def error(self) -> None:
        """Count a message that was answered with an error."""
        self._errors.inc()
