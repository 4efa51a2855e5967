"""What each device took and used: its local epochs, CPUs, memory, link and energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from fedbench.host.palette import PHASES
from fedbench.host.report.page.chart import (
    EMULATED,
    WALL,
    Chart,
    Trace,
    axis,
    bars,
    marks,
    names_axis,
    paint,
    rounds_axis,
    rows_height,
    times,
)  # fmt: skip
from fedbench.host.report.page.story import Story
from fedbench.host.report.tables.run_totals import joules
from fedbench.records import ClientRound

_STATES = (("busy", paint(PHASES["training"])), ("idle", paint(PHASES["waiting"])))  # of energy
_HALF = 0.46  # of the width, of each of two charts side by side


def epochs(story: Story) -> Chart:
    """Draw seconds of a local epoch on the emulated device, beside those of the real device."""
    title = "Local epoch by device"
    medians = _medians(story, lambda c: c.emulated_epoch_seconds)
    if not medians:
        return Chart("epochs", title, "No client trained: there are no epochs to compare.")
    spread = {
        name: [s for c in story.clients[name] for s in c.emulated_epoch_seconds] for name in medians
    }
    targets = _medians(story, lambda c: [t] if (t := c.target_epoch_seconds) is not None else [])
    unit = EMULATED if story.emulates else WALL
    texts = [_seconds_and_error(seconds, targets.get(name)) for name, seconds in medians.items()]
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [max(spread[n]) - seconds for n, seconds in medians.items()],
        "arrayminus": [seconds - min(spread[n]) for n, seconds in medians.items()],
        "color": "@muted",
        "thickness": 1,
    }
    traces = [_client_bars(story, "median", medians, texts, error_x=errors)]
    if targets:
        traces.append(marks("the real device", targets, "s"))
    x = axis(f"{unit} per local epoch: median, lowest to highest", rangemode="tozero")
    layout = _rows(story, x, bool(targets))
    words = _epoch_words(medians, targets, unit)
    return Chart("epochs", title, words, traces, layout, rows_height(list(medians)))


def cpu(story: Story) -> Chart:
    """Draw the CPUs that each device had while it trained, and how long its quota held it back."""
    title = "CPU by device"
    had = _medians(story, lambda c: [epoch.share for epoch in c.epochs])
    if not had:
        words = "This run does not record what each local epoch had of the host's CPUs."
        return Chart("cpu", title, words)
    held = {name: _throttled(story.clients[name]) for name in had}
    planned = {n: share for n, share in story.emulation.shares.items() if n in had}
    texts = [f"{value:.2f}" for value in had.values()]
    traces = [_client_bars(story, "had", had, texts)]
    if planned:
        traces.append(marks("planned", planned, "CPUs"))
    seconds = [f"{value:.1f} s" for value in held.values()]
    traces.append(_client_bars(story, "throttled", held, seconds, xaxis="x2"))
    x = axis("host CPUs while it trained", domain=[0, _HALF], rangemode="tozero")
    layout = _rows(story, x, bool(planned)) | {
        "xaxis2": axis(
            "CPU s throttled in 100 s of training",
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
        else "No quota holds a device back for as much as 0.1 CPU seconds in 100 s of training."
    )
    return Chart("cpu", title, words, traces, layout, rows_height(list(had)), wide=True)


def _throttled(rounds: Sequence[ClientRound]) -> float:
    """Return throttled CPU seconds in 100 s of training: of several CPUs they may be more."""
    epochs = [epoch for client in rounds for epoch in client.epochs]
    throttled = sum(epoch.throttled_seconds for epoch in epochs)
    return 100 * throttled / sum(epoch.seconds for epoch in epochs)


def memory(story: Story) -> Chart:
    """Draw the peak of each device's memory, file cache included, against its limit."""
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
        texts = [f"{peak:.0f} MiB" for peak in peaks.values()]
        trace = _client_bars(story, "peak", peaks, texts)
        layout = _rows(story, axis("MiB at the peak", rangemode="tozero"), False)
        return Chart("memory", title, words, [trace], layout, rows_height(list(peaks)))
    shares = {name: 100 * peaks[name] / limit for name, limit in limits.items()}
    texts = [f"{peaks[name]:,.0f} of {limit:,.0f} MiB" for name, limit in limits.items()]
    name = max(shares, key=lambda name: shares[name])
    words = f"{name} comes closest to its limit: at its peak it uses {shares[name]:.0f} % of it."
    layout = _rows(story, axis("% of the device's memory, at the peak", range=[0, 100]), False)
    trace = _client_bars(story, "peak", shares, texts)
    return Chart("memory", title, words, [trace], layout, rows_height(list(shares)))


