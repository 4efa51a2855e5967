"""`fedbench top` against a server that answers as Prometheus did."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
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
from fedbench.host.setup.places import Places
from fedbench.host.watch import top
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.snapshot import RULES, ask
from fedbench.host.watch.top.state import Snapshot

Command = Callable[..., tuple[int, str, str]]
RUN = "20261125-124422-digits"
ROOT = Path(__file__).resolve().parents[4]
SHOWN_CURSOR, ENTERED_SCREEN, LEFT_SCREEN = b"\x1b[?25h", b"\x1b[?1049h", b"\x1b[?1049l"
MAIN = "from fedbench.cli import main; main()"
SCREEN = r"client ▲.*\? keys"
SHELL = """
import os, signal, subprocess, sys, termios
os.login_tty(0)
signal.signal(signal.SIGINT, lambda *_: None)
before = termios.tcgetattr(0)
main = "from fedbench.cli import main; main()"
process = subprocess.Popen([sys.executable, "-c", main, "top", "--prometheus", sys.argv[1]])
print("process", process.pid, flush=True)
code = process.wait()
found = "as before" if termios.tcgetattr(0) == before else "changed"
print(f"exit code {code}, terminal {found}", flush=True)
"""

BASH = """
import os
os.login_tty(0)
os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
"""


class Recorded(ThreadingHTTPServer):
    """Answers `fedbench top` from the recording, or as one that scrapes nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.data = answers()
        self.empty = self.broken = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Recorded

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query).get("query", [url.path])[0]
        self.server.asked.append(query)
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
        assert re.search(rf"\n{client:<11}  (training|waiting|sending) ", output)
    assert "\x1b" not in output
    assert "keys" not in output


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_pipe_may_have_any_encoding(recorded: Recorded, tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "top", "--once", "--prometheus", recorded.url],
        check=True, cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert RUN in text
    assert ("█" if encoding == "utf-8" else "???") in text


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
    keys = iter([[], [], ["q"]])
    healthy = ask

    def flaky(prometheus: Prometheus, run: str | None = None) -> Snapshot:
        if len(recorded.asked) == 4:
            recorded.asked.append("away")
            raise HostError("Prometheus does not answer")
        return healthy(prometheus, run)

    monkeypatch.setattr(top, "ask", flaky)
    monkeypatch.setattr(top, "pressed", lambda seconds: next(keys))
    console = Console(file=output, force_terminal=True, width=140, height=30)
    top.watch(Prometheus(recorded.url), None, console)
    first, second, third = output.getvalue().split("20261125-124422-digits")[:3]
    assert "Prometheus does not answer" not in first
    assert "Prometheus does not answer" in second
    assert "Prometheus does not answer" not in third
    assert len(recorded.asked) == 9


