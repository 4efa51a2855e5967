from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from gpus import FakeNvml
from prometheus_client import CollectorRegistry

from fedbench.telemetry.collectors import GpuCollector, load_nvml

EVERYTHING = {
    "fedbench_gpu_use_ratio": 0.75,
    "fedbench_gpu_memory_bytes": 3000,
    "fedbench_gpu_memory_total_bytes": 8000,
    "fedbench_gpu_power_watts": 42.5,
}


def told(nvml: FakeNvml) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(GpuCollector(nvml))
    return {s.name: s.value for family in registry.collect() for s in family.samples}


def test_a_gpu_tells_its_use_its_memory_and_its_power() -> None:
    assert told(FakeNvml()) == EVERYTHING


@pytest.mark.parametrize("what", ["use", "memory", "power"])
def test_what_a_gpu_does_not_tell_is_left_out(what: str) -> None:
    expected = {name: value for name, value in EVERYTHING.items() if what not in name}

    assert told(FakeNvml(what)) == expected


def library(count: int, *, driver: bool = True) -> SimpleNamespace:
    def init() -> None:
        if not driver:
            raise FakeNvml.NVMLError

    return SimpleNamespace(
        NVMLError=FakeNvml.NVMLError, nvmlInit=init, nvmlDeviceGetCount=lambda: count
    )


@pytest.mark.parametrize(
    "module",
    [None, library(0), library(1, driver=False)],
    ids=["no library", "no GPU", "no driver"],
)
def test_without_a_gpu_there_is_nothing_to_ask(
    monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)

    assert load_nvml() is None


def test_with_a_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = library(1)
    monkeypatch.setitem(sys.modules, "pynvml", module)

    assert load_nvml() is module
