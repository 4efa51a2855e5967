"""What looking costs a client, in CPU time of its process, against 1 % of what it may use.

A scrape is a GET of a client's whole registry over the connection that Prometheus keeps, once a
second; the client is a process of its own, so that whoever asks does not count. Each batch of
training sets a few gauges; it costs in proportion to the training. The share is that of a client
with a fifth of a CPU, as slow devices on a host with two have it. With companions: the same client
while two others of its computer are busy, which a scrape looks at, beside it without them.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, start_http_server
from row import Row, row

from fedbench.records.clock import Dilation
from fedbench.records.energy import Draw
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.collectors import ProcessCollector
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.exposition import serve

TURNS, SCRAPES, BATCHES = 5, 200, 1000
QUOTA = 0.2  # CPUs
BATCH_CPU_SECONDS = 0.035  # MobileNetV2, batches of 32, by `make bench BENCH=train`
ALLOWED = 1.0  # percent

Serve = Callable[[CollectorRegistry], int]


def rows(command: str) -> Iterator[Row]:
    with client(ours) as lean, client(the_library_s) as plain:
        scrapes = [lean() for _ in range(TURNS)]
        others = [plain() for _ in range(TURNS)]
    shared = with_companions()
    _, metrics = filled()
    batches = [batch_cpu_seconds(metrics) for _ in range(TURNS)]
    shares = [
        100 * (scrape / QUOTA + each / BATCH_CPU_SECONDS)
        for scrape, each in zip(scrapes, batches, strict=True)
    ]
    alone, theirs, three = ([1e3 * s for s in each] for each in (scrapes, others, shared))
    yield row("scrape_cpu", alone, "ms", command, theirs, more_is_better=False)
    yield row("scrape_cpu_companions", three, "ms", command, alone, more_is_better=False)
    yield row("batch_cpu", [1e6 * s for s in batches], "us", command, more_is_better=False)
    yield row("looking", shares, "% of 0.2 CPUs", command, [ALLOWED], more_is_better=False)


def ours(registry: CollectorRegistry) -> int:
    return serve(0, registry).server_port


def the_library_s(registry: CollectorRegistry) -> int:
    return start_http_server(0, registry=registry)[0].server_port


def with_companions() -> list[float]:
    """CPU seconds of scrapes of a client that shares its computer with two busy ones."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for other in ("one", "another"):
            stack.enter_context(Companions(folder, other).busy())
        scrape = stack.enter_context(client(ours, folder))
        return [scrape() for _ in range(TURNS)]


def filled(computer: Path | None = None) -> tuple[CollectorRegistry, ClientMetrics]:
    """A client's metrics; `computer` is the folder of those who share its computer."""
    registry = CollectorRegistry()
    device = EmulatedDevice(Dilation(2.0), Draw(10.0, 40.0))
    companions = Companions(computer, "client") if computer else None
    metrics = ClientMetrics(registry, Cgroup(), device=device, companions=companions)
    registry.register(ProcessCollector())
    metrics.epoch_finished(
        run="r", round_number=1, seconds=2.0, loss=1.0, accuracy=0.5, samples=64, due=2.0
    )
    return registry, metrics


@contextmanager
def client(serving: Serve, computer: Path | None = None) -> Iterator[Callable[[], float]]:
    """A process that is scraped; gives what measures the CPU seconds of one scrape there."""
    ear, mouth = multiprocessing.Pipe()
    arguments = (serving, mouth, computer)
    process = multiprocessing.get_context("spawn").Process(target=stand_by, args=arguments)
    process.start()
    try:
        connection = HTTPConnection("127.0.0.1", ear.recv())
        yield lambda: scrape_cpu_seconds(psutil.Process(process.pid), connection)
    finally:
        process.kill()
        process.join()


def stand_by(serving: Serve, mouth: Connection, computer: Path | None) -> None:
    mouth.send(serving(filled(computer)[0]))
    while True:
        time.sleep(3600)


def scrape_cpu_seconds(process: psutil.Process, connection: HTTPConnection) -> float:
    before = process.cpu_times()
    for _ in range(SCRAPES):
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        connection.getresponse().read()
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / SCRAPES


def batch_cpu_seconds(metrics: ClientMetrics) -> float:
    before = time.process_time()
    for _ in range(BATCHES):
        metrics.progress(run="r", round_number=1, epoch=1, epochs=2, samples=32, seconds=1.0)
        metrics.late("r", 0.0)
    return (time.process_time() - before) / BATCHES
