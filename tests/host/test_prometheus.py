from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from fedbench.errors import HostError
from fedbench.host.prometheus import Prometheus, Sample, Series, Target
from fedbench.records import ClientRound, RoundParts, RoundRecord
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.metrics import ROUND_PARTS
from fedbench.telemetry.server import ServerMetrics

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "compose/prometheus/prometheus.yml"

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus"), reason="no prometheus on PATH (Debian's package has it)"
)


@contextmanager
def http_server(answer: Callable[[str], tuple[int, str]]) -> Iterator[str]:
    """The address, host:port, of a server that answers each GET path with a status and a body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            kind = "application/json" if body.startswith(("{", "[")) else "text/plain"
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# -- without a Prometheus: answers as the API documents them


@contextmanager
def api(data: object, status: int = 200) -> Iterator[Prometheus]:
    body = data if isinstance(data, str) else json.dumps(data)
    with http_server(lambda path: (status, body)) as address:
        yield Prometheus(f"http://{address}/")


def test_a_vector_becomes_samples() -> None:
    series = {"metric": {"__name__": "up", "client": "lap"}, "value": [1732363200.5, "0.25"]}
    answer = {"status": "success", "data": {"resultType": "vector", "result": [series]}}

    with api(answer) as prometheus:
        assert prometheus.query("up") == [Sample({"__name__": "up", "client": "lap"}, 0.25)]


def test_a_range_is_of_the_clock_of_prometheus() -> None:
    asked = []
    series = {"metric": {"client": "lap"}, "values": [[1732363200, "0.25"], [1732363202, "1"]]}
    answer = {"status": "success", "data": {"resultType": "matrix", "result": [series]}}

    def respond(path: str) -> tuple[int, str]:
        asked.append(unquote(path))
        return 200, json.dumps(answer)

    with http_server(respond) as address:
        found = Prometheus(f"http://{address}").query_range("up == 1", 60, 2)
    assert found == [Series({"client": "lap"}, [(1732363200.0, 0.25), (1732363202.0, 1.0)])]
    assert asked == ["/api/v1/query?query=(up+==+1)[60s:2s]"]


def test_recording_rules_are_known_by_name() -> None:
    groups = [{"rules": [{"name": "a:b:rate"}, {"name": "c:d:ratio"}]}, {"rules": []}]

    with api({"status": "success", "data": {"groups": groups}}) as prometheus:
        assert prometheus.recording_rules() == {"a:b:rate", "c:d:ratio"}


def test_a_scalar_becomes_one_sample() -> None:
    answer = {"status": "success", "data": {"resultType": "scalar", "result": [1.0, "2"]}}

    with api(answer) as prometheus:
        assert prometheus.query("1 + 1") == [Sample({}, 2.0)]


def test_a_refused_query_says_why() -> None:
    answer = {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected )"}

    with api(answer, 400) as prometheus, pytest.raises(HostError, match="parse error: unexpected"):
        prometheus.query("up)")


def test_one_that_is_starting_is_not_ready_and_answers_nothing() -> None:
    with api("Service Unavailable", 503) as prometheus:
        assert not prometheus.ready()
        with pytest.raises(HostError, match="does not answer"):
            prometheus.query("up")


def test_one_that_is_not_there_says_where_it_was_looked_for() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert not Prometheus(url).ready()
    with pytest.raises(HostError, match=f"does not answer at {url}") as caught:
        Prometheus(url).targets()
    assert "fedbench status" in caught.value.hint


# -- with a real Prometheus, a server and two clients


def client_registry(cgroup: Cgroup) -> CollectorRegistry:
    """What a client shows after one epoch."""
    registry = CollectorRegistry()
    metrics = ClientMetrics(registry, cgroup)
    metrics.connected(True)
    metrics.partition(600)
    metrics.progress(run="r1", round_number=1, epoch=1, epochs=1, samples=300, seconds=1.0)
    metrics.epoch_finished(
        run="r1", round_number=1, seconds=2.0, loss=1.5, accuracy=0.5, samples=600
    )
    metrics.late("r1", 0.25)
    metrics.evaluated(run="r1", round_number=1, seconds=0.5, loss=1.25, accuracy=0.625)
    metrics.transferred(sent=9_000_000, received=9_000_000)
    return registry


def server_registry() -> CollectorRegistry:
    """What the server shows after one round."""
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    metrics.clients_connected(2)
    metrics.run_phase("r1", "running")
    record = RoundRecord(
        round=1,
        started_at="2026-11-23T12:00:00Z",
        server_accuracy=0.75,
        server_loss=0.5,
        server_epoch_seconds=0.25,
        duration_seconds=3.0,
        overhead_seconds=0.5,
        aggregate_seconds=0.125,
        parts=RoundParts(send=0.1, receive=0.1, serialise=0.05, aggregate=0.125, wait=0.125),
        clients=[
            ClientRound(
                client=name,
                device=name,
                epoch_seconds=[2.0],
                target_epoch_seconds=1.9,
                emulation_error=2.0 / 1.9 - 1,
            )
            for name in ("desk", "lap")
        ],
    )
    metrics.observe(record, "r1", 5)
    return registry


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 seconds"
        time.sleep(0.1)


def fast_config(server: str) -> dict[str, Any]:
    """The real configuration, with this server and shorter intervals."""
    config: dict[str, Any] = yaml.safe_load(
        re.sub(r"\b[25]s\b", "200ms", CONFIG.read_text()).replace("server:9100", server)
    )
    return config


@contextmanager
def prometheus_process(config: dict[str, Any], folder: Path) -> Iterator[Prometheus]:
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until(prometheus.ready)
            yield prometheus
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def targets() -> list[dict[str, Any]]:
    """What the server answers at /targets; a test may change it."""
    return []


@pytest.fixture(scope="module")
def live(
    targets: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    clients, server = (
        client_registry(limited_cgroup(tmp_path_factory.mktemp("v2"))),
        server_registry(),
    )

    def answer(path: str) -> tuple[int, str]:
        if path == "/targets":
            return 200, json.dumps(targets)
        return 200, generate_latest(server).decode()

    with (
        http_server(answer) as server_address,
        http_server(lambda path: (200, generate_latest(clients).decode())) as desk,
        http_server(lambda path: (200, generate_latest(clients).decode())) as lap,
        prometheus_process(fast_config(server_address), tmp_path_factory.mktemp("p")) as prometheus,
    ):
        targets[:] = [
            {"targets": [desk], "labels": {"client": "desk", "device": "workstation"}},
            {"targets": [lap], "labels": {"client": "lap", "device": "laptop"}},
        ]
        wait_until(lambda: [t.health for t in prometheus.targets()] == ["up"] * 3)
        wait_until(lambda: len(prometheus.query("rate(fedbench_cpu_seconds_total[5s])")) == 2)
        yield prometheus


def limited_cgroup(root: Path) -> Cgroup:
    base = root / "sys/fs/cgroup"
    base.mkdir(parents=True)
    (base / "cpu.max").write_text("50000 100000")
    (base / "memory.max").write_text("1073741824")
    (root / "proc").mkdir()
    (root / "proc/stat").write_text("cpu0 9 0 9 9 0 0 0 200 0 0\n")
    return Cgroup(root)


@needs_prometheus
def test_it_finds_the_server_and_every_client(live: Prometheus) -> None:
    assert live.targets() == [
        Target("clients", "desk", "workstation", "up", ""),
        Target("clients", "lap", "laptop", "up", ""),
        Target("server", "", "", "up", ""),
    ]
    epochs = live.query("fedbench_local_epoch_last_seconds")
    assert {(s.labels["client"], s.labels["device"], s.labels["run"], s.value) for s in epochs} == {
        ("desk", "workstation", "r1", 2.0),
        ("lap", "laptop", "r1", 2.0),
    }
    (accuracy,) = live.query("fedbench_server_accuracy")
    assert (accuracy.labels["role"], accuracy.value) == ("server", 0.75)


def dashboard_queries() -> list[str]:
    panels = [
        panel
        for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
    ]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


@needs_prometheus
@pytest.mark.parametrize("expression", dashboard_queries())
def test_every_panel_has_data(expression: str, live: Prometheus) -> None:
    # As Grafana fills them in when all runs and clients are chosen.
    for name, value in {"$run": ".*", "$client": ".*", "$__rate_interval": "8s"}.items():
        expression = expression.replace(name, value)

    samples = live.query(expression)

    grouped = {"by (client)": 2, "by (part)": len(ROUND_PARTS)}
    assert len(samples) == next((n for by, n in grouped.items() if by in expression), 1)
    assert not any(math.isnan(sample.value) for sample in samples)


@needs_prometheus
def test_a_device_that_left_is_no_longer_scraped(
    live: Prometheus, targets: list[dict[str, Any]]
) -> None:
    everyone = list(targets)
    targets.pop()
    try:
        wait_until(lambda: [t.client for t in live.targets()] == ["desk", ""])
        wait_until(lambda: len(live.query("fedbench_usable_cpus")) == 1)
        assert len(live.query("last_over_time(fedbench_usable_cpus[1m])")) == 2
    finally:
        targets[:] = everyone


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_the_dashboards_run_confined_and_for_this_host_only(name: str) -> None:
    service = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert not any("docker.sock" in volume for volume in service["volumes"])


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool on PATH")
def test_promtool_accepts_the_configuration() -> None:
    subprocess.run(["promtool", "check", "config", CONFIG], check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool on PATH")
@pytest.mark.parametrize("kind", ["client", "server"])
def test_promtool_finds_nothing_wrong_with_the_metrics(kind: str) -> None:
    registry = client_registry(Cgroup()) if kind == "client" else server_registry()

    subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(registry),
        check=True,
        capture_output=True,
    )
