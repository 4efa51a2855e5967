"""What only a terminal shows: that `fedbench top` leaves it as it was, and goes on after `fg`."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from recorded import RecordedPrometheus, serving

ROOT = Path(__file__).resolve().parents[4]
SHOWN_CURSOR, ENTERED_SCREEN, LEFT_SCREEN = b"\x1b[?25h", b"\x1b[?1049h", b"\x1b[?1049l"
MAIN = "from fedbench.cli import main; main()"
SCREEN = r"client ▲.*\? keys"
SHELL = f"""
import os, signal, subprocess, sys, termios
os.login_tty(0)
signal.signal(signal.SIGINT, lambda *_: None)
before = termios.tcgetattr(0)
process = subprocess.Popen([sys.executable, "-c", "{MAIN}", "top", "--prometheus", sys.argv[1]])
print("process", process.pid, flush=True)
code = process.wait()
state = "as before" if termios.tcgetattr(0) == before else "changed"
print(f"exit code {{code}}, terminal {{state}}", flush=True)
"""
QUICK = "from fedbench.host.watch.top import screen; screen._REFRESH_SECONDS = 0.1"
BASH = """
import os
os.login_tty(0)
os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
"""


@pytest.fixture
def recorded() -> Iterator[RecordedPrometheus]:
    with serving() as server:
        yield server


class Terminal:
    """A program, that of a shell, in a terminal of its own, of 24 lines."""

    pid = 0

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
        while self._more(0.1):
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
        while not (match := re.search(shows, self.text(), re.DOTALL)):
            assert time.monotonic() < deadline, self.text()
            self._more(0.1)
        return match.group()

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


@contextmanager
def started(script: str, recorded: RecordedPrometheus, folder: Path) -> Iterator[Terminal]:
    """Start `fedbench top` as a shell would; yield once it is on the screen."""
    shell = Terminal(script, recorded.url, folder)
    try:
        shell.pid = int(shell.until(r"process \d+\s").split()[1])
        shell.until(SCREEN)
        yield shell
    finally:
        shell.close()


@pytest.fixture
def terminal(recorded: RecordedPrometheus, tmp_path: Path) -> Iterator[Terminal]:
    with started(SHELL, recorded, tmp_path) as shell:
        yield shell


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "kill"])
def test_it_leaves_the_terminal_as_it_was(terminal: Terminal, how: str) -> None:
    if how == "kill":
        os.kill(terminal.pid, signal.SIGTERM)
    else:
        terminal.type("q" if how == "q" else "\x03")
    terminal.ends(0)


def test_it_leaves_the_terminal_as_it_was_after_a_defect(
    recorded: RecordedPrometheus, tmp_path: Path
) -> None:
    with started(SHELL.replace(MAIN, f"{QUICK}; {MAIN}"), recorded, tmp_path) as terminal:
        recorded.broken = True
        terminal.until("error: fedbench failed: KeyError")
        terminal.ends(70)


def test_it_ends_at_once_while_prometheus_is_silent(
    recorded: RecordedPrometheus, tmp_path: Path
) -> None:
    with started(SHELL.replace(MAIN, f"{QUICK}; {MAIN}"), recorded, tmp_path) as terminal:
        recorded.answers.clear()
        asked = len(recorded.asked)
        while len(recorded.asked) == asked:
            time.sleep(0.01)
        terminal.press("s", "emulated s ▼")
        terminal.type("q")
        terminal.until("exit code 0, terminal as before", seconds=3)  # it is asked for 5


def test_keys_of_a_terminal_sort_select_and_open(terminal: Terminal) -> None:
    terminal.press("s", r"emulated s ▼")
    terminal.press("\x1b[B\x1bOA\r", r"client +workstation ")  # arrows, of either mode
    terminal.press("\x1b", r"CPU of quota")
    terminal.press("?", "Enter details")
    terminal.type("q")
    terminal.ends(0)


def test_ctrl_z_gives_the_terminal_back_until_fg(
    recorded: RecordedPrometheus, tmp_path: Path
) -> None:
    """It does as well where another program, as make, started it: both stop."""
    (tmp_path / "top.py").write_text(MAIN)
    shell = Terminal(BASH, recorded.url, tmp_path)
    try:
        top = f"{sys.executable} top.py top --prometheus {recorded.url}"
        shell.type(f"sh -c '{top}; exit $?'\n")
        shell.until(SCREEN)
        shell.press("\x1a", "Stopped")
        assert LEFT_SCREEN in shell.seen
        assert SHOWN_CURSOR in shell.seen
        assert shell.press("stty -a\n", r"-?icanon") == "icanon"
        shell.press("fg\n", SCREEN)
        assert ENTERED_SCREEN in shell.seen
        shell.press("s", r"emulated s ▼")
        shell.press("\x1a", "Stopped")
        shell.press("fg\n", SCREEN.replace("client ▲", "emulated s ▼"))
        shell.press("q", r"[$#] $")
        shell.press("echo code $?; stty -a\n", r"code 0.*susp = \^Z.*[^-]icanon")
    finally:
        shell.close()


def test_without_a_keyboard_it_prints_the_state_once(
    recorded: RecordedPrometheus, tmp_path: Path
) -> None:
    shell = Terminal(
        SHELL.replace("sys.argv[1]]", "sys.argv[1]], stdin=-3"), recorded.url, tmp_path
    )
    try:
        shell.until("client .*exit code 0, terminal as before")
        assert ENTERED_SCREEN not in shell.seen
    finally:
        shell.close()
