"""Emulated against real: what was measured, its targets, and the bars that the errors must meet.

Seconds are emulated seconds of an epoch of 50,000 images. Pure; `fidelity_runs.py` measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median

from fedbench.config.units import EPOCH_IMAGES
from fedbench.errors import FidelityError
from fedbench.host.report.tables.text_table import Table
from fedbench.records import ClientRound, Record, replace_text
from fedbench.records.clock import Dilation

SETTLING_SECONDS, SHORT_SETTLING_SECONDS = 15.0, 8.0
"""Epochs that end so soon after a round began are not counted: quotas settle meanwhile (wall).

The governor looks every four seconds: three times, and in the short form once or twice.
"""
BARS = {"devices": 0.05, "ratios": 0.05, "held_out": 0.10, "interference": 0.05, "sharing": 0.10}


class FidelityRow(Record):
    """One comparison; `spread` is the lowest and the highest of the `n` emulated values."""

    name: str
    target: float
    emulated: float
    error: float
    n: int
    spread: tuple[float, float]


class Fidelity(Record):
    """What `runs/fidelity/fidelity.json` has; `runs` are the ids of the runs that were measured."""

    profile: str
    dilation: float
    devices: tuple[FidelityRow, ...] = ()
    ratios: tuple[FidelityRow, ...] = ()
    held_out: tuple[FidelityRow, ...] = ()
    interference: tuple[FidelityRow, ...] = ()
    sharing: tuple[FidelityRow, ...] = ()
    not_held: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    def write(self, runs: Path) -> Path:
        """Write `fidelity/fidelity.json` in the folder of all runs, and return its path."""
        path = runs / "fidelity" / "fidelity.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, self.model_dump_json(indent=2) + "\n")
        return path

    def require_bars(self) -> None:
        """Raise FidelityError unless every error is within its bar.

        Raises:
            FidelityError: an error is beyond its bar; the message names each.
        """
        if missed := self.missed():
            raise FidelityError(
                "\n".join(f"beyond its bar: {line}" for line in missed),
                "run it again on a host that has nothing else to do"
                if self.not_held
                else "`fedbench calibrate --fresh` measures this host anew",
            )

    def missed(self) -> list[str]:
        """List the errors that are beyond their bars, in words."""
        return [
            f"{row.name} ({kind}): {row.error:+.1%}, at most {bar:.0%}"
            for kind, bar in BARS.items()
            for row in getattr(self, kind)
            if not abs(row.error) <= bar  # an error that is not a number is beyond any bar
        ]


def epochs(
    client: ClientRound, dilation: Dilation, settling: float = SETTLING_SECONDS
) -> list[float]:
    """Return emulated seconds of the epochs that count, scaled to 50,000 images.

    Epochs that ended in the first `settling` wall seconds are left out, unless there are no others.
    """
    scale = EPOCH_IMAGES / client.samples
    ends, end = [], 0.0
    for seconds in client.epoch_seconds:
        end += seconds
        ends.append(end)
    pairs = zip(client.epoch_seconds, ends, strict=True)
    settled = [seconds for seconds, end in pairs if end > settling]
    return [dilation.emulated(seconds) * scale for seconds in settled or client.epoch_seconds]


def row(name: str, target: float, emulated: Sequence[float]) -> FidelityRow:
    """Set the median of emulated seconds against a target."""
    middle = median(emulated)
    return FidelityRow(
        name=name,
        target=target,
        emulated=middle,
        error=middle / target - 1,
        n=len(emulated),
        spread=(min(emulated), max(emulated)),
    )


def ratios(rows: Iterable[FidelityRow]) -> list[FidelityRow]:
    """Compare all pairs of devices: how many times as long the slower takes as the faster.

    The spread runs from the slower device's fastest epoch over the faster device's slowest one to
    the reverse.
    """
    pairs = combinations(sorted(rows, key=lambda row: -row.target), 2)
    return [_ratio(slow, fast) for slow, fast in pairs]


def slowdowns(rows: Sequence[FidelityRow]) -> list[FidelityRow]:
    """Set each row against the row before it: what one more client costs the others."""
    return [_ratio(more, fewer) for fewer, more in pairwise(rows)]


def interference(
    alone: Mapping[str, Sequence[float]], together: Iterable[FidelityRow]
) -> list[FidelityRow]:
    """Set each device with all others training against itself alone, which is the target."""
    return [
        FidelityRow(
            name=other.name,
            target=median(alone[other.name]),
            emulated=other.emulated,
            error=other.emulated / median(alone[other.name]) - 1,
            n=min(other.n, len(alone[other.name])),
            spread=other.spread,
        )
        for other in together
        if other.name in alone
    ]


def _ratio(slow: FidelityRow, fast: FidelityRow) -> FidelityRow:
    target, emulated = slow.target / fast.target, slow.emulated / fast.emulated
    return FidelityRow(
        name=f"{slow.name} : {fast.name}",
        target=target,
        emulated=emulated,
        error=emulated / target - 1,
        n=min(slow.n, fast.n),
        spread=(slow.spread[0] / fast.spread[1], slow.spread[1] / fast.spread[0]),
    )


def fidelity_tables(result: Fidelity) -> list[tuple[str, Table]]:
    """Make a table of each kind of comparison; its title has its bar."""
    header = ("", "target", "emulated", "error", "n", "lowest to highest")
    titles = {
        "devices": "Seconds per epoch, all devices together: the real device's, and emulated",
        "ratios": "Ratios between devices",
        "held_out": "Models that no device has a figure of: predicted, and emulated",
        "interference": "With all others training: alone, and together",
        "sharing": "Several clients on one computer, and what one more costs",
    }
    return [
        (f"{title} (bar: {BARS[kind]:.0%})", (header, list(map(_fidelity_row, rows))))
        for kind, title in titles.items()
        if (rows := getattr(result, kind))
    ]


def _fidelity_row(row: FidelityRow) -> Sequence[str]:
    low, high = row.spread
    return (
        row.name,
        f"{row.target:.4g}",
        f"{row.emulated:.4g}",
        f"{row.error:+.1%}",
        str(row.n),
        f"{low:.4g} to {high:.4g}",
    )
