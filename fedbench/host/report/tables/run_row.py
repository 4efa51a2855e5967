"""A run in one row: what it reached, what it took, and who held it back."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fedbench.host.report.tables import energy
from fedbench.host.report.tables.stragglers import Straggler
from fedbench.host.report.tables.text_table import Table, empty_columns, figure, without
from fedbench.records import ClientRound, Record, Summary, by_client, total

_OF_DEVICES = ("dilation", "total emulated s", "kJ")


class KeyFigures(Record):
    """`slowest` works for longest in its median round, `factor` times as long as the fastest.

    `overhead_seconds` are wall seconds of the median round in which the slowest neither trained nor
    evaluated; bytes and modelled joules are those of all clients and rounds, None where nobody
    counted them. A run in one program has no emulated seconds.
    """

    accuracy: float | None
    loss: float | None
    rounds: int
    wall_seconds: float
    emulated_seconds: float | None
    overhead_seconds: float | None
    slowest: str | None
    factor: float | None
    sent: float | None
    received: float | None
    energy_joules: float | None

    @classmethod
    def of(cls, summary: Summary) -> KeyFigures:
        """Those of a run as far as it came."""
        rounds = summary.rounds
        every = [client for record in rounds for client in record.clients]
        last = rounds[-1] if rounds else None
        work = {name: busy(own) for name, own in by_client(rounds).items()}
        straggler = Straggler.among(work)
        return cls(
            accuracy=last.server_accuracy if last else None,
            loss=last.server_loss if last else None,
            rounds=len(rounds),
            wall_seconds=summary.total_seconds,
            emulated_seconds=summary.emulated_seconds if summary.emulates else None,
            overhead_seconds=median(r.overhead_seconds for r in rounds) if rounds else None,
            slowest=straggler.client if straggler else None,
            factor=straggler.factor if straggler else None,
            sent=total(every, "bytes_sent"),
            received=total(every, "bytes_received"),
            energy_joules=energy.joules(every),
        )


def busy(rounds: Sequence[ClientRound]) -> float:
    """Wall seconds of training and evaluation of a client in the median round that it worked in."""
    return median([c.busy_seconds for c in rounds if c.busy_seconds] or [0.0])


def run_table(summaries: Sequence[Summary]) -> Table:
    """Several runs side by side; what none of them has of devices is left out."""
    header = (
        "run",
        "experiment",
        "profile",
        "status",
        "rounds",
        "server accuracy",
        "server loss",
        "total wall s",
        "dilation",
        "total emulated s",
        "overhead wall s",
        "slowest",
        "sent MB",
        "received MB",
        "kJ",
    )
    table = (header, [_row(summary, KeyFigures.of(summary)) for summary in summaries])
    return without(table, {*_OF_DEVICES} & {*empty_columns(table)})


def accuracy_table(summaries: Sequence[Summary]) -> Table:
    """The global model's accuracy round by round, a column for each run."""
    curves = [{r.round: r.server_accuracy for r in summary.rounds} for summary in summaries]
    numbers = sorted({number for curve in curves for number in curve})
    rows = [
        (str(number), *(figure(curve.get(number), ".4f") for curve in curves)) for number in numbers
    ]
    return ("round", *(summary.run for summary in summaries)), list(rows)


def _row(summary: Summary, key: KeyFigures) -> Sequence[str]:
    return (
        summary.run,
        summary.experiment,
        summary.profile,
        summary.status,
        str(key.rounds),
        figure(key.accuracy, ".4f"),
        figure(key.loss, ".4f"),
        f"{key.wall_seconds:.1f}",
        figure(summary.dilation if summary.emulates else None, "g"),
        figure(key.emulated_seconds, ".1f"),
        figure(key.overhead_seconds, ".2f"),
        key.slowest or "-",
        figure(None if key.sent is None else key.sent / 1e6, ".1f"),
        figure(None if key.received is None else key.received / 1e6, ".1f"),
        energy.kilojoules(key.energy_joules),
    )
