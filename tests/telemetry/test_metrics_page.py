from __future__ import annotations

from pathlib import Path

import pytest
from gpus import FakeNvml
from prometheus_client import CollectorRegistry

from fedbench.records.energy import Draw
from fedbench.server.registry import Census, Registry
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics, NodeMetrics
from fedbench.telemetry.collectors import GpuCollector, ProcessCollector
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.metrics import CLIENT, CONTAINER, METRICS, SERVER, STOCK, DeclaredMetric
from fedbench.telemetry.metrics_page import render
from fedbench.telemetry.server import ServerMetrics

PAGE = Path(__file__).parents[2] / "METRICS.md"


def test_the_page_is_what_the_declarations_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "python -m fedbench.telemetry > METRICS.md"


@pytest.fixture
def client(tmp_path: Path) -> CollectorRegistry:
    """A client's, on a device that shows everything."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1000000")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu0 1 0 1 1 0 0 0 200 0 0\n")
    registry = CollectorRegistry()
    ClientMetrics(registry, Cgroup(tmp_path), device=EmulatedDevice(watts=Draw(1.0, 2.0)))
    registry.register(ProcessCollector())
    registry.register(GpuCollector(FakeNvml()))
    return registry


@pytest.fixture
def server() -> CollectorRegistry:
    registry = CollectorRegistry()
    ServerMetrics(registry)
    registry.register(Census(Registry(lambda _node: None)))
    return registry


def exposed(registry: CollectorRegistry) -> dict[str, tuple[str, str]]:
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            family.documentation,
        )
        for family in registry.collect()
    }


def declared(metrics: tuple[DeclaredMetric, ...]) -> dict[str, tuple[str, str]]:
    return {metric.name: (metric.kind, metric.help) for metric in metrics}


def test_a_client_exposes_what_is_declared_and_nothing_else(client: CollectorRegistry) -> None:
    assert exposed(client) == declared(CLIENT + CONTAINER)


def test_a_stock_node_exposes_what_is_known_of_it_and_nothing_else() -> None:
    registry = CollectorRegistry()
    NodeMetrics(registry, Cgroup(), EmulatedDevice(watts=Draw(1.0, 2.0)))
    registry.register(GpuCollector(FakeNvml()))
    assert exposed(registry) == declared(STOCK + CONTAINER)


def test_the_server_exposes_what_is_declared_and_nothing_else(server: CollectorRegistry) -> None:
    assert exposed(server) == declared(SERVER)


def test_each_metric_is_declared_once() -> None:
    assert len(METRICS) == len(CLIENT) + len(CONTAINER) + len(SERVER)
