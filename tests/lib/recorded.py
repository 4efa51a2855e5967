"""What a real Prometheus answered to `fedbench top`, amid a run (record_top.py)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fedbench.host.watch.prometheus import Sample, Series

FILE = Path(__file__).parents[1] / "golden" / "top" / "answers.json"


def answers() -> dict[str, dict[str, Any]]:
    """The data of each answer: facts, phases, curves, rules."""
    recorded: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return recorded


def top_answers() -> tuple[list[Sample], list[Series], list[Series], set[str]]:
    """The same, as a client of Prometheus gives them."""

    def samples(name: str) -> list[Sample]:
        result = answers()[name]["result"]
        return [Sample(item["metric"], float(item["value"][1])) for item in result]

    def series(name: str) -> list[Series]:
        return [
            Series(item["metric"], [(at, float(value)) for at, value in item["values"]])
            for item in answers()[name]["result"]
        ]

    rules = {rule["name"] for group in answers()["rules"]["groups"] for rule in group["rules"]}
    return samples("facts"), series("phases"), series("curves"), rules


class RecordedPrometheus(ThreadingHTTPServer):
    """Answers `fedbench top` from the recording, or as a Prometheus that scrapes nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.data = answers()
        self.empty = self.broken = False
        self.answers = threading.Event()  # it is silent while this is not set
        self.answers.set()
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[RecordedPrometheus]:
    """Serve the recording while the block runs."""
    with RecordedPrometheus() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.answers.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: RecordedPrometheus

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query).get("query", [url.path])[0]
        self.server.asked.append(query)
        self.server.answers.wait()
        data = self.server.data[_kind(query)]
        if self.server.empty:
            data = {**data, "result": [], "groups": []}
        if self.server.broken:
            data = {"resultType": "vector", "result": [{}], "groups": []}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _kind(query: str) -> str:
    if query.startswith("{"):
        return "facts"
    if query == "/api/v1/rules":
        return "rules"
    return "phases" if query.startswith("(fedbench_client_phase == 1)[240s:2s]") else "curves"
