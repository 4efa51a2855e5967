"""`fedbench top`: a full-screen view that keeps up with a federation, this one or another's.

Drawn with rich, which is there: one picture that is renewed and a few keys need no toolkit of
widgets.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.live import Live

from fedbench.errors import HostError, RunError
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.drawing import Board
from fedbench.host.watch.top.keys import keyboard, pressed
from fedbench.host.watch.top.snapshot import ask
from fedbench.host.watch.top.state import Snapshot
from fedbench.host.watch.top.view import View
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
    """Shows the state until q or Ctrl-C; the last one while there is none now, and says so.

    Raises:
        HostError, RunError: as `look`, at the beginning.
    """
    screen = _Screen(prometheus, run)
    live = Live(console=console, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), keyboard() as suspend, live:
        while _shown(screen, live, suspend):
            screen.renew()


def _shown(screen: _Screen, live: Live, suspend: Callable[[], None]) -> bool:
    """Draws the state as keys change the view, until a newer one is due; false after the last q."""
    due = time.monotonic() + _REFRESH_SECONDS
    live.update(screen.board(), refresh=True)
    while keys := pressed(max(due - time.monotonic(), 0)):
        if "suspend" in keys:
            live.stop()
            suspend()
            live.start()
        if not screen.press(keys):
            return False
        live.update(screen.board(), refresh=True)
    return True


class _Screen:
    """The state that is shown, and how it is looked at."""

    def __init__(self, prometheus: Prometheus, run: str | None) -> None:
        self._look = partial(look, prometheus, run)
        self._state, self._note, self._at = self._look(), "", _now()
        self._view = View()

    def board(self) -> Board:
        return Board(self._state, self._note, self._view)

    def press(self, keys: Iterable[str]) -> bool:
        """Whether anybody still looks."""
        for key in keys:
            if (after := self._view.after(key, self._state.devices)) is None:
                return False
            self._view = after
        return True

    def renew(self) -> None:
        """The present state, or the last one while there is none, with a note that says why."""
        try:
            self._state, self._note, self._at = self._look(), "", _now()
        except (HostError, RunError) as error:
            self._note = f"as of {self._at}: {error.message}"


def _now() -> str:
    return time.strftime("%H:%M:%S")


def export_svg(state: Snapshot, file: Path) -> None:
    """Writes the view as a picture, without the web fonts that rich would have it load."""
    console = Console(record=True, width=_SVG_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Board(state))
    svg = console.export_svg(title="fedbench top", unique_id="top")
    replace_text(file, re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))
