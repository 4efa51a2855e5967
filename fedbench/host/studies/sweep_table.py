"""The table of a sweep: one row for each point of its grid, over all seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from fedbench.host.report.tables.run_totals import kilojoules, run_joules
from fedbench.host.report.tables.text_table import Table, markdown_table, records_csv
from fedbench.host.studies.sweep_grid import Point, Sweep, shown
from fedbench.records import Record, Summary
from fedbench.records.clock import WallSeconds

_NUMBERS = ("accuracy", "loss", "emulated_seconds", "wall_seconds", "energy_joules")
_STATISTICS = ("mean", "deviation", "lowest", "highest")
_TITLES = (
    "n",
    "wanted",
    *(f"{name}_{statistic}" for name in _NUMBERS for statistic in _STATISTICS),
    "not_held",
    "runs",
)


class Spread(Record):
    """Statistics of `n` runs; `deviation` is that of a sample (n - 1), None for a single run."""

    n: int
    mean: float
    deviation: float | None
    lowest: float
    highest: float


class SweepRow(Record):
    """One point of the grid; `wanted` counts its runs, `runs` are those that are finished.

    Accuracy and loss are the server's after the last round. They are None where a run has none, as
    one that diverged. Seconds are of all rounds, without the time between them: an interruption
    does not count. Joules are modelled, of all devices. `not_held` counts clients in rounds in
    which the emulation did not hold.
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
    """How a point's run stands: its summary if it is finished, the reason if it failed."""

    point: Point
    summary: Summary | None = None
    failure: str | None = None


def rows(outcomes: Iterable[Outcome]) -> list[SweepRow]:
    """Make a row for each point without its seed, in the order of the sweep."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(json.dumps(outcome.point.settings, default=str), []).append(outcome)
    return [_row(group) for group in groups.values()]


def table(rows: Sequence[SweepRow]) -> Table:
    """Write the rows as text: mean ± sample standard deviation, lowest to highest."""
    header = (
        *(rows[0].settings if rows else ()),
        "n",
        "server accuracy",
        "lowest to highest",
        "server loss",
        "emulated s",
        "wall s",
        "kJ",
        "not held",
    )
    return header, [_cells(row) for row in rows]


def sweep_markdown(sweep: Sweep, rows: Sequence[SweepRow]) -> str:
    """Write the whole of `table.md`."""
    fixed = "".join(f", {key}={shown(value)}" for key, value in sweep.set.items())
    paragraphs = [
        f"# Sweep {sweep.name}",
        *([sweep.description] if sweep.description else []),
        f"Experiment {sweep.experiment}{fixed} on profile {sweep.profile}. "
        f"{sum(len(row.runs) for row in rows)} of {sum(row.wanted for row in rows)} runs are "
        "finished.",
        markdown_table(table(rows)),
        "Accuracy and loss are those of the global model after the last round: mean ± standard "
        "deviation of a sample over n seeds. Seconds are the mean of all rounds together; emulated "
        "seconds are wall seconds / dilation, and kJ the modelled energy of all devices. Not held: "
        "clients in rounds in which the host could not hold the emulation.",
    ]
    if failures := [failure for row in rows for failure in row.failures]:
        paragraphs += ["## Failures", "\n".join(f"- {' '.join(line.split())}" for line in failures)]
    return "\n\n".join(paragraphs) + "\n"


def sweeps_csv(sweeps: Mapping[str, Sequence[SweepRow]]) -> str:
    """Write the rows of several sweeps, by name, as CSV; their keys are the first columns."""
    keys: dict[str, None] = {}
    records = []
    for name, rows in sweeps.items():
        for row in rows:
            keys |= dict.fromkeys(row.settings)
            records.append(_record(name, row))
    return records_csv(["sweep", *keys, *_TITLES], records)


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
        energy_joules=spread([run_joules(summary) for summary in done]),
        not_held=sum(sum(summary.rounds_not_held.values()) for summary in done),
        failures=tuple(f"{o.point}: {o.failure}" for o in outcomes if o.failure),
    )


def _round_seconds(summary: Summary) -> WallSeconds:
    return WallSeconds(sum(record.duration_seconds for record in summary.rounds))


def spread(values: Sequence[float | None]) -> Spread | None:
    """Return mean and spread; None if any value is missing: the rest would flatter."""
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
        kilojoules(row.energy_joules.mean if row.energy_joules else None),
        str(row.not_held),
    )


def _mean(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "-"
    mean = format(spread.mean, form)
    return mean if spread.deviation is None else f"{mean} ± {spread.deviation:{form}}"


def _record(sweep: str, row: SweepRow) -> dict[str, object]:
    settings = {key: shown(value) for key, value in row.settings.items()}
    statistics = {
        f"{name}_{statistic}": getattr(getattr(row, name), statistic, None)  # empty without any
        for name in _NUMBERS
        for statistic in _STATISTICS
    }
    counts = {"n": len(row.runs), "wanted": row.wanted, "not_held": row.not_held}
    return {"sweep": sweep, **settings, **counts, **statistics, "runs": " ".join(row.runs)}
