"""`fedbench top` against a server that answers as Prometheus did."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from recorded import answers
from rich.console import Console

from fedbench import cli
from fedbench.cli import checkout
from fedbench.errors import HostError, RunError
from fedbench.host import top
from fedbench.host.prometheus import Prometheus
from fedbench.host.stack import Places
from fedbench.host.top_figures import Snapshot, ask

Command = Callable[..., tuple[int, str, str]]
RUN = "20261125-124422-digits"


class Recorded(ThreadingHTTPServer):
    """Answers `fedbench top` from the recording, or as one that scrapes nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.empty = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Recorded

    def do_GET(self) -> None:
        (query,) = parse_qs(urlsplit(self.path).query)["query"]
        self.server.asked.append(query)
        data = answers()[_kind(query)]
        if self.server.empty:
            data = {**data, "result": []}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _kind(query: str) -> str:
    if query.startswith("label_replace("):
        return "rates"
    if query.startswith("{"):
        return "facts"
    return "phases" if query.startswith("(fedbench_client_phase == 1)[240s:2s]") else "curves"


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with Recorded() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `fedbench top` in an empty checkout: exit code, standard output, standard error."""
    monkeypatch.setattr(checkout, "places", Places(tmp_path))

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedbench", "top", *argv])
        with pytest.raises(SystemExit) as done:
            cli.main()
        code = done.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def test_all_is_had_in_four_requests(recorded: Recorded) -> None:
    state = ask(Prometheus(recorded.url))
    assert len(recorded.asked) == 4
    assert state.runs == (RUN,)


def test_without_a_terminal_it_prints_the_state_once(recorded: Recorded, command: Command) -> None:
    code, output, _ = command("--prometheus", recorded.url)
    assert code == 0
    assert RUN in output
    for client in ("laptop", "legacy-pc", "workstation"):
        assert f"\n{client:<11}  training" in output
    assert "\x1b" not in output


def test_a_picture_has_every_client_and_loads_nothing(
    recorded: Recorded, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "top.svg"
    code, _, said = command("--prometheus", recorded.url, "--svg", str(file))
    assert (code, said) == (0, f"drawn into {file}\n")
    svg = file.read_text()
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert all(client in text for client in ("laptop", "legacy-pc", "workstation"))
    assert "@font-face" not in svg
    assert "url(http" not in svg


def test_no_federation_is_up(command: Command) -> None:
    code, _, said = command("--once")
    assert code == 1
    assert said.startswith("error: no federation is up\nhint: ")


def test_no_prometheus_there(command: Command) -> None:
    with Recorded() as server:
        url = server.url  # closed before it is asked
    code, _, said = command("--prometheus", url)
    assert code == 3
    assert said.startswith(f"error: Prometheus does not answer at {url}: ")


def test_a_prometheus_of_something_else(recorded: Recorded) -> None:
    recorded.empty = True
    with pytest.raises(HostError, match="has no figures of a federation"):
        top.look(Prometheus(recorded.url))


def test_a_run_that_is_not_there(recorded: Recorded) -> None:
    with pytest.raises(RunError, match="has no run other now") as caught:
        top.look(Prometheus(recorded.url), "other")
    assert caught.value.hint == f"it has {RUN}"


def test_it_goes_on_while_prometheus_is_away(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    keys = iter([False, False, True])
    healthy = ask

    def flaky(prometheus: Prometheus, run: str | None = None) -> Snapshot:
        if len(recorded.asked) == 4:
            recorded.asked.append("away")
            raise HostError("Prometheus does not answer")
        return healthy(prometheus, run)

    monkeypatch.setattr(top, "ask", flaky)
    monkeypatch.setattr(top, "_quit_within", lambda seconds: next(keys))
    console = Console(file=output, force_terminal=True, width=140, height=30)
    top.watch(Prometheus(recorded.url), None, console)
    first, second, third = output.getvalue().split("20261125-124422-digits")[:3]
    assert "Prometheus does not answer" not in first
    assert "Prometheus does not answer" in second
    assert "Prometheus does not answer" not in third
    assert len(recorded.asked) == 9
