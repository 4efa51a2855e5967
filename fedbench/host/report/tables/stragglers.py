"""A run round by round: what each cost, who held it up, and how long the others waited for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fedbench.host.report.tables.energy import joules, kilojoules
from fedbench.host.report.tables.text_table import Table, figure
from fedbench.records import RoundRecord, Summary
from fedbench.records.clock import Dilation


@dataclass(frozen=True)
class Straggler:
    """Who worked for longest, as in a round, and `factor` times as long as the fastest.

    `waited` are wall seconds for which the others had nothing to do, at the mean; None where nobody
    else worked.
    """

    client: str
    factor: float
    waited: float | None

    @classmethod
    def of(cls, record: RoundRecord) -> Straggler | None:
        """That of a round; None where nobody worked."""
        return cls.among({client.client: client.busy_seconds for client in record.clients})

    @classmethod
    def among(cls, seconds: Mapping[str, float]) -> Straggler | None:
        """That of clients which worked for so many wall seconds; None where nobody did."""
        busy = {name: own for name, own in seconds.items() if own}
        if not busy:
            return None
        slowest = max(busy, key=lambda name: busy[name])
        others = [busy[slowest] - own for name, own in busy.items() if name != slowest]
        return cls(slowest, busy[slowest] / min(busy.values()), fmean(others) if others else None)


def round_table(summary: Summary) -> Table:
    """Round by round: the global model, what the round took, and which devices did not hold."""
    header = (
        "round",
        "server accuracy",
        "server loss",
        "wall s",
        "emulated s",
        "overhead wall s",
        "clients",
        "slowest",
        "times the fastest",
        "others waited wall s",
        "kJ",
        "not held",
    )
    return header, [_row(record, summary.dilation) for record in summary.rounds]


def _row(record: RoundRecord, dilation: Dilation) -> Sequence[str]:
    straggler = Straggler.of(record)
    answered = sum(client.error is None for client in record.clients)
    return (
        str(record.round),
        figure(record.server_accuracy, ".4f"),
        figure(record.server_loss, ".4f"),
        f"{record.duration_seconds:.2f}",
        f"{dilation.emulated(record.duration_seconds):.2f}",
        f"{record.overhead_seconds:.2f}",
        f"{answered}/{len(record.clients)}",
        straggler.client if straggler else "-",
        figure(straggler.factor if straggler else None, ".1f"),
        figure(straggler.waited if straggler else None, ".2f"),
        kilojoules(joules(record.clients)),
        ", ".join(client.client for client in record.clients if client.not_held) or "-",
    )
