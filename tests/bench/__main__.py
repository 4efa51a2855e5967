"""`make bench` and `make bench-full`: one table, and the same as runs/bench/bench.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import container
import containers
import crowd
import curves
import emulation
import image
import looking
import lossy
import memory
import numerics
import rebuild
import rounds
import soak
import start
import train
from rich.console import Console
from rich.table import Table
from row import Row, hardware
from session import Part, Session

FILE = Path(__file__).resolve().parents[2] / "runs" / "bench" / "bench.json"
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
    "soak": soak.rows,
}
LONG: dict[str, Part] = {
    "train_parts": train.parts_rows,
    "limit": train.limit_rows,
    "numerics": numerics.rows,
    "emulation": emulation.rows,
    "crowd": crowd.rows,
    "curves": curves.rows,
    "soak_full": soak.long_rows,
    "lossy": lossy.rows,
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
    session = Session(FILE, partial(console.print, highlight=False, markup=False, soft_wrap=True))
    try:
        with containers.DOCKER:
            session.measure({part: every[part] for part in parts})
    finally:
        console.print(_table(session.rows), f"{hardware()}; recorded in {FILE}")
    if session.failed:
        sys.exit(f"parts that failed: {', '.join(session.failed)}")


def _table(results: Iterable[Row]) -> Table:
    table = Table("name", "value", "unit", "peer", "ratio", "n", "spread")
    for r in results:
        peer = "-" if r.peer is None else f"{r.peer:.4g}"
        ratio = "-" if r.ratio is None else f"{r.ratio:.2f}"
        spread = f"{r.spread[0]:.4g} to {r.spread[1]:.4g}"
        table.add_row(r.name, f"{r.value:.4g}", r.unit, peer, ratio, str(r.n), spread)
    return table


main()
