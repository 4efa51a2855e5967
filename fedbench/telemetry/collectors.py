"""Metrics that are read when Prometheus asks: the client's phase and its cgroup."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.usage import steal_seconds

ClientPhase = Literal["waiting", "receiving", "training", "evaluating", "sending"]
CLIENT_PHASES: tuple[ClientPhase, ...] = get_args(ClientPhase)


class PhaseClock(Collector):
    """Which phase a client is in, and the seconds spent in each, the current one included."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # entered by the client's thread, collected by a scrape
        self._seconds = dict.fromkeys(CLIENT_PHASES, 0.0)
        self._phase: ClientPhase = "waiting"
        self._since = clock()

    def enter(self, phase: ClientPhase) -> ClientPhase:
        """Go to `phase` and return the one before."""
        with self._lock:
            self._settle()
            before, self._phase = self._phase, phase
        return before

    def collect(self) -> Iterator[Metric]:
        """Read the clock."""
        with self._lock:
            self._settle()
            current, seconds = self._phase, dict(self._seconds)
        state = GaugeMetricFamily(
            "fedbench_client_phase",
            "1 for the phase that the client is in, else 0.",
            labels=["phase"],
        )
        total = CounterMetricFamily(
            "fedbench_client_phase_seconds", "Time spent in each phase.", labels=["phase"]
        )
        for phase in CLIENT_PHASES:
            state.add_metric([phase], phase == current)
            total.add_metric([phase], seconds[phase])
        yield state
        yield total

    def _settle(self) -> None:
        now = self._clock()
        self._seconds[self._phase] += now - self._since
        self._since = now


class CgroupCollector(Collector):
    """Reads the container's cgroup when Prometheus asks; no limit, no `_limit_bytes` sample."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup

    def collect(self) -> Iterator[Metric]:
        """Read the cgroup's files."""
        cpu, memory = self._cgroup.cpu(), self._cgroup.memory()
        yield CounterMetricFamily("fedbench_cpu_seconds", "CPU time used.", cpu.seconds)
        yield CounterMetricFamily(
            "fedbench_cpu_throttled_seconds",
            "Time for which the CPU quota held threads back, added up over CPUs.",
            cpu.throttled_seconds,
        )
        yield CounterMetricFamily(
            "fedbench_cpu_throttled_periods",
            "Scheduler periods in which the CPU quota ran out.",
            cpu.throttled_periods,
        )
        yield CounterMetricFamily(
            "fedbench_cpu_periods", "Scheduler periods with work to do.", cpu.periods
        )
        yield CounterMetricFamily(
            "fedbench_cpu_steal_seconds",
            "Time for which the hypervisor kept this client's CPUs, as the mean over them.",
            steal_seconds(self._cgroup),
        )
        yield GaugeMetricFamily(
            "fedbench_usable_cpus",
            "CPUs that may be busy at once: the quota or the cpuset, whichever is less.",
            self._cgroup.usable_cpus(),
        )
        yield GaugeMetricFamily(
            "fedbench_memory_bytes", "Memory used, without idle file cache.", memory.used
        )
        yield GaugeMetricFamily(
            "fedbench_memory_peak_bytes", "Most memory ever used, file cache included.", memory.peak
        )
        yield GaugeMetricFamily("fedbench_memory_limit_bytes", "Memory limit.", memory.limit)
        yield CounterMetricFamily(
            "fedbench_out_of_memory_kills",
            "Processes killed because the memory limit was reached.",
            memory.oom_kills,
        )
