"""Says which figures of a run cannot be: of its records, its report, and of `fedbench top`.

Each function returns a line for each doubt, none where all is plausible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from fedbench.host.report.page.devices import cpu, energy, epochs, memory, traffic
from fedbench.host.report.page.story import Story
from fedbench.host.report.page.timeline import spans
from fedbench.host.report.tables import run_tables
from fedbench.host.report.tables.run_totals import RunTotals, busy
from fedbench.host.report.tables.text_table import Table
from fedbench.host.watch.top.state import DeviceState, Snapshot
from fedbench.records import ClientRound, RoundRecord

SPEED = 1.5  # times the device's: more is none of its own
_ROUNDED = 0.005  # of a figure with two digits
_WATTS = 0.01  # by which two clocks may differ
_LATE = 0.05  # seconds by which two clocks of a timeline may

Doubts = Iterator[str]
Bounds = Mapping[str, tuple[float, float]]


def within(what: str, value: float | None, low: float, high: float) -> Doubts:
    """Doubt a value outside its bounds; one that nobody measured is not doubted."""
    if value is not None and not low <= value <= high:
        yield f"{what} is {value:g}, not within {low:g} and {high:g}"


def same(what: str, value: float | None, other: float | None, margin: float) -> Doubts:
    """Doubt a value that differs from what it should be."""
    if (value is None) != (other is None):
        yield f"{what} is {value}, and {other}"
    elif value is not None and other is not None:
        yield from within(what, value, other - margin, other + margin)


def of_report(story: Story) -> list[str]:
    """Doubt what the report says of a run: records, tables, charts and the numbers at the top."""
    return [*_records(story), *_tables(story), *_charts(story), *_totals(story)]


def of_top(
    state: Snapshot, watts: Bounds, speeds: Mapping[str, float], seconds: float
) -> list[str]:
    """Doubt a state, by idle and load watts and samples per emulated second by client.

    `seconds` are the emulated ones of the run so far: nobody drew load watts for longer.
    """
    devices = (_device(device, watts, speeds, seconds) for device in state.devices)
    return [*chain.from_iterable(devices), *_run(state)]


def cells(table: Table, title: str) -> list[float | None]:
    """Return a column's figures: `12.5 %` is 12.5, a dash None."""
    header, rows = table
    texts = [row[header.index(title)] for row in rows]
    numbers = (re.match(r"[-+]?[\d.]+", text.replace(",", "")) for text in texts)
    return [float(number[0]) if number else None for number in numbers]


def _records(story: Story) -> Doubts:
    for record in story.summary.rounds:
        where = f"round {record.round}"
        yield from within(f"{where}: accuracy", record.server_accuracy, 0, 1)
        yield from within(f"{where}: overhead", record.overhead_seconds, 0, record.duration_seconds)
        for client in record.clients:
            for doubt in _client(client, record, story):
                yield f"{where}: {client.client}: {doubt}"


def _client(client: ClientRound, record: RoundRecord, story: Story) -> Doubts:
    yield from within("local accuracy", client.local_accuracy, 0, 1)
    yield from within("accuracy", client.server_accuracy, 0, 1)
    yield from within("busy seconds", client.busy_seconds, 0, record.duration_seconds)
    emulated = client.dilation.emulated(record.duration_seconds)
    if client.device in story.facts.watts and client.energy_joules is not None:
        _, load = story.facts.watts[client.device]
        idle = story.facts.watts[client.device][0] / _computer_clients(client, record, story)
        margin = _WATTS * load
        yield from within("watts", client.energy_joules / emulated, idle - margin, load + margin)
    if target := story.emulation.targets.get(client.client):
        for seconds in client.emulated_epoch_seconds:
            yield from within("samples/s", client.samples / seconds, 0, SPEED * target)
    for epoch in client.epochs:
        yield from within("steal", epoch.steal_seconds / epoch.seconds, 0, 1)


def _computer_clients(client: ClientRound, record: RoundRecord, story: Story) -> int:
    computers = story.emulation.computers
    mine = computers.get(client.client)
    others = [c.client for c in record.clients if mine and computers.get(c.client) == mine]
    return max(len(others), 1)


def _tables(story: Story) -> Doubts:
    summary = story.summary
    energies, rounds = run_tables.energy_table(summary), run_tables.round_table(summary)
    for title in ("idle kJ", "busy kJ", "kJ"):
        *each, whole = cells(energies, title)
        yield from _sum(f"{title} of all", each, whole)
    idle, spent, both = (cells(energies, title) for title in ("idle kJ", "busy kJ", "kJ"))
    for parts in zip(idle, spent, both, strict=True):
        yield from _sum("idle and busy kJ", parts[:2], parts[2])
    yield from _sum("kJ of the rounds", cells(rounds, "kJ"), both[-1])
    longest = max((s for e in _epochs(story) for s in e), default=0.0)
    for seconds in cells(run_tables.epoch_table(summary), "wall s / local epoch"):
        yield from within("median local epoch", seconds, 0, longest + _ROUNDED)
    for title, most in (("server accuracy", 1.0), ("times the fastest", 1e6)):
        for value in cells(rounds, title):
            yield from within(title, value, 0, most)
    waits = zip(cells(rounds, "others waited wall s"), cells(rounds, "wall s"), strict=True)
    for waited, wall in waits:
        yield from within("others waited", waited, 0, (wall or 0) + _ROUNDED)
    for steal in cells(run_tables.resource_table(summary), "steal"):
        yield from within("steal", steal, 0, 100)
    for accuracy in cells(run_tables.device_table(summary), "local accuracy"):
        yield from within("local accuracy", accuracy, 0, 1)


