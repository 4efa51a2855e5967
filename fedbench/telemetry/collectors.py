"""Metrics that are read when Prometheus asks: phase, cgroup, process and GPU of a client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.telemetry.cgroup import Cgroup, steal_seconds
from fedbench.telemetry.families import family, single
from fedbench.telemetry.work import CLIENT_PHASES, ClientPhase


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

    def read(self) -> tuple[ClientPhase, dict[ClientPhase, float]]:
        """Return the phase that the client is in, and the seconds spent in each so far."""
        with self._lock:
            self._settle()
            return self._phase, dict(self._seconds)

    def collect(self) -> Iterator[Metric]:
        """Read the clock."""
        return phase_families(*self.read())

    def _settle(self) -> None:
        now = self._clock()
        self._seconds[self._phase] += now - self._since
        self._since = now


def phase_families(current: ClientPhase, seconds: Mapping[ClientPhase, float]) -> Iterator[Metric]:
    """Yield the metrics of a client's phases: the one that it is in, and the seconds in each."""
    yield family("fedbench_client_phase", {(p,): p == current for p in CLIENT_PHASES})
    yield family("fedbench_client_phase_seconds_total", {(p,): seconds[p] for p in CLIENT_PHASES})


class CgroupCollector(Collector):
    """Reads the container's cgroup when Prometheus asks; no limit, no `_limit_bytes` sample."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup

    def collect(self) -> Iterator[Metric]:
        """Read the cgroup's files."""
        cpu, memory = self._cgroup.cpu(), self._cgroup.memory()
        yield single("fedbench_cpu_seconds_total", cpu.seconds)
        yield single("fedbench_cpu_throttled_seconds_total", cpu.throttled_seconds)
        yield single("fedbench_cpu_throttled_periods_total", cpu.throttled_periods)
        yield single("fedbench_cpu_periods_total", cpu.periods)
        yield single("fedbench_cpu_steal_seconds_total", steal_seconds(self._cgroup))
        yield single("fedbench_usable_cpus", self._cgroup.usable_cpus())
        yield single("fedbench_memory_bytes", memory.used)
        yield single("fedbench_memory_peak_bytes", memory.peak)
        limit = memory.limit
        yield family("fedbench_memory_limit_bytes", {} if limit is None else {(): limit})
        yield single("fedbench_out_of_memory_kills_total", memory.oom_kills)


class ProcessCollector(Collector):
    """Reads this process, the one that trains, when Prometheus asks."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """Read its files in /proc."""
        yield single("fedbench_process_resident_bytes", self._process.memory_info().rss)
        yield single("fedbench_process_threads", self._process.num_threads())


class GpuCollector(Collector):
    """Asks NVML when Prometheus asks; what a GPU does not tell is left out.

    A container has one GPU, the one that it was given.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._gpu = nvml.nvmlDeviceGetHandleByIndex(0)

    def collect(self) -> Iterator[Metric]:
        """Ask for its use, memory and power."""
        nvml, gpu = self._nvml, self._gpu
        readings: dict[str, Callable[[], float]] = {
            "use_ratio": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            "memory_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
            "memory_total_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
            "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        }
        for name, read in readings.items():
            try:
                yield single(f"fedbench_gpu_{name}", read())
            except nvml.NVMLError:
                continue


def load_nvml() -> Any | None:
    """Return NVML's module, ready for use; None without the library, a driver or a GPU."""
    try:
        import pynvml  # noqa: PLC0415 (may not be there)
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except pynvml.NVMLError:
        return None
