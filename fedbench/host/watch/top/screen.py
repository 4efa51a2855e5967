"""`fedbench top` on a whole terminal: Textual reads the keys and keeps the terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import Static
from textual.worker import WorkerFailed

from fedbench.errors import HostError, RunError
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.device_pane import DevicePane
from fedbench.host.watch.top.device_table import BY_NAME, SORTS
from fedbench.host.watch.top.drawing import alerts, footer, head, wider
from fedbench.host.watch.top.query import look
from fedbench.host.watch.top.state import Snapshot

_REFRESH_SECONDS = 2.0
_KEYS = [
    Binding("s", "sort", "sort"),
    Binding("up,k", "select(-1)", "select", key_display="↑ ↓ or k j", priority=True),
    Binding("down,j", "select(1)", show=False, priority=True),
    Binding("enter", "open", "details", key_display="Enter", priority=True),
    Binding("escape", "leave", "back", key_display="Esc or q"),
    Binding("q", "leave_or_quit", "quit"),
    Binding("question_mark", "help", show=False),
    Binding("ctrl+c", "quit", show=False, priority=True),
    Binding("ctrl+z", "suspend_process", show=False, priority=True),
]
_HELP = "   ".join(f"{key.key_display or key.key} {key.description}" for key in _KEYS if key.show)


def watch(prometheus: Prometheus, run: str | None) -> None:
    """Show the state until q or Ctrl-C; while there is none now, show the last one and say so.

    Raises:
        HostError, RunError: as `look`, at the beginning.
    """
    app = TopApp(partial(look, prometheus, run), _REFRESH_SECONDS)
    if defect := app.run(mouse=False):  # the mouse still selects text, as the terminal has it
        raise defect


class TopApp(App[BaseException]):
    """A state that is renewed, and how it is looked at; a defect that ends it is its result."""

    CSS = """
    #head { height: auto; max-height: 50%; padding: 0 1; }
    #alerts { height: auto; max-height: 4; padding: 1 1 0 1; color: ansi_red; text-style: bold; }
    #keys {
        height: 1; padding: 0 1; color: ansi_bright_black;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [*_KEYS]

    def __init__(self, look: Callable[[], Snapshot], refresh_seconds: float) -> None:
        super().__init__()
        self.theme = "ansi-dark"  # the terminal's own colours, be they dark or light
        self._look, self._refresh_seconds = look, refresh_seconds
        self._state, self._at, self._note = look(), _now(), ""
        self._sort, self._help, self._width = BY_NAME, False, 0
        self._pane = DevicePane(self._state)
        self._head, self._alerts, self._keys = (
            Static(id=id_) for id_ in ("head", "alerts", "keys")
        )

    def compose(self) -> ComposeResult:
        """Put the widgets below each other."""
        yield self._head
        yield self._pane
        yield self._alerts
        yield self._keys

    def on_mount(self) -> None:
        """Begin to keep up, until the program is told to end."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self._keep_up()

    def on_resize(self, event: Resize) -> None:
        """Draw the state as wide as the terminal is now."""
        self._width = event.size.width
        self._draw()

    @work
    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await self.renew()

    async def renew(self) -> None:
        """Show the present state; while there is none, the last one, with a note that says why."""
        try:
            self._state = await _in_background(self._look)
            self._at, self._note = _now(), ""
        except (HostError, RunError) as error:
            self._note = f"as of {self._at}: {error.message}"
        self._draw()

    def action_sort(self) -> None:
        """Sort by the next column that can sort."""
        titles = [*SORTS]
        self._sort = titles[(titles.index(self._sort) + 1) % len(titles)]
        self._draw()

    def action_select(self, by: int) -> None:
        """Select a neighbour of the selected device."""
        self._pane.select(by)

    def action_open(self) -> None:
        """Open the details of the selected device."""
        self._pane.open_details(True)
        self._draw()

    def action_leave(self) -> None:
        """Close the details, else the help."""
        if self._pane.details_open:
            self._pane.open_details(False)
        else:
            self._help = False
        self._draw()

    def action_leave_or_quit(self) -> None:
        """Close the details, else end."""
        if self._pane.details_open:
            self.action_leave()
        else:
            self.exit()

    def action_help(self) -> None:
        """Show what each key does, or no longer."""
        self._help = not self._help
        self._draw()

    def action_suspend_process(self) -> None:
        """Give the terminal back until the shell's `fg`.

        All processes of the job stop, `make` too if it started this one.
        """
        with self.suspend():
            handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.killpg(0, signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, handler)

    def _handle_exception(self, error: Exception) -> None:
        """End with a defect, which the command reports; Textual would print its traceback."""
        self.exit(error.error if isinstance(error, WorkerFailed) else error)

    def _draw(self) -> None:
        state = self._state
        note = [Text(self._note, "bold yellow")] if self._note else []
        self._head.update(Group(*note, *head(state)))
        left_out = self._pane.show(state, self._sort, self._width)
        self._alerts.update(alerts(state.alerts))
        self._alerts.display = bool(state.alerts)
        words = [_HELP if self._help else "? keys"]
        if left_out and not self._pane.details_open:
            words.append(wider(left_out))
        self._keys.update(footer("   ".join(words)))


def _in_background(ask: Callable[[], Snapshot]) -> asyncio.Future[Snapshot]:
    """Ask in a thread that, unlike asyncio's, nobody waits for who ends before the answer."""
    answer: Future[Snapshot] = Future()
    answer.set_running_or_notify_cancel()  # from now on it has a result, needed or not

    def work() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=work, daemon=True).start()
    return asyncio.wrap_future(answer)


def _now() -> str:
    return time.strftime("%H:%M:%S")
