"""Who trained, waited and sent when: each round on the server's clock, in wall seconds.

The server notes when it has each reply. What the client did before is laid out backwards from
there, by the durations that the client measured: no two clocks are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from statistics import median
from typing import Any, Literal, get_args

from fedbench.host.palette import PHASES, RED
from fedbench.host.report.page.chart import (
    ALIKE,
    WALL,
    Chart,
    Trace,
    axis,
    names_axis,
    paint,
    rows_height,
    times,
)
from fedbench.host.report.page.story import Story
from fedbench.host.report.tables.run_totals import busy
from fedbench.records import ClientRound, RoundRecord
from fedbench.records.clock import WallSeconds

Activity = Literal["receive", "train", "send", "wait for the others", "evaluate"]
_PHASES: dict[Activity, str] = {
    "receive": "receiving",
    "train": "training",
    "send": "sending",
    "wait for the others": "waiting",
    "evaluate": "evaluating",
}
_REPLIES = ("trained", "evaluated", "failed")
_MENU = 90  # pixels below the chart
_Instants = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Span:
    """What a client did in a round; it began `start` wall seconds after the round did."""

    round: int
    client: str
    activity: Activity
    start: float
    seconds: float


def spans(record: RoundRecord, events: Sequence[Mapping[str, Any]]) -> list[Span]:
    """Return what all clients that answered did in the round."""
    instants = _instants(record, events)
    return [
        span
        for client in record.clients
        for span in _of_client(client, record, instants)
        if span.seconds > 0
    ]


def failures(record: RoundRecord, events: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return clients that answered with an error, and wall seconds after the round began."""
    instants = _instants(record, events)
    return [(client, after) for (event, client), after in instants.items() if event == "failed"]


def timeline(story: Story) -> Chart:
    """Draw all rounds, one after the other; a menu shows a single one."""
    title = "Timeline of each round"
    rounds = story.summary.rounds
    by_round = {record.round: spans(record, story.events) for record in rounds}
    all_spans = list(chain.from_iterable(by_round.values()))
    if not all_spans:
        return Chart("timeline", title, "No client answered in any round.")
    failed = [(r.round, *failure) for r in rounds for failure in failures(r, story.events)]
    starts = {record.round: _since(rounds[0].started_at, record.started_at) for record in rounds}
    drawn = (_trace(activity, all_spans, starts, story) for activity in get_args(Activity))
    traces = [trace for trace in drawn if trace]
    if failed:
        traces.append(_crosses(failed, starts))
    ends = {record.round: starts[record.round] + record.duration_seconds for record in rounds}
    layout = {
        "barmode": "overlay",
        "bargap": 0.3,
        "xaxis": axis(f"{WALL} since the first round began", range=[0, max(ends.values())]),
        "yaxis": names_axis(list(story.clients)),
        "showlegend": True,
        "margin": {"l": 12, "r": 16, "t": 16, "b": _MENU},
        "shapes": [_border(start) for start in starts.values()],
        "updatemenus": [_menu(starts, ends)],
    }
    words = _words(story, all_spans)
    return Chart(
        "timeline",
        title,
        words,
        traces,
        layout,
        rows_height(list(story.clients)) + _MENU,
        wide=True,
    )


def _instants(record: RoundRecord, events: Sequence[Mapping[str, Any]]) -> _Instants:
    """Return when the server had each reply: (event, client) -> seconds after the round began.

    A round that was interrupted has events of an earlier attempt, too: they are left out.
    """
    known = (
        (event, _since(record.started_at, event["time"]))
        for event in events
        if event["event"] in _REPLIES and event["round"] == record.round
    )
    return {(event["event"], event["client"]): after for event, after in known if after >= 0}


def _of_client(client: ClientRound, record: RoundRecord, instants: _Instants) -> Iterator[Span]:
    def span(activity: Activity, start: float, end: float) -> Span:
        return Span(record.round, client.client, activity, start, end - start)

    if (trained := instants.get(("trained", client.client))) is None:
        return
    first, second = _downloads(client)
    sent_from = trained - (client.upload_seconds or 0.0)
    yield span("receive", 0.0, first)
    yield span("train", sent_from - sum(client.epoch_seconds), sent_from)
    yield span("send", sent_from, trained)
    evaluated = instants.get(("evaluated", client.client))
    if evaluated is None:
        yield span("wait for the others", trained, record.duration_seconds)
        return
    began = evaluated - (client.evaluate_seconds or 0.0)
    yield span("wait for the others", trained, began - second)
    yield span("receive", began - second, began)
    yield span("evaluate", began, evaluated)
    yield span("wait for the others", evaluated, record.duration_seconds)


