from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from fedbench.records.clock import Dilation
from fedbench.records.energy import Draw
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.emulated_device import EmulatedDevice
from fedbench.telemetry.exposition import render, serve


@pytest.fixture
def registry(tmp_path: Path) -> CollectorRegistry:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu0 1 2 3 4 5 6 7 8 9 10\n")
    registry = CollectorRegistry()
    metrics = ClientMetrics(
        registry,
        Cgroup(tmp_path),
        clock=lambda: 0.0,
        device=EmulatedDevice(Dilation(2.0), Draw(10.0, 40.0)),
    )
    metrics.epoch_finished(
        run="20260102-030405-digits", round_number=1, seconds=2.0, loss=float("nan"),
        accuracy=1e-7, samples=64, due=2.0,
    )  # fmt: skip
    return registry


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    server = serve(0, registry)
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_it_says_what_the_library_says(registry: CollectorRegistry) -> None:
    ours, theirs = (text.decode() for text in (render(registry), generate_latest(registry)))
    assert len(list(parse(ours))) > 20
    assert list(map(str, parse(ours))) == list(map(str, parse(theirs)))


def test_a_connection_serves_scrape_after_scrape(port: int, registry: CollectorRegistry) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, render(registry))
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        sockets.add(connection.sock)
    assert len(sockets) == 1
    assert connection.sock is not None
    connection.close()
