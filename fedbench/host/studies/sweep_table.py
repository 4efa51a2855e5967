"""What a sweep found: one row for each point of its grid, over all seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from fedbench.host.report.tables import energy
from fedbench.host.report.tables.text_table import Table, csv_text, markdown
from fedbench.host.studies.grid import Point, Sweep, shown
from fedbench.records import Record, Summary
from fedbench.records.clock import WallSeconds

_FIGURES = ("accuracy", "loss", "emulated_seconds", "wall_seconds", "energy_joules")
_PARTS = ("mean", "deviation", "lowest", "highest")
_COLUMNS = (
    "n",
    "wanted",
    *(f"{figure}_{part}" for figure in _FIGURES for part in _PARTS),
    "not_held",
    "runs",
)


class Spread(Record):
    """Figures of `n` runs; `deviation` is that of a sample (n - 1), None for a single one."""

    n: int
    mean: float
    deviation: float | None
    lowest: float
    highest: float


class SweepRow(Record):
    """One point of the grid; `wanted` runs, of which `runs` are finished.

    Accuracy and loss are the server's after the last round, and None where a run has none, as when
    it diverged. Seconds are those of all rounds, without the time between them; a run that was
    interrupted is not charged for it. Joules are modelled, of all devices. `not_held` counts
    clients in rounds in which the emulation did not hold.
    """

    settings: dict[str, Any]
    wanted: int
    runs: tuple[str, ...]
    accuracy: Spread | None
    loss: Spread | None
    emulated_seconds: Spread | None
    wall_seconds: Spread | None
    energy_joules: Spread | None
    not_held: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a point's run stands: its summary where it is finished, why where it failed."""

    point: Point
    summary: Summary | None = None
    failure: str | None = None


def rows(outcomes: Iterable[Outcome]) -> list[SweepRow]:
    """A row for each point without its seed, in the order of the sweep."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(json.dumps(outcome.point.settings, default=str), []).append(outcome)
    return [_row(group) for group in groups.values()]


def table(found: Sequence[SweepRow]) -> Table:
    """The rows as text: mean ± sample standard deviation, lowest to highest."""
    header = (
        *(found[0].settings if found else ()),
        "n",
        "server accuracy",
        "lowest to highest",
        "server loss",
        "emulated s",
        "wall s",
        "kJ",
        "not held",
    )
    return header, [_cells(row) for row in found]


def report(sweep: Sweep, found: Sequence[SweepRow]) -> str:
    """The whole of `table.md`."""
    fixed = "".join(f", {key}={shown(value)}" for key, value in sweep.set.items())
    parts = [
        f"# Sweep {sweep.name}",
        *([sweep.description] if sweep.description else []),
        f"Experiment {sweep.experiment}{fixed} on profile {sweep.profile}. "
        f"{sum(len(row.runs) for row in found)} of {sum(row.wanted for row in found)} runs are "
        "finished.",
        markdown(table(found)),
        "Accuracy and loss are those of the global model after the last round: mean ± standard "
        "deviation of a sample over n seeds. Seconds are the mean of all rounds together; emulated "
        "seconds are wall seconds / dilation, and kJ the modelled energy of all devices. Not held: "
        "clients in rounds in which the host could not hold the emulation.",
    ]
    if failures := [failure for row in found for failure in row.failures]:
        parts += ["## Failures", "\n".join(f"- {' '.join(line.split())}" for line in failures)]
    return "\n\n".join(parts) + "\n"


def as_csv(found: Mapping[str, Sequence[SweepRow]]) -> str:
    """The rows of several sweeps, by name; their keys are the first columns."""
    keys = dict.fromkeys(key for rows in found.values() for row in rows for key in row.settings)
    records = (_record(name, row) for name, rows in found.items() for row in rows)
    return csv_text(["sweep", *keys, *_COLUMNS], records)


def _row(outcomes: Sequence[Outcome]) -> SweepRow:
    done = [outcome.summary for outcome in outcomes if outcome.summary]
    last = [summary.rounds[-1] for summary in done]
    wall = [_round_seconds(summary) for summary in done]
    emulated = [summary.dilation.emulated(_round_seconds(summary)) for summary in done]
    return SweepRow(
        settings=outcomes[0].point.settings,
        wanted=len(outcomes),
        runs=tuple(summary.run for summary in done),
        accuracy=spread([record.server_accuracy for record in last]),
        loss=spread([record.server_loss for record in last]),
        emulated_seconds=spread(emulated),
        wall_seconds=spread(wall),
        energy_joules=spread([energy.of_run(summary) for summary in done]),
        not_held=sum(sum(summary.rounds_not_held.values()) for summary in done),
        failures=tuple(f"{o.point}: {o.failure}" for o in outcomes if o.failure),
    )


def _round_seconds(summary: Summary) -> WallSeconds:
    return WallSeconds(sum(record.duration_seconds for record in summary.rounds))


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and spread; None without values, or where one is missing: the others would flatter."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(
        n=len(known),
        mean=fmean(known),
        deviation=stdev(known) if len(known) > 1 else None,
        lowest=min(known),
        highest=max(known),
    )


def _cells(row: SweepRow) -> Sequence[str]:
    return (
        *map(shown, row.settings.values()),
        f"{len(row.runs)}/{row.wanted}",
        _mean(row.accuracy, ".4f"),
        f"{row.accuracy.lowest:.4f} to {row.accuracy.highest:.4f}" if row.accuracy else "-",
        _mean(row.loss, ".4f"),
        f"{row.emulated_seconds.mean:.1f}" if row.emulated_seconds else "-",
        f"{row.wall_seconds.mean:.1f}" if row.wall_seconds else "-",
        energy.kilojoules(row.energy_joules.mean if row.energy_joules else None),
        str(row.not_held),
    )


def _mean(figures: Spread | None, form: str) -> str:
    if figures is None:
        return "-"
    mean = format(figures.mean, form)
    return mean if figures.deviation is None else f"{mean} ± {figures.deviation:{form}}"


def _record(sweep: str, row: SweepRow) -> dict[str, object]:
    settings = {key: shown(value) for key, value in row.settings.items()}
    figures = {
        f"{name}_{part}": getattr(getattr(row, name), part, None)  # empty where there are none
        for name in _FIGURES
        for part in _PARTS
    }
    counts = {"n": len(row.runs), "wanted": row.wanted, "not_held": row.not_held}
    return {"sweep": sweep, **settings, **counts, **figures, "runs": " ".join(row.runs)}