def _sum(what: str, parts: Sequence[float | None], whole: float | None) -> Doubts:
    known = [part for part in parts if part is not None]
    margin = _ROUNDED * (len(known) + 1) + 1e-9
    yield from same(what, whole, sum(known) if known else None, margin)


def _epochs(story: Story) -> Iterator[Sequence[float]]:
    return (client.epoch_seconds for rounds in story.clients.values() for client in rounds)


def _charts(story: Story) -> Doubts:
    for trace in memory(story).traces if story.limits else ():
        for name, share in zip(trace["y"], trace["x"], strict=True):
            yield from within(f"{name}: % of memory", share, 0, 100)
    cores = story.versions.get("cores", float("inf"))
    for trace in cpu(story).traces:
        most = 100 * cores if trace.get("xaxis") == "x2" else cores
        for name, value in zip(trace["y"], trace["x"], strict=True):
            yield from within(f"{name}: CPUs, {trace['name']}", value, 0, most)
    for trace in epochs(story).traces[:1]:
        for name, value in zip(trace["y"], trace["x"], strict=True):
            most = max(s for c in story.clients[name] for s in c.emulated_epoch_seconds)
            yield from within(f"{name}: median epoch", value, 0, most)
    totals = RunTotals.of(story.summary)
    drawn = [value for trace in energy(story).traces for value in trace["x"]]
    if drawn:
        yield from same("kJ drawn", sum(drawn), (totals.energy_joules or 0) / 1e3, 1e-6)
    moved = [value for trace in traffic(story).traces for value in trace["y"]]
    if moved:
        all_bytes = (totals.sent or 0) + (totals.received or 0)
        yield from same("MB drawn", sum(moved), all_bytes / 1e6, 1e-6)
    for record in story.summary.rounds:
        yield from _timeline(record, story)


def _timeline(record: RoundRecord, story: Story) -> Doubts:
    """Doubt a client that did two things at once, or one outside of the round."""
    ends: dict[str, float] = {}
    for span in spans(record, story.events):
        what = f"round {record.round}: {span.client}: {span.activity}"
        yield from within(
            f"{what} from", span.start, ends.get(span.client, 0.0) - _LATE, record.duration_seconds
        )
        ends[span.client] = span.start + span.seconds
        yield from within(f"{what} to", ends[span.client], 0, record.duration_seconds + _LATE)


def _totals(story: Story) -> Doubts:
    """Doubt the numbers at the top: of a run that went on, too, its time is that of its rounds.

    Between rounds are seconds alone; before the first it waits for clients.
    """
    totals, rounds = RunTotals.of(story.summary), story.summary.rounds
    within_rounds = sum(record.duration_seconds for record in rounds)
    yield from within("accuracy", totals.accuracy, 0, 1)
    yield from within("wall time", totals.wall_seconds, within_rounds, within_rounds + 60)
    if totals.emulated_seconds is not None:
        yield from within("emulated time", totals.emulated_seconds, 0, totals.wall_seconds)
    most = max((record.overhead_seconds for record in rounds), default=0.0)
    yield from within("overhead, median", totals.overhead_seconds, 0, most)
    if totals.slowest:
        longest = max(c.busy_seconds for c in story.clients[totals.slowest])
        yield from within("the slowest's work", busy(story.clients[totals.slowest]), 0, longest)
        yield from within("times the fastest", totals.factor, 1, 1e6)


def _device(
    device: DeviceState, watts: Bounds, speeds: Mapping[str, float], seconds: float
) -> Doubts:
    shares = {
        "CPU of quota": device.cpu_use,
        "throttled": device.throttled,
        "memory of limit": device.memory_use,
        "GPU": device.gpu.use,
        "accuracy": device.accuracy,
        "epoch of epochs": (device.epoch or 0) / (device.epochs or 1),
    }
    for what, share in shares.items():
        yield from within(f"{device.client}: {what}", share, 0, 1)
    if device.memory_limit is not None:
        yield from within(f"{device.client}: peak", device.memory_peak, 0, device.memory_limit)
    if device.client in watts:
        idle, load = watts[device.client]
        margin = _WATTS * load
        yield from within(f"{device.client}: W", device.watts, idle - margin, load + margin)
        yield from within(f"{device.client}: joules", device.joules, 0, load * seconds)
    if device.client in speeds:
        most = SPEED * speeds[device.client]
        yield from within(f"{device.client}: samples/s", device.speed, 0, most)
    if device.joules is not None:
        both = (device.idle_joules or 0) + (device.busy_joules or 0)
        yield from same(f"{device.client}: joules", device.joules, both, 1e-6)


def _run(state: Snapshot) -> Doubts:
    if state.run is None:
        return
    for accuracy in state.run.accuracies:
        yield from within("server accuracy", accuracy, 0, 1)
    yield from within("progress", state.run.progress, 0, 1)
    yield from within("round", state.run.round, 0, state.run.rounds)
    yield from within("seconds left", state.run.seconds_left, 0, float("inf"))
