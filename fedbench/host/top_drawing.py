"""Draws the figures of a federation for a terminal, as wide as that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fedbench.host.tables import duration, figure
from fedbench.host.top_figures import (
    STEP_SECONDS,
    WINDOW_SECONDS,
    Device,
    Holding,
    RunState,
    Snapshot,
)

_PHASES = {  # its colour, and its sign on the timeline, which tells it without colours too
    "waiting": ("bright_black", "·"),
    "receiving": ("cyan", "▼"),
    "training": ("green", "█"),
    "evaluating": ("magenta", "▒"),
    "sending": ("blue", "▲"),
    "gone": ("red", " "),
}
_RUN_COLOURS = {"running": "green", "waiting": "yellow", "failed": "red", "interrupted": "yellow"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_HIGH = 0.9  # of a quota or a limit: worth a look
_ERROR = 0.05  # as the bar of `fedbench fidelity`


@dataclass(frozen=True)
class _Column:
    """`rank` says when it goes where the terminal is narrow: the highest first, 0 never."""

    title: str
    rank: int
    cell: Callable[[Device], Text | str]
    justify: str = "right"


def _blocks(part: float, width: int, colour: str = "green") -> Text:
    full = round(min(max(part, 0.0), 1.0) * width)
    return Text().append("█" * full, colour).append("░" * (width - full), "bright_black")


def _bar(part: float | None, width: int = 6) -> Text:
    if part is None:
        return Text("-")
    return _blocks(part, width, "yellow" if part >= _HIGH else "green").append(f" {part:4.0%}")


def _phase(device: Device) -> Text:
    colour, _ = _PHASES.get(device.phase, ("default", ""))
    return Text(device.phase, colour)


def _epoch(device: Device) -> Text | str:
    if device.epoch is None or not device.epochs:
        return "-"
    bar = _blocks(device.epoch / device.epochs, 4)
    return bar.append(f" {device.epoch:.0f}/{device.epochs:.0f}")


def _error(device: Device) -> Text | str:
    if device.error is None:
        return "-"
    digits = 1 if abs(device.error) < 1 else 0
    return Text(f"{device.error:+.{digits}%}", "red" if abs(device.error) > _ERROR else "green")


def _memory(device: Device) -> Text | str:
    if device.memory is None:
        return "-"
    used = f"{device.memory / 2**20:.0f}"
    if not device.memory_limit:
        return used
    bar = _bar(device.memory / device.memory_limit, 4)
    return bar.append(f" {used:>5}/{device.memory_limit / 2**20:.0f}")


def _scaled(value: float | None, unit: float, form: str) -> str:
    return figure(None if value is None else value / unit, form)


_COLUMNS = (
    _Column("client", 0, lambda d: d.client, "left"),
    _Column("phase", 0, _phase, "left"),
    _Column("epoch", 0, _epoch),
    _Column("samples/s", 5, lambda d: figure(d.speed, ".0f")),
    _Column("emulated s", 1, lambda d: figure(d.epoch_seconds, ".2f")),
    _Column("target", 3, lambda d: figure(d.target_seconds, ".2f")),
    _Column("error", 2, _error),
    _Column("CPU of quota", 0, lambda d: _bar(d.cpu_use)),
    _Column("throttled", 4, lambda d: figure(d.throttled, ".0%")),
    _Column("memory MiB", 6, _memory, "left"),
    _Column("sent kB/s", 9, lambda d: _scaled(d.sent, 1e3, ".0f")),
    _Column("recv kB/s", 9, lambda d: _scaled(d.received, 1e3, ".0f")),
    _Column("loss", 7, lambda d: figure(d.loss, ".3f")),
    _Column("accuracy", 1, lambda d: figure(d.accuracy, ".3f")),
    _Column("W", 8, lambda d: figure(d.watts, ".0f")),
    _Column("kJ", 8, lambda d: _scaled(d.joules, 1e3, ".1f")),
)


@dataclass(frozen=True)
class Devices:
    """A row for each device, and as many columns as there is room for."""

    state: Snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, without the columns that have no figure at all."""
        rows = [[column.cell(device) for column in _COLUMNS] for device in self.state.devices]
        shown = [
            index
            for index, column in enumerate(_COLUMNS)
            if not column.rank or any(str(row[index]) != "-" for row in rows)
        ]
        while True:
            table = _table(shown, rows)
            worst = max(_COLUMNS[index].rank for index in shown)
            if not worst or _width(table, console, options) <= options.max_width:
                break
            shown = [index for index in shown if _COLUMNS[index].rank < worst]
        yield table


