"""The part of the screen that has the devices: their table, what they did, and one's details."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from fedbench.host.watch.top.detail import detail
from fedbench.host.watch.top.device_table import GAP, fit, ordered
from fedbench.host.watch.top.drawing import Timelines
from fedbench.host.watch.top.state import DeviceState, Snapshot

_LEGEND_LINES = 2  # an empty line before the timelines and the legend after them
_FEWEST_LINES = 6  # of the pane, for timelines to be seen at all


class DevicePane(Vertical):
    """Rows of devices, one of which is selected, above the timelines for which there is room."""

    DEFAULT_CSS = """
    DevicePane {
        height: 1fr;
        min-height: 4;
        & > DataTable { scrollbar-size: 0 1; }
        & > DataTable:ansi > .datatable--header { background: ansi_default; }
        & > #detail { display: none; }
        & > #timelines { padding: 1 1 0 1; }
        &.-detail > DataTable { display: none; }
        &.-detail > #detail { display: block; padding: 0 1; }
    }
    """

    def __init__(self, state: Snapshot) -> None:
        super().__init__()
        self._state = state
        self._devices: list[DeviceState] = []
        self._table: DataTable[Text] = DataTable(cursor_type="row", cell_padding=GAP // 2)
        self._detail, self._timelines = Static(id="detail"), Static(id="timelines")

    def compose(self) -> ComposeResult:
        """Put the widgets below each other."""
        yield self._table
        yield self._detail
        yield self._timelines

    @property
    def selected(self) -> DeviceState | None:
        """The device of the row where the cursor is; None where there is no device."""
        return self._devices[self._table.cursor_row] if self._devices else None

    @property
    def details_open(self) -> bool:
        """True while the details of the selected device take the place of the table."""
        return self.has_class("-detail")

    def show(self, state: Snapshot, sort: str, width: int) -> list[str]:
        """Draw a state, and return the titles of the columns for which there is no room.

        The device that was selected still is, and the rows stay where they were.
        """
        selected, x, y = self.selected, self._table.scroll_x, self._table.scroll_y
        self._state, self._devices = state, ordered(state.devices, sort)
        left_out = self._fill(sort, width - GAP)
        self._table.scroll_to(x, y, animate=False, immediate=True)
        names = [device.client for device in self._devices]
        if selected and selected.client in names:
            self._table.move_cursor(row=names.index(selected.client))
        if not names:
            self.remove_class("-detail")
        self.draw_selected()
        return left_out

    def select(self, by: int) -> None:
        """Move the cursor by so many rows, and not beyond the ends."""
        self._table.move_cursor(row=self._table.cursor_row + by)
        self.draw_selected()

    def open_details(self, is_open: bool) -> None:
        """Let details take the place of the table, or give it back."""
        self.set_class(is_open and self.selected is not None, "-detail")
        self.draw_selected()
        if not self.details_open:
            self._table.focus()

    def draw_selected(self) -> None:
        """Draw what belongs to the selected device alone, and as many timelines as fit."""
        chosen = [self.selected] if self.selected else []
        if chosen:
            self._detail.update(detail(chosen[0], self._state))
        lines = self.size.height - _LEGEND_LINES
        fits = 1 + 2 * len(self._devices) <= lines
        timelines = self._devices if fits and not self.details_open else chosen
        self._timelines.update(Timelines(timelines, self._state.time))
        self._timelines.display = self.size.height >= _FEWEST_LINES
        below = _LEGEND_LINES + len(timelines) if self._timelines.display else 0
        self._table.styles.max_height = self.size.height - below

    def on_resize(self) -> None:
        """Draw as many timelines as fit now."""
        self.draw_selected()

    def on_data_table_row_highlighted(self) -> None:
        """Follow the cursor, which page keys move too."""
        self.draw_selected()

    def _fill(self, sort: str, width: int) -> list[str]:
        columns, left_out = fit(self._devices, width, sort)
        self._table.clear(columns=True)
        for column in columns:
            heading = Text(column.heading(sort), justify=column.justify)
            self._table.add_column(heading, width=column.width(self._devices, sort))
        for device in self._devices:
            self._table.add_row(*(column.text(device) for column in columns))
        return left_out
