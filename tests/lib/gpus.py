"""A GPU without one."""

from __future__ import annotations

from types import SimpleNamespace


class FakeNvml:
    """NVML's module as GpuCollector needs it; `without` names what this GPU does not tell."""

    class NVMLError(Exception):
        pass

    def __init__(self, *without: str) -> None:
        self._without = without

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu {index}"

    def nvmlDeviceGetUtilizationRates(self, gpu: str) -> object:  # noqa: N802
        return self._tell("use", SimpleNamespace(gpu=75, memory=10), gpu)

    def nvmlDeviceGetMemoryInfo(self, gpu: str) -> object:  # noqa: N802
        return self._tell("memory", SimpleNamespace(used=3_000, total=8_000, free=5_000), gpu)

    def nvmlDeviceGetPowerUsage(self, gpu: str) -> object:  # noqa: N802
        return self._tell("power", 42_500, gpu)

    def _tell(self, what: str, value: object, gpu: str) -> object:
        assert gpu == "gpu 0"
        if what in self._without:
            raise self.NVMLError
        return value