def _table(shown: Sequence[int], rows: Sequence[Sequence[Text | str]]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    for index in shown:
        table.add_column(_COLUMNS[index].title, justify=_COLUMNS[index].justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    unbounded = options.update(max_width=1000)
    return Measurement.get(console, unbounded, table).maximum


@dataclass(frozen=True)
class Board:
    """The whole view: the run, who holds it back, the devices, what they did, and alerts."""

    state: Snapshot
    note: str = ""  # for example that Prometheus is away

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """From top to bottom."""
        if self.note:
            yield Text(self.note, "bold yellow")
        yield from _header(self.state.run)
        yield Text(_held_back(self.state.holding) if self.state.holding else " ", "yellow")
        yield Devices(self.state)
        yield Text()
        yield from _timeline(self.state, options.max_width)
        if self.state.alerts:
            yield Text()
            yield Text(f"alerts: {', '.join(self.state.alerts)}", "bold red")


def _header(run: RunState | None) -> Iterator[Text]:
    if run is None:
        yield Text("no run yet", "bold")
        return
    title = Text(run.run, "bold")
    if run.experiment:
        title.append(f"  {run.experiment} on {run.profile}, {run.model}", "default")
    yield title.append("  ").append(run.phase, _RUN_COLOURS.get(run.phase, "bold"))
    rounds = Text(f"round {run.round}/{run.rounds}  ").append_text(_bar(run.progress, 20))
    if run.seconds_left is not None:
        rounds.append(f", about {duration(run.seconds_left)} left")
    if run.dilation != 1:
        rounds.append(f", dilation {run.dilation:.3g}")
    yield rounds
    if run.accuracies and run.losses:
        yield (
            Text(f"server accuracy {run.accuracies[-1]:.4f} ")
            .append(sparkline(run.accuracies), "green")
            .append(f"  loss {run.losses[-1]:.4f} ")
            .append(sparkline(run.losses), "cyan")
        )


def _held_back(holding: Holding) -> str:
    """Who, why, and who waits for how long already."""
    device = holding.client
    parts = [f"{device.client} holds the round back: {device.phase}"]
    if device.phase == "training":
        parts[0] += f" epoch {figure(device.epoch, '.0f')}/{figure(device.epochs, '.0f')}"
        if device.cpu_use is not None:
            parts.append(f"{device.cpu_use:.0%} of its CPU quota used")
        if device.throttled:
            parts.append(f"throttled in {device.throttled:.0%} of periods")
    elif device.phase in ("receiving", "sending"):
        rate = device.received if device.phase == "receiving" else device.sent
        parts.append(f"its link carries {_scaled(rate, 1e3, '.0f')} kB/s")
    return f"{', '.join(parts)}; waiting: {', '.join(_waiting(holding))}"


def _waiting(holding: Holding) -> Iterator[str]:
    for client, seconds in holding.waiting.items():
        yield client + (f" over {WINDOW_SECONDS} s" if seconds is None else f" {seconds:.0f} s")


def _timeline(state: Snapshot, width: int) -> Iterator[Text]:
    names = max((len(device.client) for device in state.devices), default=0)
    slots = min(width - names - 1, WINDOW_SECONDS // STEP_SECONDS)
    for device in state.devices:
        line = Text(device.client.ljust(names + 1))
        for phase in _slots(device, state.time, slots):
            colour, sign = _PHASES[phase]
            line.append(sign, colour)
        yield line
    legend = Text(f"{WINDOW_SECONDS // 60} min: ", no_wrap=True)
    for phase, (colour, sign) in _PHASES.items():
        if phase != "gone":
            legend.append(f"{sign} ", colour).append(f"{phase}  ", "default")
    yield legend


def _slots(device: Device, now: float, slots: int) -> Iterator[str]:
    """The phase that it was in for most of each slot; gone where nothing is known of it."""
    seen: list[Counter[str]] = [Counter() for _ in range(slots)]
    for time, phase in device.phases:
        age = (now - time) / WINDOW_SECONDS
        if 0 <= age < 1:
            seen[slots - 1 - int(age * slots)][phase] += 1
    for counts in seen:
        yield max(counts, key=lambda phase: counts[phase], default="gone")


def sparkline(values: Sequence[float], most: int = 30) -> str:
    """The last `most` values as blocks, the lowest of them the smallest."""
    values = values[-most:]
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)
