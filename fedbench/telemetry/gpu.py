"""The GPU, as NVML sees it: of a container, the one that it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.telemetry.families import single


def load_nvml() -> Any | None:
    """The library's module, ready for use; None without the library, a driver or a GPU."""
    try:
        import pynvml  # noqa: PLC0415 (may not be there)
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except pynvml.NVMLError:
        return None


class GpuCollector(Collector):
    """Asks NVML when Prometheus asks; what a GPU does not tell is left out."""

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
