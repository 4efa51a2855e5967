"""Write one or several runs as the text of a page that needs nothing but a browser."""

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

from fedbench.config.units import format_number
from fedbench.host.palette import HUES
from fedbench.host.report.page.chart import Chart
from fedbench.host.report.page.devices import cpu, energy, epochs, memory, traffic
from fedbench.host.report.page.global_model import confusion, curves
from fedbench.host.report.page.story import Story
from fedbench.host.report.page.timeline import timeline
from fedbench.host.report.tables import run_tables
from fedbench.host.report.tables.run_tables import round_table
from fedbench.host.report.tables.run_totals import RunTotals, run_joules, run_table
from fedbench.host.report.tables.text_table import Table

_FOLDER = Path(__file__).parent
_OF_ONE_RUN = (timeline, epochs, memory, cpu, traffic, energy, confusion)
_SOFTWARE = ("fedbench", "torch", "flwr", "python", "docker")


def render(stories: Sequence[Story]) -> str:
    """Write the page: curves of all runs together, then each run by itself."""
    clients = sorted({name for story in stories for name in story.clients})
    stories = [replace(story, beside=clients) for story in stories]
    shared = curves(stories)
    sections = [_section(number, story) for number, story in enumerate(stories, 1)]
    charts = list(shared)
    for section in sections:
        charts += section["charts"]
    template = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.jinja")
    return template.render(
        title=_title(stories),
        shared=shared,
        sections=sections,
        runs=run_table([story.summary for story in stories]) if len(stories) > 1 else None,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        hues=HUES,
        script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        charts=_json([_drawn(chart) for chart in charts if chart.traces]),
        version=metadata.version("fedbench"),
    )


def _section(number: int, story: Story) -> dict[str, Any]:
    """Gather what the page says of one run; ids of charts end in its number from the second on."""
    suffix = "" if number == 1 else f"-{number}"
    charts = [draw(story) for draw in _OF_ONE_RUN]
    return {
        "summary": story.summary,
        "facts": list(_facts(story)),
        "keys": list(_headline(story)),
        "charts": [_with_id(chart, chart.id + suffix) for chart in charts],
        "tables": list(_tables(story)),
        "lists": list(_lists(story)),
    }


def _title(stories: Sequence[Story]) -> str:
    if len(stories) > 1:
        return f"{len(stories)} runs side by side"
    (story,) = stories
    return f"{story.summary.experiment} on {story.summary.profile}"


def _facts(story: Story) -> Iterator[tuple[str, str]]:
    """List what ran, where, and when: name -> text."""
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
    """Write `iid`, or `dirichlet, alpha 0.3` for a partition with keys."""
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


def _headline(story: Story) -> Iterator[tuple[str, str, str]]:
    """List the numbers at the top of the page: the number, what it is, and a remark."""
    totals = RunTotals.of(story.summary)
    planned = story.experiment["rounds"]
    yield (
        format_number(totals.accuracy, ".4f"),
        "accuracy",
        f"loss {format_number(totals.loss, '.4f')}",
    )
    if totals.emulated_seconds is not None:
        wall = f"{_format_clock(totals.wall_seconds)} of wall time"
        yield _format_clock(totals.emulated_seconds), "emulated time", wall
    else:
        yield _format_clock(totals.wall_seconds), "wall time", "nothing is emulated"
    yield f"{totals.rounds}", "rounds", f"of {planned}"
    if totals.slowest:
        yield totals.slowest, "slowest device", f"{totals.factor:.1f} times the fastest's work"
    if totals.overhead_seconds is not None:
        yield f"{totals.overhead_seconds:.2f} s", "overhead per round", "wall seconds, median"
    if totals.sent is not None and totals.received is not None:
        received = f"{totals.received / 1e6:.1f} MB received"
        yield f"{totals.sent / 1e6:.1f} MB", "sent by all devices", received
    if totals.energy_joules is not None:
        yield f"{totals.energy_joules / 1e3:.2f} kJ", "drawn by all devices", "modelled"


def _format_clock(seconds: float) -> str:
    """Format seconds as `1 h 02 min`, `3 min 20 s` or `43.2 s`."""
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
    if run_joules(summary) is not None:
        yield "Energy, modelled", run_tables.energy_table(summary)
    yield "Rounds", run_tables.shown(round_table(summary), summary)


def _lists(story: Story) -> Iterator[tuple[str, Sequence[str]]]:
    remarks = {
        "Failures": run_tables.failures(story.summary),
        "Where the emulation did not hold": run_tables.not_held(story.summary),
        "Corrected quotas": story.corrected,
        "The host's own energy": story.measured,
    }
    yield from ((title, lines) for title, lines in remarks.items() if lines)


def _with_id(chart: Chart, name: str) -> Chart:
    return replace(chart, id=name)


def _drawn(chart: Chart) -> dict[str, Any]:
    return {
        "id": chart.id,
        "traces": chart.traces,
        "layout": {**chart.layout, "height": chart.height},
    }


def _json(value: object) -> str:
    """Write JSON that may stand in a script element; an infinite or undefined number is null."""
    return json.dumps(_finite(value), ensure_ascii=True).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
