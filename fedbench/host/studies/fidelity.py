"""Emulated against real: what was measured, its targets, and the bars that the errors must meet.

Seconds are emulated seconds of an epoch of 50,000 images. Pure; `measuring.py` measures.
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

SETTLING_SECONDS = 15.0
"""Epochs that end in the first wall seconds of a round are not counted: quotas settle in them."""
BARS = {"devices": 0.05, "ratios": 0.05, "held_out": 0.10, "interference": 0.05, "sharing": 0.10}


class FidelityRow(Record):
    """One comparison; `spread` is from the lowest to the highest of the `n` emulated figures."""

    name: str
    target: float
    emulated: float
    error: float
    n: int
    spread: tuple[float, float]


class Fidelity(Record):
    """`runs/fidelity/fidelity.json`. `runs` are the runs that the figures are from."""

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
        """Writes `fidelity/fidelity.json` in the folder of all runs, and returns its path."""
        path = runs / "fidelity" / "fidelity.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, self.model_dump_json(indent=2) + "\n")
        return path

    def require_bars(self) -> None:
        """Nothing, where every error is within its bar.

        Raises:
            FidelityError: one is not; names each.
        """
        if missed := self.missed():
            raise FidelityError(
                "\n".join(f"beyond its bar: {line}" for line in missed),
                "run it again on a host that has nothing else to do"
                if self.not_held
                else "`fedbench calibrate --fresh` measures this host anew",
            )

    def missed(self) -> list[str]:
        """What is beyond its bar, in words."""
        return [
            f"{row.name} ({part}): {row.error:+.1%}, at most {bar:.0%}"
            for part, bar in BARS.items()
            for row in getattr(self, part)
            if not abs(row.error) <= bar  # a figure that is not a number is beyond any bar
        ]


def epochs(client: ClientRound, dilation: Dilation) -> list[float]:
    """Emulated seconds of the epochs that count, as of 50,000 images.

    Those that ended while quotas settled are left out, unless there are no others.
    """
    scale = EPOCH_IMAGES / client.samples
    ends, end = [], 0.0
    for seconds in client.epoch_seconds:
        end += seconds
        ends.append(end)
    pairs = zip(client.epoch_seconds, ends, strict=True)
    settled = [seconds for seconds, end in pairs if end > SETTLING_SECONDS]
    return [dilation.emulated(seconds) * scale for seconds in settled or client.epoch_seconds]


def row(name: str, target: float, figures: Sequence[float]) -> FidelityRow:
    """The median of the figures against a target."""
    middle = median(figures)
    return FidelityRow(
        name=name,
        target=target,
        emulated=middle,
        error=middle / target - 1,
        n=len(figures),
        spread=(min(figures), max(figures)),
    )


def ratios(rows: Iterable[FidelityRow]) -> list[FidelityRow]:
    """Every pair of devices: how many times as long one takes as the other.

    The spread is of the slower one's fastest epoch to the faster one's slowest, and the reverse.
    """
    pairs = combinations(sorted(rows, key=lambda row: -row.target), 2)
    return [_ratio(slow, fast) for slow, fast in pairs]


def slowdowns(rows: Sequence[FidelityRow]) -> list[FidelityRow]:
    """Each of the rows against the one before: what one more client costs the others."""
    return [_ratio(more, fewer) for fewer, more in pairwise(rows)]


def interference(
    alone: Mapping[str, Sequence[float]], together: Iterable[FidelityRow]
) -> list[FidelityRow]:
    """A device with all others training against itself alone, which is the target."""
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


def _ratio(one: FidelityRow, other: FidelityRow) -> FidelityRow:
    target, found = one.target / other.target, one.emulated / other.emulated
    return FidelityRow(
        name=f"{one.name} : {other.name}",
        target=target,
        emulated=found,
        error=found / target - 1,
        n=min(one.n, other.n),
        spread=(one.spread[0] / other.spread[1], one.spread[1] / other.spread[0]),
    )


def fidelity_tables(result: Fidelity) -> list[tuple[str, Table]]:
    """What was measured, part by part; each with its bar in the title."""
    header = ("", "target", "emulated", "error", "n", "lowest to highest")
    titles = {
        "devices": "Seconds per epoch, all devices together: the real device's, and emulated",
        "ratios": "Ratios between devices",
        "held_out": "Models that no device has a figure of: predicted, and emulated",
        "interference": "With all others training: alone, and together",
        "sharing": "Several clients on one computer, and what one more costs",
    }
    return [
        (f"{title} (bar: {BARS[part]:.0%})", (header, list(map(_fidelity_row, rows))))
        for part, title in titles.items()
        if (rows := getattr(result, part))
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