def _downloads(client: ClientRound) -> tuple[float, float]:
    """Return seconds of receiving before training and before evaluating; 0 where not known."""
    second = client.evaluate_download_seconds
    if client.download_seconds is None or second is None:
        return 0.0, 0.0
    return client.download_seconds - second, second


def _trace(
    activity: Activity, spans: Sequence[Span], starts: Mapping[int, float], story: Story
) -> Trace | None:
    matching = [span for span in spans if span.activity == activity]
    if not matching:
        return None
    emulated = story.summary.dilation.emulated
    return {
        "type": "bar",
        "orientation": "h",
        "name": activity,
        "y": [span.client for span in matching],
        "base": [starts[span.round] + span.start for span in matching],
        "x": [span.seconds for span in matching],
        "customdata": [[span.round, emulated(WallSeconds(span.seconds))] for span in matching],
        "marker": {"color": paint(PHASES[_PHASES[activity]])},
        "hovertemplate": (
            f"%{{y}}, round %{{customdata[0]}}: {activity}<br>%{{x:.2f}} wall s"
            + (", %{customdata[1]:.2f} emulated s" if story.emulates else "")
            + "<extra></extra>"
        ),
    }


def _crosses(failed: Sequence[tuple[int, str, float]], starts: Mapping[int, float]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "failed",
        "y": [client for _, client, _ in failed],
        "x": [starts[number] + after for number, _, after in failed],
        "marker": {"symbol": "x", "size": 11, "color": paint(RED)},
        "hovertemplate": "%{y} failed<extra></extra>",
    }


def _words(story: Story, spans: Sequence[Span]) -> str:
    work = {name: seconds for name, rounds in story.clients.items() if (seconds := busy(rounds))}
    if not work:
        return "Nobody trains: these rounds are of messages alone."
    slow, fast = next(iter(work)), next(reversed(work))
    most, factor = work[slow], work[slow] / work[fast]
    if factor < ALIKE:
        words = f"No device holds the rounds back: each works for {most:.3g} wall s of the median"
    else:
        words = (
            f"{slow} holds the rounds back: it works for {most:.3g} wall s of the median round, "
            f"{times(factor, fast)}, which waits for {_waits(fast, spans):.3g} wall s of it"
        )
    received = any(span.activity == "receive" for span in spans)
    between = "polls and copies" if received else "what it receives, polls and copies"
    return f"{words}. Between the bars are {between}."


def _waits(client: str, spans: Sequence[Span]) -> float:
    """Return the wall seconds that a client waits for the others in its median round."""
    by_round: dict[int, float] = {}
    for span in spans:
        if span.client == client:
            waited = span.seconds if span.activity == "wait for the others" else 0.0
            by_round[span.round] = by_round.get(span.round, 0.0) + waited
    return median(by_round.values()) if by_round else 0.0


def _border(start: float) -> dict[str, Any]:
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    return {
        "type": "line", "x0": start, "x1": start, "yref": "paper", "y0": 0, "y1": 1, "line": line,
    }  # fmt: skip


def _menu(starts: Mapping[int, float], ends: Mapping[int, float]) -> dict[str, Any]:
    ranges = {"all rounds": [0, max(ends.values())]}
    ranges |= {f"round {number}": [start, ends[number]] for number, start in starts.items()}
    return {
        "x": 1, "xanchor": "right", "y": 0, "yanchor": "top", "pad": {"t": 52}, "direction": "up",
        "bgcolor": "@surface", "bordercolor": "@grid",
        "buttons": [
            {"method": "relayout", "label": label, "args": [{"xaxis.range": span}]}
            for label, span in ranges.items()
        ],
    }  # fmt: skip


def _since(start: str, moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(start)).total_seconds()
