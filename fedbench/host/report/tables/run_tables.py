"""A run as tables: per device, per round, and of the server; and what went wrong, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import fmean, median

from fedbench.config.units import format_number
from fedbench.host.report.tables.run_totals import Straggler, joules, kilojoules
from fedbench.host.report.tables.text_table import Table, without
from fedbench.records import ClientRound, RoundRecord, Summary, by_client, total
from fedbench.records.clock import Dilation


def device_table(summary: Summary) -> Table:
    """Make a row per client: accuracy and loss of its last local epoch."""
    header = ("client", "device", "local accuracy", "local loss", "images", "rounds")
    return header, [_device_row(rounds) for rounds in by_client(summary.rounds).values()]


def epoch_table(summary: Summary) -> Table:
    """Make a row per client: its median local epoch, and in how many rounds the emulation held.

    Emulated seconds are wall seconds / dilation; the target is what the real device takes.
    """
    header = (
        "client",
        "wall s / local epoch",
        "emulated s / local epoch",
        "target emulated s",
        "error",
        "rounds held",
    )
    return header, [_epoch_row(rounds) for rounds in by_client(summary.rounds).values()]


def resource_table(summary: Summary) -> Table:
    """Make a row per client: what it used in the whole run.

    The peak of memory counts file cache, too. CPUs and steal are those of the median local epoch.
    Throttling is added up over CPUs.
    """
    header = (
        "client",
        "CPU s",
        "CPUs had",
        "throttled CPU s",
        "steal",
        "peak MiB",
        "sent MB",
        "received MB",
    )
    return header, [_resource_row(rounds) for rounds in by_client(summary.rounds).values()]


def energy_table(summary: Summary) -> Table:
    """Make a row per client, and one of all: modelled energy in kJ, idle and busy apart.

    Energy of a round is the mean over the rounds that have any.
    """
    header = ("client", "idle kJ", "busy kJ", "kJ", "kJ / round")
    clients = by_client(summary.rounds)
    rows = [_energy_row(name, [[client] for client in each]) for name, each in clients.items()]
    return header, [*rows, _energy_row("all", [record.clients for record in summary.rounds])]


def server_table(summary: Summary) -> Table:
    """Make the row of the global model and of time; the overhead is that of the median round."""
    header = (
        "server accuracy",
        "server loss",
        "epoch wall s",
        "epoch emulated s",
        "rounds",
        "total wall s",
        "total emulated s",
        "overhead wall s",
    )
    last = summary.rounds[-1] if summary.rounds else None
    epoch = last.server_epoch_seconds if last else None
    overhead = median(record.overhead_seconds for record in summary.rounds) if last else None
    row = (
        format_number(last.server_accuracy if last else None, ".4f"),
        format_number(last.server_loss if last else None, ".4f"),
        format_number(epoch, ".2f"),
        format_number(None if epoch is None else summary.dilation.emulated(epoch), ".2f"),
        str(len(summary.rounds)),
        f"{summary.total_seconds:.1f}",
        f"{summary.emulated_seconds:.1f}",
        format_number(overhead, ".2f"),
    )
    return header, [row]


def round_table(summary: Summary) -> Table:
    """Make a row per round: the model, what the round took, who was slow, who did not hold.

    Who was missing has a column where somebody was.
    """
    header = (
        "round",
        "server accuracy",
        "server loss",
        "wall s",
        "emulated s",
        "overhead wall s",
        "clients",
        "missing",
        "slowest",
        "times the fastest",
        "others waited wall s",
        "kJ",
        "not held",
    )
    rows = [_round_row(record, summary.dilation) for record in summary.rounds]
    if any(record.missing for record in summary.rounds):
        return header, rows
    titles, rows = without((header, rows), ["missing"])
    return tuple(titles), [tuple(row) for row in rows]


def shown(table: Table, summary: Summary) -> Table:
    """Return a run's table; where the run emulates nothing, without what would be of a device."""
    if summary.emulates:
        return table
    of_a_device = ("error", "rounds held", "not held", "kJ")
    header, _ = table
    return without(table, [t for t in header if "emulated" in t or t in of_a_device])


