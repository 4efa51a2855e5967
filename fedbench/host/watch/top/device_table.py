"""A row for each device, in as many columns as a terminal has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fedbench.config.units import format_number
from fedbench.host.watch.top.state import Device, Snapshot
from fedbench.host.watch.top.view import SORTS

PHASES = {  # its colour, and its sign on the timeline, which tells it without colours too
    "waiting": ("bright_black", "·"),
    "receiving": ("cyan", "▼"),
    "training": ("green", "█"),
    "evaluating": ("magenta", "▒"),
    "sending": ("blue", "▲"),
    "gone": ("red", " "),
}
UNKNOWN = ("default", "?")  # a phase of another version's client
_HIGH = 0.9  # of a quota or a limit: worth a look
_ERROR = 0.05  # as the bar of `fedbench fidelity`


@dataclass(frozen=True)
class Column:
    """A figure of each device.

    `rank` says when it goes where the terminal is narrow: the highest first, 0 never.
    """

    title: str
    rank: int
    cell: Callable[[Device], Text | str]
    justify: Literal["left", "right"] = "right"


def blocks(part: float, width: int, colour: str = "green") -> Text:
    """A part, 0 to 1, as a bar that is `width` characters long; empty where it is NaN."""
    full = round(min(max(0.0, part), 1.0) * width)  # 0 first: max keeps it beside NaN
    return Text().append("█" * full, colour).append("░" * (width - full), "bright_black")


def bar(part: float | None, width: int = 6) -> Text:
    """The same with its percentage, and marked where it is high."""
    if part is None:
        return Text("-")
    return blocks(part, width, "yellow" if part >= _HIGH else "green").append(f" {part:4.0%}")


def phase(device: Device) -> Text:
    """The phase that it is in, in its colour."""
    colour, _ = PHASES.get(device.phase, UNKNOWN)
    return Text(device.phase, colour)


def error(device: Device) -> Text:
    """How far its epoch was from its target."""
    if device.error is None:
        return Text("-")
    digits = 1 if abs(device.error) < 1 else 0
    return Text(f"{device.error:+.{digits}%}", "red" if abs(device.error) > _ERROR else "green")


def scaled(value: float | None, unit: float, form: str) -> str:
    """A figure in multiples of `unit`."""
    return format_number(None if value is None else value / unit, form)


def _epoch(device: Device) -> Text | str:
    if device.epoch is None or not device.epochs:
        return "-"
    return blocks(device.epoch / device.epochs, 4).append(
        f" {device.epoch:.0f}/{device.epochs:.0f}"
    )


def _memory(device: Device) -> Text | str:
    used = scaled(device.memory, 2**20, ".0f")
    if not device.memory_limit:
        return used
    share = Text() if device.memory_use is None else bar(device.memory_use, 4)
    return share.append(f" {used:>5}/{device.memory_limit / 2**20:.0f}")


_COLUMNS = (
    Column("client", 0, lambda d: d.client, "left"),
    Column("phase", 0, phase, "left"),
    Column("epoch", 0, _epoch),
    Column("samples/s", 9, lambda d: format_number(d.speed, ".0f")),
    Column("emulated s", 1, lambda d: format_number(d.epoch_seconds, ".2f")),
    Column("target", 5, lambda d: format_number(d.target_seconds, ".2f")),
    Column("error", 2, error),
    Column("CPU of quota", 0, lambda d: bar(d.cpu_use)),
    Column("throttled", 6, lambda d: format_number(d.throttled, ".0%")),
    Column("memory MiB", 7, _memory, "left"),
    Column("sent kB/s", 12, lambda d: scaled(d.sent.rate, 1e3, ".0f")),
    Column("recv kB/s", 11, lambda d: scaled(d.received.rate, 1e3, ".0f")),
    Column("loss", 8, lambda d: format_number(d.loss, ".3f")),
    Column("accuracy", 4, lambda d: format_number(d.accuracy, ".3f")),
    Column("W", 10, lambda d: format_number(d.watts, ".0f")),
    Column("kJ", 3, lambda d: scaled(d.joules, 1e3, ".2f")),
)
TITLES = tuple(column.title for column in _COLUMNS)


@dataclass(frozen=True)
class Devices:
    """A row for each device, as they come."""

    state: Snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, without the columns that have no figure at all."""
        columns, _ = choose(self.state.devices, "", console, options)
        yield draw(columns, self.state.devices)


def choose(
    devices: Sequence[Device], sort: str, console: Console, options: ConsoleOptions
) -> tuple[list[Column], list[str]]:
    """The columns for which there is room, and the titles of those for which there is none.

    The latter begin with what would come first in a wider terminal.
    A column without a figure is not missed, and that of the title `sort` always stays.
    """

    def rank(column: Column) -> int:
        return 0 if column.title == sort else column.rank

    known = [
        column
        for column in _COLUMNS
        if not rank(column) or any(str(column.cell(device)) != "-" for device in devices)
    ]
    shown = known
    while worst := max(map(rank, shown)):
        if _width(draw(shown, devices, sort), console, options) <= options.max_width:
            break
        shown = [column for column in shown if rank(column) < worst]
    left_out = sorted((column for column in known if column not in shown), key=rank)
    return shown, [column.title for column in left_out]


def draw(
    columns: Sequence[Column],
    devices: Sequence[Device],
    sort: str = "",
    chosen: Device | None = None,
) -> Table:
    """The table; the title of its sorted column is marked, and the row of the chosen device."""
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    for column in columns:
        mark = "" if column.title != sort else " ▲" if column.title == SORTS[0] else " ▼"
        table.add_column(column.title + mark, justify=column.justify, no_wrap=True)
    for device in devices:
        row = [column.cell(device) for column in columns]
        table.add_row(*row, style="reverse" if device is chosen else None)
    return table


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    unbounded = options.update(max_width=1000)
    return Measurement.get(console, unbounded, table).maximum