@pytest.mark.parametrize("then", ["another run", "nothing"])
def test_a_run_that_was_asked_for_stays_in_view_when_it_is_there_no_more(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    output = io.StringIO()

    def pressed(seconds: float) -> list[str]:
        if not recorded.empty and RUN in json.dumps(recorded.data):
            recorded.empty = then == "nothing"
            recorded.data = json.loads(json.dumps(recorded.data).replace(RUN, "other"))
            return []
        return ["q"]

    monkeypatch.setattr(top, "pressed", pressed)
    console = Console(file=output, force_terminal=True, width=140, height=30, color_system=None)
    top.watch(Prometheus(recorded.url), RUN, console)
    last = output.getvalue().rpartition("as of ")[2]
    why = f"has no run {RUN} now" if then == "another run" else "has no figures of a federation"
    assert re.match(rf"\d\d:\d\d:\d\d: {recorded.url} {why}", last)
    assert f"\n{RUN}  digits" in last.replace("\r", "")


def test_another_run_takes_the_place_of_one_that_nobody_asked_for(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    keys = iter([[], ["q"]])

    def pressed(seconds: float) -> list[str]:
        recorded.data = json.loads(json.dumps(recorded.data).replace(RUN, "20261126-other"))
        return next(keys)

    monkeypatch.setattr(top, "pressed", pressed)
    console = Console(file=output, force_terminal=True, width=140, height=30, color_system=None)
    top.watch(Prometheus(recorded.url), None, console)
    assert "20261126-other  digits" in output.getvalue().rpartition(RUN)[2]


class Terminal:
    """A program, that of a shell, in a terminal of its own, of 24 lines."""

    pid = 0
    drawn = ""

    def __init__(self, script: str, url: str, folder: Path, columns: int = 120) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        self.seen = b""
        self._shell = subprocess.Popen(
            [sys.executable, "-c", script, url], stdin=slave, stdout=slave, stderr=slave,
            cwd=folder, env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        os.close(slave)

    def press(self, keys: str, shows: str) -> str:
        """What is drawn of this pattern once the keys are pressed."""
        while self._more(0.2):
            pass
        self.seen = b""
        self.type(keys)
        return self.until(shows)

    def type(self, keys: str) -> None:
        """The keys alone."""
        os.write(self._master, keys.encode())

    def until(self, shows: str, seconds: float = 60) -> str:
        """What was drawn of this pattern since the last keys, as soon as it was."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(shows, self.text(), re.DOTALL)):
            assert time.monotonic() < deadline, self.text()
            self._more(0.1)
        return found.group()

    def _more(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.seen += os.read(self._master, 65536)
        return True

    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", self.seen.decode(errors="ignore"))

    def ends(self, code: int) -> None:
        """It has to end with this code, and leave the terminal as it was."""
        self.until(f"exit code {code}, terminal as before")
        assert SHOWN_CURSOR in self.seen
        assert LEFT_SCREEN in self.seen

    def close(self) -> None:
        self._shell.kill()  # as its session's leader, which takes the others along
        self._shell.wait()
        os.close(self._master)


@pytest.fixture
def terminal(recorded: Recorded, tmp_path: Path) -> Iterator[Terminal]:
    """`fedbench top` as a shell would start it."""
    opened = Terminal(SHELL, recorded.url, tmp_path)
    try:
        opened.pid = int(opened.until(r"process \d+\s").split()[1])
        opened.drawn = opened.until(SCREEN)
        yield opened
    finally:
        opened.close()


def order(text: str) -> list[str]:
    """The clients of the table, from top to bottom."""
    rows = (line.split() for line in text.splitlines())
    return [row[0] for row in rows if "3/3" in row]


def test_keys_sort_select_and_open(terminal: Terminal) -> None:
    assert order(terminal.drawn) == ["laptop", "legacy-pc", "workstation"]
    drawn = terminal.press("s", r"emulated s ▼.*\? keys")
    assert order(drawn) == ["legacy-pc", "workstation", "laptop"]
    terminal.press("\x1b[B\r", r"client +workstation .*received")
    drawn = terminal.press("k", r"client +legacy-pc .*\? keys")
    assert re.search(r"\nenergy +\d+\.\d+ kJ", drawn)
    terminal.press("\x1b", r"emulated s ▼.*\? keys")
    terminal.press("?", r"emulated s ▼.*Enter details")
    terminal.press("\r", "received")
    terminal.press("q", r"emulated s ▼.*q quit")
    terminal.type("q")
    terminal.ends(0)


@pytest.mark.parametrize("how", ["Ctrl-C", "kill"])
def test_it_leaves_the_terminal_as_it_was(terminal: Terminal, how: str) -> None:
    if how == "kill":
        os.kill(terminal.pid, signal.SIGTERM)
    else:
        terminal.type("\x03")
    terminal.ends(0)


def test_ctrl_z_gives_the_terminal_back_until_fg(recorded: Recorded, tmp_path: Path) -> None:
    shell = Terminal(BASH, recorded.url, tmp_path)
    try:
        shell.type(f"{sys.executable} -c '{MAIN}' top --prometheus {recorded.url}\n")
        shell.until(SCREEN)
        shell.press("\x1a", "Stopped")
        assert LEFT_SCREEN in shell.seen
        assert SHOWN_CURSOR in shell.seen
        assert shell.press("stty -a\n", r"-?icanon") == "icanon"
        shell.press("fg\n", SCREEN)
        assert ENTERED_SCREEN in shell.seen
        shell.press("s", r"emulated s ▼.*\? keys")
        shell.press("\x1a", "Stopped")
        shell.press("fg\n", SCREEN.replace("client ▲", "emulated s ▼"))
        shell.press("q", r"[$#] $")
        shell.press("echo code $?; stty -a\n", r"code 0.*susp = \^Z.*[^-]icanon")
    finally:
        shell.close()


def test_it_leaves_the_terminal_as_it_was_after_a_defect(
    terminal: Terminal, recorded: Recorded
) -> None:
    recorded.broken = True
    terminal.until("error: fedbench failed: KeyError")
    terminal.ends(70)


def test_a_prometheus_without_rules_says_so(recorded: Recorded, command: Command) -> None:
    """As one of the user's own: the same answers, without what the rules recorded."""
    facts = recorded.data["facts"]["result"]
    facts[:] = [item for item in facts if item["metric"]["__name__"] not in RULES]
    recorded.data["rules"]["groups"] = []
    code, output, _ = command("--prometheus", recorded.url)
    assert code == 0
    assert output.startswith("this Prometheus lacks recording rules of fedbench's compose/")