def traffic(story: Story) -> Chart:
    """Draw the megabytes that each device sent and received in each round."""
    title = "Bytes per round and device"
    sent, received = (_bytes(story, field) for field in ("bytes_sent", "bytes_received"))
    if not sent:
        return Chart("bytes", title, "This run's clients count no bytes.")
    traces = [
        _stack(name, points, story.colours[name], side)
        for side, by_client in (("", sent), ("2", received))
        for name, points in by_client.items()
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


def energy(story: Story) -> Chart:
    """Draw the modelled kilojoules of each device, busy and idle one after the other."""
    title = "Energy by device, modelled"
    total = {
        name: drawn / 1e3
        for name, rounds in story.clients.items()
        if (drawn := joules(rounds)) is not None
    }
    drawn_in_all = sum(total.values())
    if not drawn_in_all:
        words = "No watts are known of this run's devices: there is no energy to draw."
        return Chart("energy", title, words)
    by_state = {
        state: {
            name: (joules(story.clients[name], f"energy_{state}_joules") or 0.0) / 1e3
            for name in total
        }
        for state, _ in _STATES
    }
    traces = [
        bars(
            state,
            by_state[state],
            [f"{value:.2f} kJ" for value in by_state[state].values()],
            colour,
            hovertemplate=f"%{{y}}: %{{text}}<extra>{state}</extra>",
        )
        for state, colour in _STATES
    ]
    layout = {
        "barmode": "stack",
        "xaxis": axis("kJ in the whole run", rangemode="tozero"),
        "yaxis": names_axis(list(story.clients)),
        "showlegend": True,
        "bargap": 0.35,
    }
    most = max(total, key=lambda name: total[name])
    words = (
        f"By the watts of their profiles the devices draw {drawn_in_all:.2f} kJ in all, "
        f"{sum(by_state['idle'].values()) / drawn_in_all:.0%} of it while they neither train nor "
        f"evaluate. {most} draws most, {total[most]:.2f} kJ."
    )
    return Chart(
        "energy", title, words, traces, layout, rows_height(list(story.clients)), wide=True
    )


def _client_bars(
    story: Story, name: str, rows: Mapping[str, float], texts: Sequence[str], **more: Any
) -> Trace:
    """Draw each bar in its client's colour; the legend, which would show one, leaves them out."""
    return bars(name, rows, texts, [story.colours[row] for row in rows], showlegend=False, **more)


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
    """Return megabytes by client and round, of the clients that count them."""
    megabytes: dict[str, dict[int, float]] = {}
    for record in story.summary.rounds:
        for client in record.clients:
            if (value := getattr(client, field)) is not None:
                megabytes.setdefault(client.client, {})[record.round] = value / 1e6
    return megabytes


def _medians(story: Story, values: Callable[[ClientRound], Sequence[float]]) -> dict[str, float]:
    """Return the median by client over all values of its rounds; leave out who has none."""
    return {
        name: median(known)
        for name, rounds in story.clients.items()
        if (known := [value for client in rounds for value in values(client)])
    }


def _seconds_and_error(seconds: float, target: float | None) -> str:
    error = "" if target is None else f", {seconds / target - 1:+.1%}"
    return f"{seconds:.3g} s{error}"


def _epoch_words(medians: Mapping[str, float], targets: Mapping[str, float], unit: str) -> str:
    ranked = sorted(medians, key=lambda name: medians[name])
    fast, slow = ranked[0], ranked[-1]
    words = f"A local epoch takes {slow} {medians[slow]:.3g} {unit}"
    if slow != fast:
        words += f", {times(medians[slow] / medians[fast], fast)}"
    if not targets:
        return f"{words}. No device has a target: nothing was emulated by speed."
    errors = {name: medians[name] / targets[name] - 1 for name in targets}
    worst = max(errors, key=lambda name: abs(errors[name]))
    return f"{words}. Farthest from its real device is {worst}, by {errors[worst]:+.1%}."


def _rows(story: Story, x: Mapping[str, Any], legend: bool) -> dict[str, Any]:
    return {
        "xaxis": x,
        "yaxis": names_axis(list(story.clients)),
        "showlegend": legend,
        "bargap": 0.35,
    }
