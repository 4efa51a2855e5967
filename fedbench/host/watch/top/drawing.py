"""Draws the state of a federation for a terminal, as wide and as high as that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from fedbench.config.units import format_duration, format_number
from fedbench.host.watch.top.detail import detail
from fedbench.host.watch.top.device_table import PHASES, UNKNOWN, bar, choose, draw, scaled
from fedbench.host.watch.top.snapshot import STEP_SECONDS, WINDOW_SECONDS
from fedbench.host.watch.top.state import Device, Holding, RunState, Snapshot
from fedbench.host.watch.top.view import HELP, View

_RUN_COLOURS = {"running": "green", "waiting": "yellow", "failed": "red", "interrupted": "yellow"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_RULES_FILE = "compose/prometheus/rules/recording.yml"


@dataclass(frozen=True)
class Board:
    """The whole view: the run, who holds it back, the devices, what they did, and alerts.

    With a `view` it is as high as the terminal, and one device is selected or its details open.
    """

    state: Snapshot
    note: str = ""  # for example that Prometheus is away
    view: View | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """From top to bottom."""
        view = self.view or View()
        devices = view.devices(self.state.devices)
        chosen = view.selected(devices) if self.view else None
        if chosen and view.detail:
            yield Group(*self._above(), detail(chosen, self.state), Text())
            yield from _timeline([chosen], self.state.time, options.max_width)
            yield Group(*self._below())
            return
        sort = view.sort if self.view else ""
        columns, left_out = choose(devices, sort, console, options)
        above, below = [*self._above()], [*self._below(left_out)]
        used = len(console.render_lines(Group(*above, *below), options))
        shown, on_timeline = _room(devices, chosen, options.max_height - used)
        yield Group(*above, draw(columns, shown, sort, chosen))
        yield Text(_where(shown, devices), "bright_black")
        yield from _timeline(on_timeline, self.state.time, options.max_width)
        yield Group(*below)

    def _above(self) -> Iterator[Text]:
        if self.note:
            yield Text(self.note, "bold yellow")
        if self.state.missing_rules:
            yield Text(_missing(self.state.missing_rules), "yellow")
        yield from _header(self.state.run)
        yield Text(_held_back(self.state.holding) if self.state.holding else " ", "yellow")

    def _below(self, left_out: Sequence[str] = ()) -> Iterator[Text]:
        if self.state.alerts:
            yield Text()
            yield Text(f"alerts: {', '.join(map(str, self.state.alerts))}", "bold red")
        parts = [f"← wider terminal: {', '.join(left_out)}"] if left_out else []
        if self.view:
            parts.insert(0, HELP if self.view.help else "? keys")
        if parts:
            yield Text("   ".join(parts), "bright_black", no_wrap=True, overflow="ellipsis")


def _missing(rules: Sequence[str]) -> str:
    """Says why some figures are not there."""
    names = ", ".join(rule.removeprefix("client:fedbench_") for rule in rules)
    return f"this Prometheus lacks recording rules of fedbench's {_RULES_FILE}: {names}"


def _room(
    devices: Sequence[Device], chosen: Device | None, lines: int
) -> tuple[Sequence[Device], Sequence[Device]]:
    """Of which devices there are rows, and of which timelines; all but where one is chosen.

    Then rows go before timelines where not all fit, and the chosen one has both.
    """
    lines -= 3  # titles of columns, where it stands, the legend
    if chosen is None or 2 * len(devices) <= lines:
        return devices, devices
    rows = max(lines - 1, 1)
    first = max(0, min(devices.index(chosen) - rows // 2, len(devices) - rows))
    return devices[first : first + rows], [chosen]


def _where(shown: Sequence[Device], devices: Sequence[Device]) -> str:
    if len(shown) == len(devices):
        return ""
    first = devices.index(shown[0])
    return f"{first + 1} to {first + len(shown)} of {len(devices)} devices"


def _header(run: RunState | None) -> Iterator[Text]:
    if run is None:
        yield Text("no run yet", "bold")
        return
    title = Text(run.run, "bold")
    if run.experiment:
        title.append(f"  {run.experiment} on {run.profile}, {run.model}", "default")
    yield title.append("  ").append(run.phase, _RUN_COLOURS.get(run.phase, "bold"))
    rounds = Text(f"round {run.round}/{run.rounds}  ").append_text(bar(run.progress, 20))
    if run.seconds_left is not None:
        rounds.append(f", about {format_duration(run.seconds_left)} left")
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
        parts[0] += (
            f" epoch {format_number(device.epoch, '.0f')}/{format_number(device.epochs, '.0f')}"
        )
        if device.cpu_use is not None:
            parts.append(f"{device.cpu_use:.0%} of its CPU quota used")
        if device.throttled:
            parts.append(f"throttled in {device.throttled:.0%} of periods")
    elif device.phase in ("receiving", "sending"):
        traffic = device.received if device.phase == "receiving" else device.sent
        parts.append(f"its link carries {scaled(traffic.rate, 1e3, '.0f')} kB/s")
    return f"{', '.join(parts)}; waiting: {', '.join(_waiting(holding))}"


def _waiting(holding: Holding) -> Iterator[str]:
    for client, seconds in holding.waiting.items():
        yield client + (f" over {WINDOW_SECONDS} s" if seconds is None else f" {seconds:.0f} s")


def _timeline(devices: Sequence[Device], now: float, width: int) -> Iterator[Text]:
    longest = max((len(device.client) for device in devices), default=0)
    names = min(longest, width // 2)  # half of a narrow terminal is left for what they did
    slots = max(min(width - names - 1, WINDOW_SECONDS // STEP_SECONDS), 1)
    for device in devices:
        line = Text(device.client)
        line.truncate(names, overflow="ellipsis", pad=True)
        line.append(" ")
        for phase in _slots(device, now, slots):
            colour, sign = PHASES.get(phase, UNKNOWN)
            line.append(sign, colour)
        yield line
    legend = Text(f"{WINDOW_SECONDS // 60} min: ", no_wrap=True)
    for phase, (colour, sign) in PHASES.items():
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
    """The last `most` finite values as blocks, the lowest of them the smallest."""
    values = [value for value in values if math.isfinite(value)][-most:]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)
