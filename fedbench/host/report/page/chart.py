"""A chart as Plotly takes it, and what all of them share.

Colours that begin with `@` are those of the page, which has a light and a dark set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]

PALETTE = (
    "#3987e5", "#e0662f", "#1ba574", "#d39000", "#8476e0", "#e05656", "#d9669a", "#5f8f2f",
)  # fmt: skip
WALL, EMULATED = "wall seconds", "emulated seconds"
ALIKE = 1.05  # times as long: less is no difference
_MANY = 20  # rounds that have a tick each
_ROW, _REST = 34, 130  # pixels: a client's row, and what is around all of them


@dataclass(frozen=True)
class Chart:
    """`words` say what is to be seen, or what the run lacks where there are no traces."""

    id: str
    title: str
    words: str
    traces: Sequence[Trace] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 340
    wide: bool = False


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each; they repeat after eight."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}


def times(factor: float, other: str) -> str:
    """How many times as long as another something takes, in words."""
    how = "about" if factor < ALIKE else f"{factor:.1f} times"
    return f"{how} as long as {other}"


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis that says what is along it, with its unit."""
    return {"title": {"text": title}, **more}


def rounds_axis(last: int, title: str = "round", **more: Any) -> dict[str, Any]:
    """One of rounds, which have no halves."""
    ticks = {"dtick": 1} if last <= _MANY else {}
    return axis(title, tickformat="d", **ticks, **more)


def names_axis(clients: Sequence[str]) -> dict[str, Any]:
    """One of clients, the first at the top."""
    return {"categoryorder": "array", "categoryarray": list(reversed(clients)), "showgrid": False}


def rows_height(clients: Sequence[str]) -> int:
    """Pixels of a chart with a row for each client."""
    return _REST + _ROW * max(len(clients), 2)


def marks(name: str, points: Mapping[str, float], unit: str) -> Trace:
    """A line across the row of each client: what its bar is to be held against."""
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


def bars(name: str, rows: Mapping[str, float], texts: Sequence[str], **more: Any) -> Trace:
    """A bar for each client, with its text beside it."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(rows),
        "x": list(rows.values()),
        "text": [f"  {text}  " for text in texts],  # clear of a mark at the bar's end
        "textposition": "auto",
        "cliponaxis": False,
        "marker": {"color": PALETTE[0]},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        **more,
    }
