"""Prints for the commands: results on standard output, how it goes on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from io import TextIOWrapper

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.engine import Engine
from fedbench.records import Summary
from fedbench.records.runs import Run

# A pipe has no width: leave room for whole words.
console = Console(width=None if sys.stdout.isatty() else 140)
progress = Console(stderr=True)


def accept_any_text() -> None:
    """Print question marks for what a terminal or pipe that is not UTF-8 cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """Say on standard error how it goes."""
    progress.print(line, highlight=False, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print a value for scripts."""
    console.print_json(json.dumps(value))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown."""
    table = Table(*header, box=box.MARKDOWN)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def follow_run(engine: Engine, run: Run, stack: Stack | None) -> Summary:
    """Show a run as it goes on, until it ends: live on a terminal, else line by line.

    Only a federation that is up has a live picture of its devices.
    """
    from fedbench.host.watch.prometheus import Prometheus
    from fedbench.host.watch.top.live import Lines, LiveRun

    say(f"run {run.id}")
    if stack is None or not progress.is_terminal:
        return engine.follow(run, Lines(run, say))
    with Live(console=progress, auto_refresh=False) as live:
        names = [client.name for client in stack.clients]
        return engine.follow(run, LiveRun(run, names, Prometheus(stack.prometheus_url), live))


def print_not_held(lines: Iterable[str]) -> None:
    """Print where the host could not hold the emulation."""
    for line in lines:
        console.print(f"did not hold: {line}", markup=False, highlight=False, soft_wrap=True)


def print_urls(stack: Stack) -> None:
    """Print where a federation's dashboards are."""
    grafana = stack.grafana_url or "left out (its image could not be had)"
    console.print(f"Prometheus {stack.prometheus_url}   Grafana {grafana}", highlight=False)
