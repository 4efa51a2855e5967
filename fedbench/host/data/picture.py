"""Who holds what, as a picture: a bar for each client, its images stacked by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from fedbench.errors import DataError

Held = Mapping[str, Mapping[str, int]]

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # a class may be called $5
    "svg.fonttype": "none",  # words stay words, which can be searched
    "svg.hashsalt": "fedbench",  # the same picture is the same file
}
_WIDTH, _ROW, _MARGINS, _LEGEND_ROW = 9.0, 0.34, 1.1, 0.22  # inches
_GREY = "#555555"
_LEGEND_UP_TO = 40  # classes; beyond, their colours cannot be told apart
_DIGIT = 0.0085  # of the longest bar: what a digit of a count takes

Colour = tuple[float, float, float]


def draw(held: Held, title: str, file: Path) -> None:
    """Draw how many images of which class each client holds, into an SVG or PNG file.

    Raises:
        DataError: the file cannot be written.
    """
    with mpl.rc_context(_STYLE):
        figure = _figure(held, title)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        try:
            figure.savefig(file, dpi=150, metadata=metadata)
        except OSError as error:
            raise DataError(f"{file}: cannot be written: {error}", "choose another file") from None


def _figure(held: Held, title: str) -> Figure:
    classes = list(next(iter(held.values())))
    per_row = _legend_per_row(classes)
    height = _MARGINS + _ROW * len(held) + _LEGEND_ROW * -(-len(classes) // per_row)
    figure = Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.add_subplot()
    colours = _colours(len(classes))
    _bars(axes, held, colours)
    _frame(axes, held)
    figure.suptitle(title, x=0.012, ha="left", weight="bold")
    if len(classes) > _LEGEND_UP_TO:
        note = f"{len(classes)} classes, coloured in their order: {classes[0]} to {classes[-1]}"
        axes.set_xlabel(f"training images ({note})")
    else:
        _legend(figure, classes, colours, per_row)
    return figure


def _bars(axes: Axes, held: Held, colours: Sequence[Colour]) -> None:
    counts = np.array([list(of_client.values()) for of_client in held.values()])  # [client, class]
    ends = np.cumsum(counts, axis=1)
    longest = int(ends[:, -1].max())
    for label, colour in enumerate(colours):
        rows = np.flatnonzero(counts[:, label])
        widths, starts = counts[rows, label], (ends - counts)[rows, label]
        axes.barh(rows, widths, left=starts, height=0.78, color=colour, lw=0.4, ec="white")
        cells = np.stack([widths, starts + widths / 2, rows], axis=1)
        for count, middle, row in cells.tolist():
            if count / longest > _DIGIT * (len(f"{count:.0f}") + 1):
                _write_count(axes, count, middle, row, _ink(colour))
    for row, total in enumerate(ends[:, -1].tolist()):
        axes.text(total + longest * 0.008, row, f"{total:,}", va="center", weight="bold")


def _write_count(axes: Axes, count: float, x: float, y: float, ink: str) -> None:
    text = axes.text(x, y, f"{count:.0f}", ha="center", va="center", size=7, color=ink)
    text.set_in_layout(False)  # it has its room in the bar; measuring hundreds of them takes long


def _frame(axes: Axes, held: Held) -> None:
    axes.set_yticks(range(len(held)), list(held))
    axes.set_ylim(len(held) - 0.4, -0.6)  # the first client on top
    axes.margins(x=0.07)
    axes.set_xlim(left=0)
    axes.set_xlabel("training images", color=_GREY)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(length=0, colors=_GREY)
    axes.tick_params(axis="y", labelcolor="black")
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _legend_per_row(classes: Sequence[str]) -> int:
    if len(classes) > _LEGEND_UP_TO:
        return len(classes)
    widest = 0.45 + 0.08 * max(len(name) for name in classes)  # inches
    return min(max(int(_WIDTH / widest), 1), len(classes))


def _legend(
    figure: Figure, classes: Sequence[str], colours: Sequence[Colour], per_row: int
) -> None:
    boxes = [Patch(color=colour) for colour in colours]
    figure.legend(
        boxes, classes, loc="outside lower center", ncols=per_row, frameon=False,
        handlelength=1, handleheight=1, columnspacing=1.2,
    )  # fmt: skip


def _colours(number: int) -> list[Colour]:
    if number <= 20:
        named = mpl.color_sequences["tab10" if number <= 10 else "tab20"]
        return [to_rgb(colour) for colour in named[:number]]
    steps = mpl.colormaps["turbo"]
    return [to_rgb(steps(0.05 + 0.9 * index / (number - 1))) for index in range(number)]


def _ink(colour: Colour) -> str:
    """Black or white, whichever reads better on `colour` (relative luminance, Rec. 709)."""
    red, green, blue = colour
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"
