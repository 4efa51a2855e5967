"""Modelled energy of a run's devices in kJ: of each, and of all of them together.

Of clients in rounds whose energy nobody knows, as of one that did not answer, there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import fmean

from fedbench.host.report.tables.text_table import Table, figure
from fedbench.records import ClientRound, Summary, by_client, total


def joules(clients: Iterable[ClientRound], field: str = "energy_joules") -> float | None:
    """What they drew in all, idle and busy or as `field` says; None where nobody knows any."""
    return total(clients, field)


def of_run(summary: Summary) -> float | None:
    """Joules of all devices and rounds."""
    return joules(client for record in summary.rounds for client in record.clients)


def kilojoules(value: float | None) -> str:
    """Joules as a table has them, or a dash."""
    return figure(None if value is None else value / 1e3, ".2f")


def energy_table(summary: Summary) -> Table:
    """Per client, and of all: modelled energy of the run, idle and busy apart, and of a round.

    That of a round is the mean over those that have any.
    """
    header = ("client", "idle kJ", "busy kJ", "kJ", "kJ / round")
    clients = by_client(summary.rounds)
    rows = [_row(name, [[client] for client in rounds]) for name, rounds in clients.items()]
    return header, [*rows, _row("all", [record.clients for record in summary.rounds])]


def _row(name: str, rounds: Sequence[Sequence[ClientRound]]) -> Sequence[str]:
    clients = list(chain.from_iterable(rounds))
    each = [drawn for own in rounds if (drawn := joules(own)) is not None]
    return (
        name,
        kilojoules(joules(clients, "energy_idle_joules")),
        kilojoules(joules(clients, "energy_busy_joules")),
        kilojoules(joules(clients)),
        kilojoules(fmean(each) if each else None),
    )
