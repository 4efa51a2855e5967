"""A client's metrics, where Prometheus finds them.

A scrape is paid for from the client's CPU quota, which may be a tenth of a CPU, once a second.
prometheus_client's own server takes a thread, a connection, gzip and a general text format for
each: 2.6 times the CPU time of what is here (`make bench BENCH=looking`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
)
from prometheus_client.utils import floatToGoString

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics, NodeMetrics
from fedbench.telemetry.collectors import GpuCollector, ProcessCollector, load_nvml
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.metrics import METRICS


def client_metrics(cgroup: Cgroup, companions: Companions | None = None) -> ClientMetrics:
    """Make the client's metrics in prometheus_client's registry, those of process and GPU too."""
    _prepare()
    REGISTRY.register(ProcessCollector())
    device = EmulatedDevice.from_environment()
    return ClientMetrics(REGISTRY, cgroup, device=device, companions=companions)


def stock_metrics(cgroup: Cgroup) -> NodeMetrics:
    """Make the metrics of a process that starts the stock node, which trains in other processes."""
    _prepare()
    return NodeMetrics(REGISTRY, cgroup, EmulatedDevice.from_environment())


def _prepare() -> None:
    """Leave declared metrics only, a GPU's too: what the library says of the process goes."""
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        REGISTRY.unregister(collector)
    if nvml := load_nvml():
        REGISTRY.register(GpuCollector(nvml))


def serve(port: int, registry: CollectorRegistry = REGISTRY) -> ThreadingHTTPServer:
    """Answer any GET with the registry's metrics, on all addresses, until it is shut down."""
    server = ThreadingHTTPServer(("", port), type("Handler", (_Handler,), {"registry": registry}))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    protocol_version = "HTTP/1.1"  # Prometheus keeps its connection, and with it the thread
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = render(self.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Write nothing: a scrape a second is not worth a line."""


def render(registry: CollectorRegistry) -> bytes:
    """Write declared metrics in Prometheus' text format 0.0.4.

    Label values are names, of runs or of a few states: none needs an escape.
    """
    lines: list[str] = []
    for family in registry.collect():
        lines.append(_head(family.name if family.name in METRICS else f"{family.name}_total"))
        for sample in family.samples:
            value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
            lines.append(f"{sample.name}{_labels(sample.labels)} {value}\n")
    return "".join(lines).encode()


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join([f'{name}="{value}"' for name, value in labels.items()])
    return f"{{{pairs}}}" if pairs else ""


@cache
def _head(name: str) -> str:
    metric = METRICS[name]
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
