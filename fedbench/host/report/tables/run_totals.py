"""What a run came to, in one row: what it reached, what it took, and who held it back.

Seconds are wall seconds unless a name says otherwise. Joules are modelled. A client's round has
none where nobody knows the watts of its device, or where the client did not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from fedbench.config.units import format_number
from fedbench.host.report.tables.text_table import Table, empty_columns, without
from fedbench.records import ClientRound, Record, RoundRecord, Summary, by_client, total

_OF_DEVICES = ("dilation", "total emulated s", "kJ")


@dataclass(frozen=True)
class Straggler:
    """The client that worked for longest, and `factor` times as long as the fastest.

    `waited` are the wall seconds for which the others had nothing to do, at the mean. It is None
    where nobody else worked.
    """

    client: str
    factor: float
    waited: float | None

    @classmethod
    def of(cls, record: RoundRecord) -> Straggler | None:
        """Return the straggler of a round, or None where nobody worked.

        For an update that was begun in an earlier round nobody waited.
        """
        on_time = [client for client in record.clients if not client.staleness]
        return cls.among({client.client: client.busy_seconds for client in on_time})

    @classmethod
    def among(cls, seconds: Mapping[str, float]) -> Straggler | None:
        """Return the straggler of clients by the wall seconds that each worked, or None."""
        busy = {name: worked for name, worked in seconds.items() if worked}
        if not busy:
            return None
        slowest = max(busy, key=lambda name: busy[name])
        idle = [busy[slowest] - worked for name, worked in busy.items() if name != slowest]
        return cls(slowest, busy[slowest] / min(busy.values()), fmean(idle) if idle else None)


class RunTotals(Record):
    """A run in a dozen numbers.

    `slowest` works for longest in its median round, `factor` times as long as the fastest.
    `overhead_seconds` are those of the median round in which the slowest neither trained nor
    evaluated. Bytes and joules are of all clients and rounds, None where nobody counted them. A run
    in one program has no emulated seconds.
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
    def of(cls, summary: Summary) -> RunTotals:
        """Return the totals of a run as far as it came."""
        rounds = summary.rounds
        last = rounds[-1] if rounds else None
        clients = [client for record in rounds for client in record.clients]
        straggler = Straggler.among({n: busy(each) for n, each in by_client(rounds).items()})
        return cls(
            accuracy=last.server_accuracy if last else None,
            loss=last.server_loss if last else None,
            rounds=len(rounds),
            wall_seconds=summary.total_seconds,
            emulated_seconds=summary.emulated_seconds if summary.emulates else None,
            overhead_seconds=median(r.overhead_seconds for r in rounds) if rounds else None,
            slowest=straggler.client if straggler else None,
            factor=straggler.factor if straggler else None,
            sent=total(clients, "bytes_sent"),
            received=total(clients, "bytes_received"),
            energy_joules=joules(clients),
        )


def busy(rounds: Sequence[ClientRound]) -> float:
    """Return wall seconds of training and evaluation in the median round that a client worked in.

    A client that never worked has 0.
    """
    return median([c.busy_seconds for c in rounds if c.busy_seconds] or [0.0])


def joules(clients: Iterable[ClientRound], field: str = "energy_joules") -> float | None:
    """Return what the clients drew in all, idle and busy or as `field` says.

    None where nobody knows any of it.
    """
    return total(clients, field)


def run_joules(summary: Summary) -> float | None:
    """Return the joules of all devices and rounds, or None where nobody knows any."""
    return joules(client for record in summary.rounds for client in record.clients)


def kilojoules(value: float | None) -> str:
    """Format joules as kJ for a table; a dash for None."""
    return format_number(None if value is None else value / 1e3, ".2f")


def run_table(summaries: Sequence[Summary]) -> Table:
    """Set several runs side by side, a row each; leave out what none of them has of devices."""
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
    table = (header, [_row(summary, RunTotals.of(summary)) for summary in summaries])
    return without(table, {*_OF_DEVICES} & {*empty_columns(table)})


def accuracy_table(summaries: Sequence[Summary]) -> Table:
    """Set the global model's accuracy round by round, a column for each run."""
    curves = [{r.round: r.server_accuracy for r in summary.rounds} for summary in summaries]
    numbers = sorted({number for curve in curves for number in curve})
    rows: list[Sequence[str]] = []
    for number in numbers:
        accuracies = [format_number(curve.get(number), ".4f") for curve in curves]
        rows.append((str(number), *accuracies))
    return ("round", *(summary.run for summary in summaries)), rows


def _row(summary: Summary, totals: RunTotals) -> Sequence[str]:
    return (
        summary.run,
        summary.experiment,
        summary.profile,
        summary.status,
        str(totals.rounds),
        format_number(totals.accuracy, ".4f"),
        format_number(totals.loss, ".4f"),
        f"{totals.wall_seconds:.1f}",
        format_number(summary.dilation if summary.emulates else None, "g"),
        format_number(totals.emulated_seconds, ".1f"),
        format_number(totals.overhead_seconds, ".2f"),
        totals.slowest or "-",
        _megabytes(totals.sent),
        _megabytes(totals.received),
        kilojoules(totals.energy_joules),
    )


def _megabytes(value: float | None) -> str:
    return format_number(None if value is None else value / 1e6, ".1f")