def failures(summary: Summary) -> list[str]:
    """List each client and round without an answer, and why, in one line.

    Where a round was begun anew, those of the attempts before come first.
    """
    return [
        f"round {record.round}: {client.client}: {' '.join(client.error.split())}"
        for record in summary.rounds
        for clients in (*(attempt.clients for attempt in record.attempts), record.clients)
        for client in clients
        if client.error
    ]


def not_held(summary: Summary) -> list[str]:
    """List each device and round for which the host could not hold the emulation, and why."""
    return [
        f"round {record.round}: {client.client}: {client.not_held}"
        for record in summary.rounds
        for client in record.clients
        if client.not_held
    ]


def _device_row(rounds: list[ClientRound]) -> Sequence[str]:
    answered = [client for client in rounds if client.error is None]
    last = answered[-1] if answered else rounds[-1]
    return (
        last.client,
        last.device,
        format_number(last.local_accuracy, ".4f"),
        format_number(last.local_loss, ".4f"),
        str(last.samples),
        f"{len(answered)}/{len(rounds)}",
    )


def _epoch_row(rounds: list[ClientRound]) -> Sequence[str]:
    wall = chain.from_iterable(client.epoch_seconds for client in rounds)
    emulated = chain.from_iterable(client.emulated_epoch_seconds for client in rounds)
    errors = [c.emulation_error for c in rounds if c.emulation_error is not None]
    held = sum(c.emulation_error is not None and c.not_held is None for c in rounds)
    return (
        rounds[0].client,
        format_number(_median(wall), ".2f"),
        format_number(_median(emulated), ".2f"),
        format_number(_median(client.target_epoch_seconds for client in rounds), ".2f"),
        format_number(_median(errors), "+.1%"),
        f"{held}/{len(errors)}" if errors else "-",
    )


def _resource_row(rounds: list[ClientRound]) -> Sequence[str]:
    def in_all(field: str, unit: float = 1) -> str:
        value = total(rounds, field)
        return format_number(None if value is None else value / unit, ".1f")

    peaks = [c.peak_memory_bytes for c in rounds if c.peak_memory_bytes is not None]
    epochs = [epoch for client in rounds for epoch in client.epochs]
    return (
        rounds[0].client,
        in_all("cpu_seconds"),
        format_number(_median(epoch.share for epoch in epochs), ".2f"),
        in_all("throttled_seconds"),
        format_number(_median(epoch.steal_seconds / epoch.seconds for epoch in epochs), ".1%"),
        format_number(max(peaks) / 2**20 if peaks else None, ".0f"),
        in_all("bytes_sent", 1e6),
        in_all("bytes_received", 1e6),
    )


def _energy_row(name: str, rounds: Sequence[Sequence[ClientRound]]) -> Sequence[str]:
    clients = list(chain.from_iterable(rounds))
    drawn = [joules(each) for each in rounds]
    known = [value for value in drawn if value is not None]
    return (
        name,
        kilojoules(joules(clients, "energy_idle_joules")),
        kilojoules(joules(clients, "energy_busy_joules")),
        kilojoules(joules(clients)),
        kilojoules(fmean(known) if known else None),
    )


def _round_row(record: RoundRecord, dilation: Dilation) -> Sequence[str]:
    straggler = Straggler.of(record)
    answered = sum(client.error is None for client in record.clients)
    return (
        str(record.round),
        format_number(record.server_accuracy, ".4f"),
        format_number(record.server_loss, ".4f"),
        f"{record.duration_seconds:.2f}",
        f"{dilation.emulated(record.duration_seconds):.2f}",
        f"{record.overhead_seconds:.2f}",
        f"{answered}/{len(record.clients)}",
        _missing(record),
        straggler.client if straggler else "-",
        format_number(straggler.factor if straggler else None, ".1f"),
        format_number(straggler.waited if straggler else None, ".2f"),
        kilojoules(joules(record.clients)),
        ", ".join(client.client for client in record.clients if client.not_held) or "-",
    )


def _missing(record: RoundRecord) -> str:
    """Name who was missing and why; who was in several attempts at a round, how often."""
    times = Counter((c.client, c.missing) for c in record.missing if c.missing)
    return (
        ", ".join(
            f"{client} {why.replace('_', ' ')}{f' ({count} times)' if count > 1 else ''}"
            for (client, why), count in times.items()
        )
        or "-"
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
