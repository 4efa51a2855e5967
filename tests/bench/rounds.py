"""A round's overhead: three unequal clients that only change 9 MB of weights a little.

Round time less the slowest client's training and evaluation (none here), profile `heterogeneous`,
after a first run. The peer is the stock flower-supernode with the same ClientApp and server. The
rows `round_*` are the parts that the overhead is made of (see RoundParts in fedbench/records.py);
the stock node does not measure them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from federation import federation
from row import Row, row

from fedbench.records import RoundParts

ROUNDS, STOCK_ROUNDS = 20, 2  # one of the stock node's takes a minute
NOOP = "--experiment=noop"


def rows(command: str) -> Iterator[Row]:
    with federation("heterogeneous", NOOP, "--set=rounds=1") as bench:
        ours = bench.run(NOOP, f"--set=rounds={ROUNDS}")
    stock = ["--set=node=stock", f"--set=rounds={STOCK_ROUNDS}"]
    with federation("heterogeneous", NOOP, *stock) as bench:
        theirs = bench.first
    yield row(
        "round_overhead", overheads(ours), "s", command, overheads(theirs), more_is_better=False
    )
    for part in RoundParts.model_fields:
        seconds = [record["parts"][part] for record in ours["rounds"]]
        yield row(f"round_{part}", seconds, "s", command, more_is_better=False)


def overheads(summary: dict[str, Any]) -> list[float]:
    """Seconds, for each round; every client answered."""
    for record in summary["rounds"]:
        assert all(client["error"] is None for client in record["clients"]), record
    return [record["overhead_seconds"] for record in summary["rounds"]]
