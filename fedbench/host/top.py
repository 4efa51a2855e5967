"""`fedbench top`: a full-screen view that keeps up with a federation, this one or another's.

Drawn with rich, which is there: one picture that is renewed and one key need no toolkit of widgets.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live

from fedbench.errors import HostError, RunError
from fedbench.host.prometheus import Prometheus
from fedbench.host.top_drawing import Board
from fedbench.host.top_figures import Snapshot, ask
from fedbench.records import replace_text

_REFRESH_SECONDS = 2.0
_SVG_COLUMNS = 140


def look(prometheus: Prometheus, run: str | None = None) -> Snapshot:
    """The state of a federation.

    Raises:
        HostError: Prometheus does not answer, or scrapes no federation.
        RunError: `run` is not the one that its server has.
    """
    state = ask(prometheus, run)
    if not state.devices and not state.runs:
        raise HostError(
            f"{prometheus.url} has no figures of a federation",
            "is one up there? `fedbench status` says where its Prometheus is",
        )
    if run and run not in state.runs:
        known = ", ".join(state.runs) or "no run"
        raise RunError(f"{prometheus.url} has no run {run} now", f"it has {known}")
    return state


def watch(prometheus: Prometheus, run: str | None, console: Console) -> None:
    """Shows the state until q or Ctrl-C; goes on while Prometheus is away, and says so.

    Raises:
        HostError, RunError: as `look`, at the beginning.
    """
    state, note = look(prometheus, run), ""
    screen = Live(console=console, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), _keys(), screen as live:
        while True:
            live.update(Board(state, note), refresh=True)
            if _quit_within(_REFRESH_SECONDS):
                return
            try:
                state, note = ask(prometheus, run), ""
            except HostError as error:
                at = time.strftime("%H:%M:%S", time.localtime(state.time))
                note = f"as of {at}: {error.message}"


def export_svg(state: Snapshot, file: Path) -> None:
    """Writes the view as a picture, without the web fonts that rich would have it load."""
    console = Console(record=True, width=_SVG_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Board(state))
    svg = console.export_svg(title="fedbench top", unique_id="top")
    replace_text(file, re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


@contextmanager
def _keys() -> Iterator[None]:
    """Each key at once, not with the line; Ctrl-C stays what it is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quit_within(seconds: float) -> bool:
    """Wait, and say whether q was pressed."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and b"q" in os.read(sys.stdin.fileno(), 64)
