"""One row of the benchmark: our figure beside the peer's, from the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import psutil

from fedbench.host.setup.machine import cpu_model


@dataclass(frozen=True)
class Row:
    """Medians over `n` measurements; `spread` is the lowest and highest of ours.

    `ratio` says how many times better than the peer, whichever direction is better.
    """

    name: str
    value: float
    unit: str
    peer: float | None
    ratio: float | None
    n: int
    spread: tuple[float, float]
    command: str
    hardware: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def row(
    name: str,
    ours: Sequence[float],
    unit: str,
    command: str,
    peers: Sequence[float] = (),
    *,
    more_is_better: bool,
) -> Row:
    value, peer = median(ours), median(peers) if peers else None
    ratio = None if peer is None else value / peer if more_is_better else peer / value
    spread = (min(ours), max(ours))
    return Row(name, value, unit, peer, ratio, len(ours), spread, command, hardware())


def hardware() -> str:
    """Processor, cores and memory of this machine."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{cpu_model()}, {psutil.cpu_count()} cores, {memory:.0f} GiB"
