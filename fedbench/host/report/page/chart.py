"""A chart as Plotly takes it, and what all charts share.

Colours that begin with `@` come from the page, which has a light and a dark set. Those of clients,
runs and activities are hues of `host/palette.py`, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from fedbench.host.palette import SERIES, Hue

Trace = dict[str, Any]

WALL, EMULATED = "wall seconds", "emulated seconds"
ALIKE = 1.05  # times as long: less is no difference
_MANY = 20  # rounds that have a tick each
_ROW, _REST = 34, 130  # pixels: a client's row, and what is around all of them


@dataclass(frozen=True)
class Chart:
    """A chart of the page; without traces, its `words` say what the run lacks."""

    id: str
    title: str
    words: str
    traces: Sequence[Trace] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 340
    wide: bool = False


def paint(hue: Hue) -> str:
    """Return what the page replaces by the hue's shade on its ground."""
    return f"@{hue.name}"


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name, as Grafana gives them: by name, and again after eight."""
    return {name: paint(hue) for name, hue in zip(sorted(set(names)), cycle(SERIES), strict=False)}


def times(factor: float, other: str) -> str:
    """Say in words that something takes `factor` times as long as another."""
    how = "about" if factor < ALIKE else f"{factor:.1f} times"
    return f"{how} as long as {other}"


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title, which should name the unit."""
    return {"title": {"text": title}, **more}


def rounds_axis(last: int, title: str = "round", **more: Any) -> dict[str, Any]:
    """Return an axis of rounds, which have no halves."""
    ticks = {"dtick": 1} if last <= _MANY else {}
    return axis(title, tickformat="d", **ticks, **more)


def names_axis(clients: Sequence[str]) -> dict[str, Any]:
    """Return an axis of clients, the first at the top."""
    return {"categoryorder": "array", "categoryarray": list(reversed(clients)), "showgrid": False}


def rows_height(clients: Sequence[str]) -> int:
    """Return the pixels that a chart with a row for each client is high."""
    return _REST + _ROW * max(len(clients), 2)


def marks(name: str, points: Mapping[str, float], unit: str) -> Trace:
    """Draw a line across the row of each client: what its bar is held against."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "y": list(points),
        "x": list(points.values()),
        "marker": {
            "symbol": "line-ns",
            "size": 20,
            "line": {"width": 3, "color": "@ink"},
            "color": "@ink",
        },
        "hovertemplate": f"%{{y}}: %{{x:.4g}} {unit}<extra>{name}</extra>",
    }


def bars(
    name: str,
    rows: Mapping[str, float],
    texts: Sequence[str],
    colour: str | Sequence[str],
    **more: Any,
) -> Trace:
    """Draw a bar for each client, with its text beside it, in one colour or in one for each."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(rows),
        "x": list(rows.values()),
        "text": [f"  {text}  " for text in texts],  # clear of a mark at the bar's end
        "textposition": "auto",
        "cliponaxis": False,
        "marker": {"color": colour},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        **more,
    }
