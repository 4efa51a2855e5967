"""One or several runs -> the text of a page that needs nothing but a browser."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

from fedbench.host.report.page.chart import Chart
from fedbench.host.report.page.confusion import confusion
from fedbench.host.report.page.curves import curves
from fedbench.host.report.page.devices import cpu, epochs, memory, traffic
from fedbench.host.report.page.energy import energy
from fedbench.host.report.page.story import Story
from fedbench.host.report.page.timeline import timeline
from fedbench.host.report.tables import energy as modelled
from fedbench.host.report.tables import run_tables
from fedbench.host.report.tables.run_row import KeyFigures, run_table
from fedbench.host.report.tables.stragglers import round_table
from fedbench.host.report.tables.text_table import Table, figure

_FOLDER = Path(__file__).parent
_OF_ONE_RUN = (timeline, epochs, memory, cpu, traffic, energy, confusion)
_SOFTWARE = ("fedbench", "torch", "flwr", "python", "docker")


def render(stories: Sequence[Story]) -> str:
    """The page: curves of all runs together, then each run by itself."""
    shared = curves(stories)
    sections = [_section(number, story) for number, story in enumerate(stories, 1)]
    every = [*shared, *(chart for section in sections for chart in section["charts"])]
    template = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.jinja")
    return template.render(
        title=_title(stories),
        shared=shared,
        sections=sections,
        runs=run_table([story.summary for story in stories]) if len(stories) > 1 else None,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        charts=_json([_drawn(chart) for chart in every if chart.traces]),
        version=metadata.version("fedbench"),
    )


def _section(number: int, story: Story) -> dict[str, Any]:
    """What the page says of one run; ids of its charts end in its number from the second on."""
    suffix = "" if number == 1 else f"-{number}"
    charts = [draw(story) for draw in _OF_ONE_RUN]
    return {
        "summary": story.summary,
        "facts": list(_facts(story)),
        "keys": list(_keys(story)),
        "charts": [_named(chart, chart.id + suffix) for chart in charts],
        "tables": list(_tables(story)),
        "lists": list(_lists(story)),
    }


def _title(stories: Sequence[Story]) -> str:
    if len(stories) > 1:
        return f"{len(stories)} runs side by side"
    (story,) = stories
    return f"{story.summary.experiment} on {story.summary.profile}"


def _facts(story: Story) -> Iterator[tuple[str, str]]:
    """What ran, where, and when."""
    asked, summary, host = story.experiment, story.summary, story.versions
    yield "Run", f"{summary.run}, {summary.status}{f' ({summary.error})' if summary.error else ''}"
    yield "Started", f"{datetime.fromisoformat(summary.started_at):%-d %B %Y, %H:%M:%S %Z}"
    yield (
        "Experiment",
        f"{summary.experiment}: {asked['model']} on {asked['data']['name']} "
        f"({_partition(asked['data']['partition'])}); rounds: {asked['rounds']}, local epochs: "
        f"{asked['local_epochs']}, batch size: {asked['batch_size']}",
    )
    yield "Devices", f"{summary.profile}: {', '.join(_device(n, story) for n in story.clients)}"
    if not story.emulates:
        yield (
            "Emulation",
            "none: all ran in one program, whose seconds say nothing of devices",
        )
    elif summary.dilation > 1:
        yield (
            "Dilation",
            f"{summary.dilation:g}: every device is slowed by this factor, and emulated seconds "
            "are wall seconds divided by it",
        )
    if host:
        yield "Host", f"{host.get('cpu', 'unknown CPU')}, {host['cores']} cores{_memory(host)}"
        yield "Software", ", ".join(f"{n} {host[n]}" for n in _SOFTWARE if n in host)


def _partition(partition: str | Mapping[str, Any]) -> str:
    """`iid`, or `dirichlet, alpha 0.3` where it has keys of its own."""
    if isinstance(partition, str):
        return partition
    keys = [f"{key} {value}" for key, value in partition.items() if key != "name"]
    return ", ".join([partition["name"], *keys])


def _device(client: str, story: Story) -> str:
    device = story.clients[client][0].device
    name = client if device == client else f"{client} ({device})"
    speed = story.emulation.targets.get(client)
    return name if speed is None else f"{name} {speed:,.0f} images/s"


def _memory(host: Any) -> str:
    return f", {host['memory_bytes'] / 2**30:.0f} GiB" if "memory_bytes" in host else ""


def _keys(story: Story) -> Iterator[tuple[str, str, str]]:
    """A figure, what it is, and what is to be known of it."""
    key = KeyFigures.of(story.summary)
    planned = story.experiment["rounds"]
    yield figure(key.accuracy, ".4f"), "accuracy", f"loss {figure(key.loss, '.4f')}"
    if key.emulated_seconds is not None:
        wall = f"{_clock(key.wall_seconds)} of wall time"
        yield _clock(key.emulated_seconds), "emulated time", wall
    else:
        yield _clock(key.wall_seconds), "wall time", "nothing is emulated"
    yield f"{key.rounds}", "rounds", f"of {planned}"
    if key.slowest:
        yield key.slowest, "slowest device", f"{key.factor:.1f} times the fastest's work"
    if key.overhead_seconds is not None:
        yield f"{key.overhead_seconds:.2f} s", "overhead per round", "wall seconds, median"
    if key.sent is not None and key.received is not None:
        received = f"{key.received / 1e6:.1f} MB received"
        yield f"{key.sent / 1e6:.1f} MB", "sent by all devices", received
    if key.energy_joules is not None:
        yield f"{key.energy_joules / 1e3:.2f} kJ", "drawn by all devices", "modelled"


def _clock(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s` or `43.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02} min" if hours else f"{minutes} min {rest:02} s"


def _tables(story: Story) -> Iterator[tuple[str, Table]]:
    summary = story.summary
    yield "Devices", run_tables.device_table(summary)
    yield "Local epochs", run_tables.shown(run_tables.epoch_table(summary), summary)
    yield "Resources", run_tables.resource_table(summary)
    if modelled.of_run(summary) is not None:
        yield "Energy, modelled", modelled.energy_table(summary)
    yield "Rounds", run_tables.shown(round_table(summary), summary)


def _lists(story: Story) -> Iterator[tuple[str, Sequence[str]]]:
    parts = {
        "Failures": run_tables.failures(story.summary),
        "Where the emulation did not hold": run_tables.not_held(story.summary),
        "Corrected quotas": story.corrected,
        "The host's own energy": story.measured,
    }
    yield from ((title, lines) for title, lines in parts.items() if lines)


def _named(chart: Chart, name: str) -> Chart:
    return replace(chart, id=name)


def _drawn(chart: Chart) -> dict[str, Any]:
    return {
        "id": chart.id,
        "traces": chart.traces,
        "layout": {**chart.layout, "height": chart.height},
    }


def _json(value: object) -> str:
    """JSON that may stand in a script element; what is no number, as a loss may be, is a gap."""
    return json.dumps(_finite(value), ensure_ascii=True).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
