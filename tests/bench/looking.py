"""What looking costs a client, in CPU time of its process, against 1 % of one CPU.

A scrape is a GET of a client's whole registry over HTTP, as Prometheus does it every second; the
CPU time of whoever asks, in the same process here, counts too. Each batch of training sets a few
gauges. A client with a quota below one CPU pays in proportion: at 0.25 CPUs four times the share.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from row import Row, row

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.emulated import EmulatedDevice
from fedbench.telemetry.process import ProcessCollector

TURNS, SCRAPES, BATCHES = 5, 40, 1000
BATCHES_PER_SECOND = 10.0  # as much as a laptop trains in batches of 32, roughly
ALLOWED = 1.0  # percent


def rows(command: str) -> Iterator[Row]:
    registry = CollectorRegistry()
    metrics = ClientMetrics(registry, Cgroup(), device=EmulatedDevice(2.0, (10.0, 40.0)))
    registry.register(ProcessCollector())
    metrics.epoch_finished(
        run="r", round_number=1, seconds=2.0, loss=1.0, accuracy=0.5, samples=64, due=2.0
    )
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    try:
        scrapes = [cpu_seconds(lambda: ask(url), SCRAPES) for _ in range(TURNS)]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    batches = [cpu_seconds(lambda: batch(metrics), BATCHES) for _ in range(TURNS)]
    shares = [
        100 * (scrape + each * BATCHES_PER_SECOND)
        for scrape, each in zip(scrapes, batches, strict=True)
    ]
    yield row("scrape_cpu", [1e3 * s for s in scrapes], "ms", command, more_is_better=False)
    yield row("batch_cpu", [1e6 * s for s in batches], "us", command, more_is_better=False)
    yield row("looking", shares, "% of a CPU", command, [ALLOWED], more_is_better=False)


def ask(url: str) -> None:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        answer.read()


def batch(metrics: ClientMetrics) -> None:
    metrics.progress(run="r", round_number=1, epoch=1, epochs=2, samples=32, seconds=1.0)
    metrics.late("r", 0.0)


def cpu_seconds(work: Callable[[], None], times: int) -> float:
    """Of this process, for each time."""
    before = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - before) / times
