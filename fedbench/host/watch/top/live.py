"""What a run is doing right now, as lines as they happen or as a table that keeps up."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from statistics import fmean
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from fedbench.config.units import format_duration
from fedbench.errors import HostError
from fedbench.host.say import Say
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.device_table import DeviceTable
from fedbench.host.watch.top.query import ask
from fedbench.host.watch.top.snapshot import snapshot
from fedbench.records import RoundRecord
from fedbench.records.clock import Dilation, WallSeconds
from fedbench.records.events import EVENTS_FILE, parse_event
from fedbench.records.lines import GrowingLines
from fedbench.records.rounds import ROUNDS_FILE, parse_round
from fedbench.records.runs import Run
from fedbench.records.verdict import Emulation

_LINES = 6  # of what happened, above the live table
_LATELY = 20  # rounds, by whose mean the time that is left is told


class RunNews:
    """A run as its files have it: each line of them is read once, however long the run is."""

    def __init__(self, run: Run) -> None:
        self._events = GrowingLines(run.path / EVENTS_FILE, parse_event)
        self._rounds = GrowingLines(run.path / ROUNDS_FILE, parse_round)
        self._emulation = Emulation.of(run.facts())
        self._told = 0

    def skip(self) -> None:
        """Leave out what happened so far."""
        self._told = len(self._events.read())

    def news(self) -> list[str]:
        """Return what happened since the last call, as lines."""
        events = self._events.read()  # first: the record of a round is there before its event
        rounds = self._rounds.read()
        new, self._told = events[self._told :], len(events)
        return [line for event in new if (line := describe(event, rounds, self._emulation))]


class Lines:
    """The events of a run, each told once as a line of text: for logs and pipes."""

    def __init__(self, run: Run, say: Say) -> None:
        self._say = say
        self._progress = RunNews(run)
        self._progress.skip()  # a run that goes on has told its past already

    def __call__(self) -> None:
        """Say what is new."""
        for line in self._progress.news():
            self._say(line)


class LiveRun:
    """A live picture for a terminal: what each device does, and how the rounds went."""

    def __init__(self, run: Run, clients: list[str], prometheus: Prometheus, live: Live) -> None:
        self._run = run
        self._progress = RunNews(run)
        self._lines = deque[str](maxlen=_LINES)
        self._clients = clients
        self._prometheus = prometheus
        self._live = live

    def __call__(self) -> None:
        """Draw the present state."""
        self._lines.extend(self._progress.news())
        lines = [Text(line) for line in self._lines or ["starting"]]
        try:
            state = ask(self._prometheus, self._run.id, self._clients)
        except HostError:  # it starts after the clients, and is only for looking
            state = snapshot([], [], [], [], self._run.id, self._clients)
        self._live.update(Group(*lines, DeviceTable(state.devices)), refresh=True)


def describe(  # noqa: PLR0912 (a case for each event)
    event: dict[str, Any], rounds: list[RoundRecord], emulation: Emulation
) -> str:
    """Return an event as a line, empty if it is not worth one; `rounds` are those so far."""
    line = ""
    where = f"round {event.get('round')}"
    match event["event"]:
        case "waiting":
            here = ", ".join(event["connected"]) or "none"
            line = f"waiting for clients: {len(event['connected'])} of {event['needed']} ({here})"
        case "incomplete":
            line = f"going on with {len(event['connected'])} of {event['needed']} clients"
        case "nobody" | "repaired" | "below_minimum":
            line = event.get("reason", "no client came; waiting again")
        case "restarted" | "revived":
            line = f"{event['reason']}: started again"
        case "started" if event["after_round"]:
            line = f"going on after round {event['after_round']}"
        case "round":
            line = f"{where}/{event['rounds']}: training on {', '.join(event['clients'])}"
        case "trained":
            took = _seconds(event["seconds"], emulation.dilation_of(event["client"]))
            accuracy = event.get("accuracy")
            how = f", local accuracy {accuracy:.4f}" if accuracy is not None else ""
            line = f"{where}: {event['client']} trained in {took}{how}"
        case "progress":
            left = event["seconds_left"]
            line = f"{event['images'] / event['of']:.0%} of all images trained"
            line += "" if left is None else f", about {format_duration(left)} left"
        case "recorded":
            end = bisect_right(rounds, event["round"], key=lambda record: record.round)
            lately = rounds[max(0, end - _LATELY) : end]
            line = describe_round(lately, event["rounds"], emulation.dilation)
        case "failed":
            line = f"{where}: {event['client']} failed: {event['reason']}"
        case "not_held":
            line = f"{where}: {event['client']}: the emulation did not hold: {event['reason']}"
        case "unidentified":
            line = f"a client cannot say who it is, and is left out: {event['reason']}"
        case "left_out":
            line = f"{event['client']} is left out: it holds no images of {event['data']}"
    return line


def describe_round(rounds: list[RoundRecord], total: int, dilation: Dilation) -> str:
    """Return the last of these rounds as a line, with the wall time that is left."""
    if not rounds:  # a damaged file has lost it
        return ""
    last = rounds[-1]
    parts = [f"round {last.round}/{total}:"]
    if last.server_accuracy is not None and last.server_loss is not None:
        parts.append(f"accuracy {last.server_accuracy:.4f}, loss {last.server_loss:.4f},")
    overhead = f"{last.overhead_seconds:.2f} s" + (" wall" if dilation > 1 else "")
    parts.append(f"{_seconds(last.duration_seconds, dilation)} (overhead {overhead})")
    if last.round < total:
        left = fmean(r.duration_seconds for r in rounds) * (total - last.round)
        parts.append(f"about {format_duration(left)} left")
    return " ".join(parts)


def _seconds(wall: WallSeconds, dilation: Dilation) -> str:
    """Return wall and emulated seconds, or one figure where they are the same."""
    emulated = f"{dilation.emulated(wall):.1f} s"
    return emulated if dilation <= 1 else f"{wall:.1f} s wall, {emulated} emulated"
