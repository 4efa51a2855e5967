"""The colours of the product: what a client does, and which client or run it is.

Grafana's dashboards, `fedbench top` and the HTML report take them from here, so a phase or a client
looks the same wherever one looks.

On a dark ground they are those of Grafana's dark theme. Most are too pale for a white one: there
each is a darker shade of the same hue. Both have a contrast of 3 to 1 at least, as WCAG asks of
graphics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Hue:
    """A colour by its name, and its shades, `#rrggbb`, on a dark and on a light ground."""

    name: str
    dark: str
    light: str


GREY = Hue("grey", "#8e8e8e", "#8e8e8e")
GREEN = Hue("green", "#73bf69", "#37872d")
YELLOW = Hue("yellow", "#fade2a", "#a67c00")
BLUE = Hue("blue", "#5794f2", "#3274d9")
ORANGE = Hue("orange", "#ff9830", "#e55400")
RED = Hue("red", "#f2495c", "#e02f44")
PURPLE = Hue("purple", "#b877d9", "#a352cc")
DARK_GREEN = Hue("dark-green", "#37872d", "#145c0b")
DARK_YELLOW = Hue("dark-yellow", "#e0b400", "#7a5c00")

PHASES: Mapping[str, Hue] = {
    "waiting": GREY,
    "receiving": BLUE,
    "training": GREEN,
    "evaluating": YELLOW,
    "sending": PURPLE,
}
"""The hue of each phase of a client (`telemetry/work.py` has the phases)."""

# Grafana has these names but for grey.
GRAFANA_PHASES = {phase: hue.name for phase, hue in PHASES.items()} | {"waiting": GREY.dark}

# Those of a terminal's sixteen colours, which its user chose; its plain blue is too dark to read on
# black, and purple is magenta there.
TERMINAL_PHASES = {
    "waiting": "bright_black",
    "receiving": "bright_blue",
    "training": "green",
    "evaluating": "yellow",
    "sending": "magenta",
}

SERIES = (GREEN, YELLOW, BLUE, ORANGE, RED, PURPLE, DARK_GREEN, DARK_YELLOW)
"""The hues of clients by name, or of runs: those of Grafana's classic palette, in its order."""

HUES = tuple(dict.fromkeys((*PHASES.values(), *SERIES)))
"""Each hue, once."""
