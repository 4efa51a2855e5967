"""`make bench` and `make bench-full`: one table, and the same as runs/bench/bench.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import container
import crowd
import curves
import emulation
import image
import looking
import memory
import numerics
import rebuild
import rounds
import start
import train
from rich.console import Console
from rich.table import Table
from row import Row, hardware

from fedbench.host.setup import bootstrap

ROOT = Path(__file__).resolve().parents[2]
Part = Callable[[str], Iterable[Row]]
QUICK: dict[str, Part] = {
    "train": train.rows,
    "train_gpu": train.gpu_rows,
    "rounds": rounds.rows,
    "container": container.rows,
    "start": start.rows,
    "image": image.rows,
    "memory": memory.rows,
    "rebuild": rebuild.rows,
    "looking": looking.rows,
}
LONG: dict[str, Part] = {
    "train_parts": train.parts_rows,
    "limit": train.limit_rows,
    "numerics": numerics.rows,
    "emulation": emulation.rows,
    "crowd": crowd.rows,
    "curves": curves.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(QUICK | LONG)}")
    parser.add_argument("--full", action="store_true", help="the long parts, too")
    arguments = parser.parse_args()
    every = QUICK | LONG
    unknown = [part for part in arguments.parts if part not in every]
    if unknown:
        parser.error(f"no such part: {unknown[0]}; there are {', '.join(every)}")
    parts = arguments.parts or [*(every if arguments.full else QUICK)]
    console = Console(width=110)
    daemon_was_ours = bootstrap.daemon_is_ours()
    try:
        results = list(_measure(parts, console))
    finally:
        if bootstrap.daemon_is_ours() and not daemon_was_ours:
            bootstrap.stop_daemon(console.print)
    console.print(_table(results), f"{hardware()}; recorded in {_record(results)}")


def _measure(parts: Iterable[str], console: Console) -> Iterable[Row]:
    for part in parts:
        for result in (QUICK | LONG)[part](f"make bench BENCH={part}"):
            console.print(f"{result.name}: {result.value:.4g} {result.unit}", highlight=False)
            yield result


def _record(results: Iterable[Row]) -> Path:
    """Rows of this run replace those of their name; rows of other parts stay."""
    file = ROOT / "runs" / "bench" / "bench.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text()) if file.exists() else []
    rows = {row["name"]: row for row in before} | {row.name: row.to_json() for row in results}
    file.write_text(json.dumps(list(rows.values()), indent=2) + "\n")
    return file


def _table(results: Iterable[Row]) -> Table:
    table = Table("name", "value", "unit", "peer", "ratio", "n", "spread")
    for r in results:
        peer = "-" if r.peer is None else f"{r.peer:.4g}"
        ratio = "-" if r.ratio is None else f"{r.ratio:.2f}"
        spread = f"{r.spread[0]:.4g} to {r.spread[1]:.4g}"
        table.add_row(r.name, f"{r.value:.4g}", r.unit, peer, ratio, str(r.n), spread)
    return table


main()
