"""A row for each device, in as many columns as there is room for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from fedbench.config.units import format_number
from fedbench.host.palette import TERMINAL_PHASES
from fedbench.host.watch.top.state import DeviceState

_SIGNS = {"waiting": "·", "receiving": "▼", "training": "█", "evaluating": "▒", "sending": "▲"}
# A phase's colour, and its sign on the timeline, which tells it without colours too.
PHASES = {phase: (TERMINAL_PHASES[phase], sign) for phase, sign in _SIGNS.items()}
PHASES["gone"] = ("red", " ")
UNKNOWN = ("default", "?")  # a phase of another version's client
_HIGH = 0.9  # of a quota or a limit: worth a look
_ERROR = 0.05  # as the bar of `fedbench fidelity`
GAP = 2  # characters between two columns
BY_NAME = "client"  # the column by which devices are sorted at first


@dataclass(frozen=True)
class DeviceColumn:
    """A figure of each device.

    `rank` says when it goes where the terminal is narrow: the highest first, 0 never.
    Devices can be sorted by `sort`, the highest first; by name where it gives None.
    """

    title: str
    rank: int
    cell: Callable[[DeviceState], Text | str]
    justify: Literal["left", "right"] = "right"
    sort: Callable[[DeviceState], float | None] | None = None

    def heading(self, sort: str) -> str:
        """Return the title, marked where it is the one that sorts."""
        if self.title != sort:
            return self.title
        return f"{self.title} {'▲' if sort == BY_NAME else '▼'}"

    def text(self, device: DeviceState) -> Text:
        """Return the cell of a device's row."""
        cell = self.cell(device)
        text = Text(cell) if isinstance(cell, str) else cell
        text.no_wrap, text.justify = True, self.justify
        return text

    def width(self, devices: Sequence[DeviceState], sort: str) -> int:
        """Return how many characters it needs."""
        widths = [self.text(device).cell_len for device in devices]
        return max(Text(self.heading(sort)).cell_len, *widths, 0)


def blocks(part: float, width: int, colour: str = "green") -> Text:
    """Return a part, 0 to 1, as a bar of `width` characters; it is empty where that is NaN."""
    full = round(min(max(0.0, part), 1.0) * width)  # 0 first: max keeps it beside NaN
    return Text().append("█" * full, colour).append("░" * (width - full), "bright_black")


def bar(part: float | None, width: int = 6) -> Text:
    """Return the same with its percentage, and marked where it is high."""
    if part is None:
        return Text("-")
    return blocks(part, width, "yellow" if part >= _HIGH else "green").append(f" {part:4.0%}")


def phase(device: DeviceState) -> Text:
    """Return the phase that it is in, in its colour."""
    colour, _ = PHASES.get(device.phase, UNKNOWN)
    return Text(device.phase, colour)


def error(device: DeviceState) -> Text:
    """Return how far its epoch was from its target."""
    if device.error is None:
        return Text("-")
    digits = 1 if abs(device.error) < 1 else 0
    return Text(f"{device.error:+.{digits}%}", "red" if abs(device.error) > _ERROR else "green")


def scaled(value: float | None, unit: float, form: str) -> str:
    """Return a figure in multiples of `unit`."""
    return format_number(None if value is None else value / unit, form)


def _epoch(device: DeviceState) -> Text | str:
    if device.epoch is None or not device.epochs:
        return "-"
    return blocks(device.epoch / device.epochs, 4).append(
        f" {device.epoch:.0f}/{device.epochs:.0f}"
    )


def _memory(device: DeviceState) -> Text | str:
    used = scaled(device.memory, 2**20, ".0f")
    if not device.memory_limit:
        return used
    share = Text() if device.memory_use is None else bar(device.memory_use, 4)
    return share.append(f" {used:>5}/{device.memory_limit / 2**20:.0f}")


_COLUMNS = (
    DeviceColumn(BY_NAME, 0, lambda d: d.client, "left", sort=lambda _: None),
    DeviceColumn("phase", 0, phase, "left"),
    DeviceColumn("epoch", 0, _epoch),
    DeviceColumn("samples/s", 9, lambda d: format_number(d.speed, ".0f")),
    DeviceColumn(
        "emulated s",
        1,
        lambda d: format_number(d.epoch_seconds, ".2f"),
        sort=lambda d: d.epoch_seconds,
    ),
    DeviceColumn("target", 5, lambda d: format_number(d.target_seconds, ".2f")),
    DeviceColumn("error", 2, error),
    DeviceColumn("CPU of quota", 0, lambda d: bar(d.cpu_use), sort=lambda d: d.cpu_use),
    DeviceColumn("throttled", 6, lambda d: format_number(d.throttled, ".0%")),
    DeviceColumn("memory MiB", 7, _memory, "left", sort=lambda d: d.memory),
    DeviceColumn("sent kB/s", 12, lambda d: scaled(d.sent.rate, 1e3, ".0f")),
    DeviceColumn("recv kB/s", 11, lambda d: scaled(d.received.rate, 1e3, ".0f")),
    DeviceColumn("loss", 8, lambda d: format_number(d.loss, ".3f")),
    DeviceColumn("accuracy", 4, lambda d: format_number(d.accuracy, ".3f")),
    DeviceColumn("W", 10, lambda d: format_number(d.watts, ".0f")),
    DeviceColumn("kJ", 3, lambda d: scaled(d.joules, 1e3, ".2f"), sort=lambda d: d.joules),
)
SORTS = {column.title: column.sort for column in _COLUMNS if column.sort}


def ordered(devices: Sequence[DeviceState], sort: str) -> list[DeviceState]:
    """Return the devices, the highest of this column first; those without its figure are last."""

    def place(device: DeviceState) -> tuple[bool, float, str]:
        value = SORTS[sort](device)
        if value is None or math.isnan(value):
            return True, 0.0, device.client
        return False, -value, device.client

    return sorted(devices, key=place)


def fit(
    devices: Sequence[DeviceState], width: int, sort: str = ""
) -> tuple[list[DeviceColumn], list[str]]:
    """Return the columns for which there is room, and the titles of those for which there is none.

    The latter begin with what would come first in a wider terminal.
    A column without a figure is not missed, and that of the title `sort` always stays.
    """

    def rank(column: DeviceColumn) -> int:
        return 0 if column.title == sort else column.rank

    known = [
        column
        for column in _COLUMNS
        if not rank(column) or any(column.text(device).plain != "-" for device in devices)
    ]
    needed = {column.title: GAP + column.width(devices, sort) for column in known}
    shown = known
    while sum(needed[column.title] for column in shown) - GAP > width:
        worst = max(map(rank, shown))
        if not worst:
            break
        shown = [column for column in shown if rank(column) < worst]
    left_out = sorted((column for column in known if column not in shown), key=rank)
    return shown, [column.title for column in left_out]


def draw(columns: Sequence[DeviceColumn], devices: Sequence[DeviceState]) -> Table:
    """Return a table of these columns, for a print."""
    table = Table(box=None, header_style="bold", padding=(0, GAP // 2), pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify=column.justify, no_wrap=True)
    for device in devices:
        table.add_row(*(column.text(device) for column in columns))
    return table


@dataclass(frozen=True)
class DeviceTable:
    """A row for each device, as they come, as wide as the console."""

    devices: Sequence[DeviceState]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the columns for which there is room."""
        columns, _ = fit(self.devices, options.max_width)
        yield draw(columns, self.devices)
