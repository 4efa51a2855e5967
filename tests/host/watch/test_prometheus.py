"""Answers as Prometheus' API documents them; tests/e2e asks a real one, of a real run."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from fedbench.engines.containers.runtime import certificates
from fedbench.errors import HostError
from fedbench.host.watch.prometheus import Prometheus, Sample, Series, Target


@contextmanager
def http_server(
    answer: Callable[[str], tuple[int, str]], secure: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The address, host:port, of a server that answers each GET path with a status and a body.

    The body of a redirect, 302, is where to.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            kind = "application/json" if body.startswith(("{", "[")) else "text/plain"
            self.send_header("Content-Type", kind)
            if status == 302:
                self.send_header("Location", body)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if secure:
        server.socket = secure.wrap_socket(server.socket, server_side=True)
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


def test_targets_are_in_the_order_of_job_and_client() -> None:
    server = {"labels": {"job": "server", "role": "server"}, "health": "up", "lastError": ""}
    labels = {"job": "clients", "device": "laptop"}
    lap = {"labels": labels | {"client": "lap"}, "health": "down", "lastError": "refused"}
    desk = {"labels": labels | {"client": "desk"}, "health": "up", "lastError": ""}

    with api({"status": "success", "data": {"activeTargets": [server, lap, desk]}}) as prometheus:
        assert prometheus.targets() == [
            Target("clients", "desk", "laptop", "up", ""),
            Target("clients", "lap", "laptop", "down", "refused"),
            Target("server", "", "", "up", ""),
        ]


def test_a_refused_query_says_why() -> None:
    answer = {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected )"}

    with api(answer, 400) as prometheus, pytest.raises(HostError, match="parse error: unexpected"):
        prometheus.query("up)")


def test_one_that_is_starting_is_not_ready_and_answers_nothing() -> None:
    with api("Service Unavailable", 503) as prometheus:
        assert not prometheus.ready()
        with pytest.raises(HostError, match="does not answer"):
            prometheus.query("up")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"message": "Not found", "traceID": ""}),  # Grafana
        (200, []),
        (200, {"status": "success", "data": {"user": "me"}}),
        (200, {"status": "success", "data": None}),
        (200, {"status": "ok"}),
        (200, "<html>who are you?</html>"),
        (200, ""),
    ],
)
def test_what_is_no_prometheus_is_said_to_be_none(status: int, body: object) -> None:
    with api(body, status) as prometheus:
        for ask in (lambda: prometheus.query("up"), prometheus.recording_rules, prometheus.targets):
            with pytest.raises(HostError, match=f"answers at http.* is no Prometheus: {status} "):
                ask()


def test_a_page_to_log_in_is_no_prometheus() -> None:
    def answer(path: str) -> tuple[int, str]:
        return (200, "who are you?") if path == "/login" else (302, "/login")

    with (
        http_server(answer) as address,
        pytest.raises(HostError, match=r"is no Prometheus: 200 OK, text/plain, from .*/login$"),
    ):
        Prometheus(f"http://{address}").query("up")


@pytest.mark.parametrize(
    "url",
    ["host:9090", "localhost:9090", "127.0.0.1:9090", "ftp://host", "http://", "", "http://h:x"],
)
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    with pytest.raises(HostError, match="is no URL of a Prometheus") as caught:
        Prometheus(url).query("up")
    assert caught.value.hint == "expected http://host:port"


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, ["127.0.0.1"])
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(tmp_path / "server" / "server.pem", tmp_path / "server" / "server.key")
    with http_server(lambda _: (200, "{}"), secure) as address:
        url = f"https://{address}"
        with pytest.raises(HostError, match="certificate verify failed") as caught:
            Prometheus(url).query("up")
    assert caught.value.message.startswith(f"no secure connection to {url}: ")
    assert "ssh -N -L 9090:localhost:9090" in caught.value.hint


def test_one_that_is_not_there_says_where_it_was_looked_for() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert not Prometheus(url).ready()
    with pytest.raises(HostError, match=f"does not answer at {url}") as caught:
        Prometheus(url).targets()
    assert "fedbench status" in caught.value.hint
