"""A client's metrics, where Prometheus finds them."""

from __future__ import annotations

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.emulated import EmulatedDevice
from fedbench.telemetry.gpu import GpuCollector, load_nvml


def client_metrics(cgroup: Cgroup) -> ClientMetrics:
    """The metrics of this process' client in prometheus_client's own registry, a GPU's too.

    Only declared metrics: what the library says by itself of the process goes.
    """
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        REGISTRY.unregister(collector)
    if nvml := load_nvml():
        REGISTRY.register(GpuCollector(nvml))
    return ClientMetrics(REGISTRY, cgroup, device=EmulatedDevice.from_environment())
