"""What each device took and used: its local epochs, its CPUs, its memory, its link."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from fedbench.host.report.page.chart import (
    EMULATED,
    PALETTE,
    WALL,
    Chart,
    Trace,
    axis,
    bars,
    colours,
    marks,
    names_axis,
    rounds_axis,
    rows_height,
    times,
)  # fmt: skip
from fedbench.host.report.page.story import Story
from fedbench.records import ClientRound

_HALF = 0.46  # of the width, of each of two charts side by side


def epochs(story: Story) -> Chart:
    """Seconds of a local epoch on the emulated device, beside what it takes on the real device."""
    title = "Local epoch by device"
    found = _medians(story, lambda c: c.emulated_epoch_seconds)
    if not found:
        return Chart("epochs", title, "No client trained: there are no epochs to compare.")
    spread = {
        name: [s for c in story.clients[name] for s in c.emulated_epoch_seconds] for name in found
    }
    targets = _medians(story, lambda c: [t] if (t := c.target_epoch_seconds) is not None else [])
    unit = EMULATED if story.emulates else WALL
    texts = [_beside(seconds, targets.get(name)) for name, seconds in found.items()]
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [max(spread[n]) - seconds for n, seconds in found.items()],
        "arrayminus": [seconds - min(spread[n]) for n, seconds in found.items()],
        "color": "@muted",
        "thickness": 1,
    }
    traces = [bars("median, lowest to highest", found, texts, error_x=errors)]
    if targets:
        traces.append(marks("the real device", targets, "s"))
    layout = _rows(story, axis(f"{unit} per local epoch", rangemode="tozero"), bool(targets))
    words = _epoch_words(found, targets, unit)
    return Chart("epochs", title, words, traces, layout, rows_height(list(found)))


def cpu(story: Story) -> Chart:
    """CPUs that each device had while it trained, and for how long its quota held it back."""
    title = "CPU by device"
    had = _medians(story, lambda c: [epoch.share for epoch in c.epochs])
    if not had:
        words = "This run does not record what each local epoch had of the host's CPUs."
        return Chart("cpu", title, words)
    held = {
        name: 100 * sum(e.throttled_seconds for e in every) / sum(e.seconds for e in every)
        for name in had
        if (every := [epoch for client in story.clients[name] for epoch in client.epochs])
    }
    planned = {n: share for n, share in story.emulation.shares.items() if n in had}
    texts = [f"{value:.2f}" for value in had.values()]
    traces = [bars("had while it trained", had, texts)]
    if planned:
        traces.append(marks("planned", planned, "CPUs"))
    percents = [f"{value:.1f} %" for value in held.values()]
    traces.append(bars("throttled", held, percents, xaxis="x2", marker={"color": PALETTE[1]}))
    layout = _rows(story, axis("host CPUs", domain=[0, _HALF], rangemode="tozero"), True) | {
        "xaxis2": axis(
            "% of training throttled",
            domain=[1 - _HALF, 1],
            range=[0, max(5.0, 1.15 * max(held.values()))],
        )
    }
    most = max(held, key=lambda name: held[name])
    highest = max(had, key=lambda name: had[name])
    words = f"{highest} has most of the host while it trains, {had[highest]:.2f} CPUs. " + (
        f"{most} is throttled most: its quota holds it back for {held[most]:.1f} CPU seconds in "
        "100 s of training."
        if held[most] >= 0.1
        else "No quota holds a device back for as much as 0.1 % of its training."
    )
    return Chart("cpu", title, words, traces, layout, rows_height(list(had)), wide=True)


def memory(story: Story) -> Chart:
    """The peak of each device's memory, file cache included, against its limit."""
    title = "Memory by device"
    peaks = {
        name: max(known) / 2**20
        for name, rounds in story.clients.items()
        if (known := [c.peak_memory_bytes for c in rounds if c.peak_memory_bytes is not None])
    }
    if not peaks:
        return Chart("memory", title, "This run measured no memory: its clients had no container.")
    limits = {name: story.limits[name] / 2**20 for name in peaks if name in story.limits}
    if not limits:
        name = max(peaks, key=lambda name: peaks[name])
        words = f"{name} uses most, {peaks[name]:.0f} MiB; this run does not record the limits."
        trace = bars("peak", peaks, [f"{peak:.0f} MiB" for peak in peaks.values()])
        layout = _rows(story, axis("MiB at the peak", rangemode="tozero"), False)
        return Chart("memory", title, words, [trace], layout, rows_height(list(peaks)))
    shares = {name: 100 * peaks[name] / limit for name, limit in limits.items()}
    texts = [f"{peaks[name]:,.0f} of {limit:,.0f} MiB" for name, limit in limits.items()]
    name = max(shares, key=lambda name: shares[name])
    words = f"{name} comes closest to its limit: at its peak it uses {shares[name]:.0f} % of it."
    layout = _rows(story, axis("% of the device's memory, at the peak", range=[0, 100]), False)
    trace = bars("peak", shares, texts)
    return Chart("memory", title, words, [trace], layout, rows_height(list(shares)))


