"""What is said of a federation beside its table of devices, and all of it as one print."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fedbench.config.units import format_duration, format_number
from fedbench.host.watch.top.device_table import PHASES, UNKNOWN, bar, draw, fit, scaled
from fedbench.host.watch.top.snapshot import STEP_SECONDS, WINDOW_SECONDS
from fedbench.host.watch.top.state import Alert, DeviceState, Holding, RunState, Snapshot
from fedbench.records import replace_text

_RUN_COLOURS = {"running": "green", "waiting": "yellow", "failed": "red", "interrupted": "yellow"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_SVG_COLUMNS = 140
_RULES_FILE = "compose/prometheus/rules/recording.yml"


@dataclass(frozen=True)
class Board:
    """All of a state: the run, who holds it back, the devices, what they did, and alerts."""

    state: Snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it from top to bottom, as wide as the console."""
        devices = self.state.devices
        columns, left_out = fit(devices, options.max_width)
        yield from head(self.state)
        yield draw(columns, devices)
        yield Text()
        yield Timelines(devices, self.state.time)
        if self.state.alerts:
            yield Text()
            yield alerts(self.state.alerts)
        if left_out:
            yield footer(wider(left_out))


def head(state: Snapshot) -> Iterator[Text]:
    """Yield the run, how far it is, and who holds its round back."""
    if state.missing_rules:
        yield Text(_missing(state.missing_rules), "yellow")
    if state.run is None:
        yield Text("no run yet", "bold")
    else:
        yield from _run(state.run)
    yield Text(_held_back(state.holding) if state.holding else " ", "yellow")


def alerts(firing: Sequence[Alert]) -> Text:
    """Return them as a line."""
    return Text(f"alerts: {', '.join(map(str, firing))}", "bold red")


def wider(left_out: Sequence[str]) -> str:
    """Return which columns a wider terminal would have."""
    return f"← wider terminal: {', '.join(left_out)}"


def footer(text: str) -> Text:
    """Return the last line, of which a narrow terminal has the beginning."""
    return Text(text, "bright_black", no_wrap=True, overflow="ellipsis")


@dataclass(frozen=True)
class Timelines:
    """What devices did until `now`, a Unix time, and a legend; as wide as the console."""

    devices: Sequence[DeviceState]
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw a line for each device."""
        width = options.max_width
        longest = max((len(device.client) for device in self.devices), default=0)
        names = min(longest, width // 2)  # half of a narrow terminal is left for what they did
        slots = max(min(width - names - 1, WINDOW_SECONDS // STEP_SECONDS), 1)
        for device in self.devices:
            line = Text(device.client, no_wrap=True)
            line.truncate(names, overflow="ellipsis", pad=True)
            line.append(" ")
            for phase in _slots(device, self.now, slots):
                colour, sign = PHASES.get(phase, UNKNOWN)
                line.append(sign, colour)
            yield line
        yield _legend()


def sparkline(values: Sequence[float], most: int = 30) -> str:
    """Return the last `most` finite values as blocks, the lowest of them the smallest."""
    values = [value for value in values if math.isfinite(value)][-most:]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)


def _missing(rules: Sequence[str]) -> str:
    """Say why some figures are not there."""
    names = ", ".join(rule.removeprefix("client:fedbench_") for rule in rules)
    return f"this Prometheus lacks recording rules of fedbench's {_RULES_FILE}: {names}"


def _run(run: RunState) -> Iterator[Text]:
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
    """Say who, why, and who waits for how long already."""
    device = holding.client
    reasons = [f"{device.client} holds the round back: {device.phase}"]
    if device.phase == "training":
        reasons[0] += (
            f" epoch {format_number(device.epoch, '.0f')}/{format_number(device.epochs, '.0f')}"
        )
        if device.cpu_use is not None:
            reasons.append(f"{device.cpu_use:.0%} of its CPU quota used")
        if device.throttled:
            reasons.append(f"throttled in {device.throttled:.0%} of periods")
    elif device.phase in ("receiving", "sending"):
        traffic = device.received if device.phase == "receiving" else device.sent
        reasons.append(f"its link carries {scaled(traffic.rate, 1e3, '.0f')} kB/s")
    return f"{', '.join(reasons)}; waiting: {', '.join(_waiting(holding))}"


def _waiting(holding: Holding) -> Iterator[str]:
    for client, seconds in holding.waiting.items():
        yield client + (f" over {WINDOW_SECONDS} s" if seconds is None else f" {seconds:.0f} s")


def _slots(device: DeviceState, now: float, slots: int) -> Iterator[str]:
    """Yield the phase that it was in for most of each slot; gone where nothing is known of it."""
    seen: list[Counter[str]] = [Counter() for _ in range(slots)]
    for time, phase in device.phases:
        age = (now - time) / WINDOW_SECONDS
        if 0 <= age < 1:
            seen[slots - 1 - int(age * slots)][phase] += 1
    for counts in seen:
        yield max(counts, key=lambda phase: counts[phase], default="gone")


def _legend() -> Text:
    legend = Text(f"{WINDOW_SECONDS // 60} min: ", no_wrap=True)
    for phase, (colour, sign) in PHASES.items():
        if phase != "gone":
            legend.append(f"{sign} ", colour).append(f"{phase}  ", "default")
    return legend


def export_svg(state: Snapshot, file: Path) -> None:
    """Write the print as a picture, without the web fonts that rich would have it load."""
    console = Console(record=True, width=_SVG_COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Board(state))
    svg = console.export_svg(title="fedbench top", unique_id="top")
    replace_text(file, re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))
