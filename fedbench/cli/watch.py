"""Commands that watch a federation: its devices live, and what its containers log."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli import checkout
from fedbench.cli.output import console, say
from fedbench.engines.containers.runtime.stack import require
from fedbench.host.watch.prometheus import TUNNEL, Prometheus
from fedbench.records.runs import RunStore


def top(
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"of a federation elsewhere, whose host alone reaches its Prometheus: {TUNNEL}",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(help="this run, or an error")] = None,
    once: Annotated[bool, typer.Option("--once", help="print the present state")] = False,
    svg: Annotated[Path | None, typer.Option(help="write it into this picture instead")] = None,
) -> None:
    """Watch all devices live: who holds the round back, and why. ? shows the keys, q quits."""
    from fedbench.host.watch.top.drawing import Board, export_svg
    from fedbench.host.watch.top.query import look

    source = Prometheus(prometheus or require(checkout.places).prometheus_url)
    if svg is not None:
        export_svg(look(source, run), svg)
        say(f"drawn into {svg}")
    elif once or not _on_terminal():
        console.print(Board(look(source, run)))
    else:
        from fedbench.host.watch.top.screen import watch  # Textual takes its time

        watch(source, run)


def _on_terminal() -> bool:
    """Return whether somebody sees what is drawn, and can press keys."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(stream.isatty() for stream in streams) and not console.is_dumb_terminal


def logs(
    names: Annotated[
        list[str] | None, typer.Argument(help="clients or services; server and clients by default")
    ] = None,
    clients: Annotated[list[str] | None, typer.Option("--client", "-c", help="the same")] = None,
    since: Annotated[
        str | None, typer.Option(help="30s, 5m, 2h, 1d, or a time: 2026-11-25T12:00")
    ] = None,
    run: Annotated[str | None, typer.Option(help="of this run alone; it may have ended")] = None,
    level: Annotated[str, typer.Option(help="at least: debug, info, warning, error")] = "info",
    everything: Annotated[
        bool, typer.Option("--all", help="Flower's own lines too: --level debug")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
    tail: Annotated[
        int | None, typer.Option(help="last lines; 200 unless --since or --run is given", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """Print what server and clients logged, in the order of time."""
    from fedbench.host.watch import logs
    from fedbench.host.watch.log_sources import LogFilter

    chosen = [*(names or ()), *(clients or ())]
    level = "debug" if everything else level
    one = RunStore(checkout.places.runs).find(run) if run else None
    wanted = LogFilter.parse(chosen, since=since, run=one, level=level, tail=tail)
    with suppress(KeyboardInterrupt):
        for line in logs.lines(wanted, follow=follow):
            text = line.json() if as_json else line.text()
            console.print(text, highlight=False, markup=False, soft_wrap=True)