def traffic(story: Story) -> Chart:
    """Megabytes that each device sent and received in each round."""
    title = "Bytes per round and device"
    sent, received = (_bytes(story, field) for field in ("bytes_sent", "bytes_received"))
    if not sent:
        return Chart("bytes", title, "This run's clients count no bytes.")
    colour = colours(list(story.clients))
    traces = [
        _stack(name, points, colour[name], side)
        for side, found in (("", sent), ("2", received))
        for name, points in found.items()
    ]
    last = story.summary.rounds[-1].round
    layout = {
        "barmode": "stack",
        "xaxis": rounds_axis(last, "sent in round", domain=[0, _HALF]),
        "xaxis2": rounds_axis(last, "received in round", domain=[1 - _HALF, 1], anchor="y2"),
        "yaxis": axis("MB", rangemode="tozero"),
        "yaxis2": {"rangemode": "tozero", "matches": "y", "anchor": "x2"},
        "showlegend": True,
    }
    up, down = (sum(map(sum, (p.values() for p in side.values()))) for side in (sent, received))
    each = median(chain.from_iterable(points.values() for points in sent.values()))
    words = (
        f"The devices sent {up:.1f} MB and received {down:.1f} MB in all; "
        f"a device sends {each:.1f} MB in the median round."
    )
    return Chart("bytes", title, words, traces, layout, wide=True)


def _stack(name: str, points: Mapping[int, float], colour: str, side: str) -> Trace:
    return {
        "type": "bar",
        "name": name,
        "legendgroup": name,
        "showlegend": not side,
        "x": list(points),
        "y": list(points.values()),
        "marker": {"color": colour},
        "xaxis": f"x{side}",
        "yaxis": f"y{side}",
        "hovertemplate": f"round %{{x}}: %{{y:.2f}} MB<extra>{name}</extra>",
    }


def _bytes(story: Story, field: str) -> dict[str, dict[int, float]]:
    """Megabytes by client and round, of those that count them."""
    found: dict[str, dict[int, float]] = {}
    for record in story.summary.rounds:
        for client in record.clients:
            if (value := getattr(client, field)) is not None:
                found.setdefault(client.client, {})[record.round] = value / 1e6
    return found


def _medians(story: Story, figures: Callable[[ClientRound], Sequence[float]]) -> dict[str, float]:
    """The median by client over all that its rounds have; none for a client without any."""
    return {
        name: median(known)
        for name, rounds in story.clients.items()
        if (known := [value for client in rounds for value in figures(client)])
    }


def _beside(seconds: float, target: float | None) -> str:
    error = "" if target is None else f", {seconds / target - 1:+.1%}"
    return f"{seconds:.3g} s{error}"


def _epoch_words(found: Mapping[str, float], targets: Mapping[str, float], unit: str) -> str:
    ranked = sorted(found, key=lambda name: found[name])
    fast, slow = ranked[0], ranked[-1]
    words = f"A local epoch takes {slow} {found[slow]:.3g} {unit}"
    if slow != fast:
        words += f", {times(found[slow] / found[fast], fast)}"
    if not targets:
        return f"{words}. No device has a target: nothing was emulated by speed."
    errors = {name: found[name] / targets[name] - 1 for name in targets}
    worst = max(errors, key=lambda name: abs(errors[name]))
    return f"{words}. Farthest from its real device is {worst}, by {errors[worst]:+.1%}."


def _rows(story: Story, x: Mapping[str, Any], legend: bool) -> dict[str, Any]:
    return {
        "xaxis": x,
        "yaxis": names_axis(list(story.clients)),
        "showlegend": legend,
        "bargap": 0.35,
    }
