"""`make bench`: one table, and the same as runs/bench/bench.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import image
import memory
import train
from rich.console import Console
from rich.table import Table
from row import Row, hardware

ROOT = Path(__file__).resolve().parents[2]
PARTS: dict[str, Callable[[str], Iterable[Row]]] = {
    "train": train.rows,
    "image": image.rows,
    "memory": memory.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parts = parser.parse_args().parts or list(PARTS)
    console = Console(width=110)
    results = []
    for part in parts:
        for result in PARTS[part](f"make bench BENCH={part}"):
            console.print(f"{result.name}: {result.value:.4g} {result.unit}", highlight=False)
            results.append(result)
    file = ROOT / "runs" / "bench" / "bench.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([result.to_json() for result in results], indent=2) + "\n")
    console.print(_table(results), f"{hardware()}; recorded in {file}")


def _table(results: Iterable[Row]) -> Table:
    table = Table("name", "value", "unit", "peer", "ratio", "n", "spread")
    for r in results:
        peer = "-" if r.peer is None else f"{r.peer:.4g}"
        ratio = "-" if r.ratio is None else f"{r.ratio:.2f}"
        spread = f"{r.spread[0]:.4g} to {r.spread[1]:.4g}"
        table.add_row(r.name, f"{r.value:.4g}", r.unit, peer, ratio, str(r.n), spread)
    return table


main()
