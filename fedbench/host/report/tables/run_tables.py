"""A run as tables, per device and of the server, and the whole of it as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from fedbench.host.report.tables import energy
from fedbench.host.report.tables.stragglers import round_table
from fedbench.host.report.tables.text_table import Table, figure, without
from fedbench.host.report.tables.text_table import markdown as _markdown
from fedbench.records import ClientRound, Summary, by_client, total
from fedbench.telemetry import rapl


def device_table(summary: Summary) -> Table:
    """Per client: accuracy and loss of its last local epoch."""
    header = ("client", "device", "local accuracy", "local loss", "images", "rounds")
    return header, [_device_row(rounds) for rounds in by_client(summary.rounds).values()]


def epoch_table(summary: Summary) -> Table:
    """Per client: its median local epoch, and in how many rounds the emulation held.

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
    """Per client: what it used in the whole run; the peak counts file cache, too.

    The CPUs that it had while it trained, and the steal, are those of the median local epoch;
    throttling is added up over CPUs.
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


def server_table(summary: Summary) -> Table:
    """The global model: accuracy, loss and seconds of the server epoch, total time, overhead.

    The overhead is that of the median round.
    """
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
    row = (
        figure(last.server_accuracy if last else None, ".4f"),
        figure(last.server_loss if last else None, ".4f"),
        figure(epoch, ".2f"),
        figure(None if epoch is None else summary.dilation.emulated(epoch), ".2f"),
        str(len(summary.rounds)),
        f"{summary.total_seconds:.1f}",
        f"{summary.emulated_seconds:.1f}",
        figure(median(r.overhead_seconds for r in summary.rounds) if last else None, ".2f"),
    )
    return header, [row]


def markdown(
    summary: Summary,
    corrected: Sequence[str] = (),
    measured: rapl.HostEnergy | None = None,
) -> str:
    """The whole report.

    `corrected` says what the run's governor did, `measured` what the host itself drew.
    """

    def text(table: Table) -> str:
        return _markdown(shown(table, summary))

    parts = [
        f"# Run {summary.run}",
        f"Experiment {summary.experiment} on profile {summary.profile}: {summary.status}"
        + (f" ({summary.error})" if summary.error else ""),
        f"Started {summary.started_at}."
        + (
            f" Every device is slowed by {summary.dilation:g}: emulated seconds are wall seconds "
            "divided by that."
            if summary.dilation > 1
            else ""
        )
        + (
            ""
            if summary.emulates
            else " Nothing is emulated: seconds are wall seconds of this host."
        ),
        "## Devices",
        text(device_table(summary)),
        text(epoch_table(summary)),
        text(resource_table(summary)),
        *_energy(summary),
        "## Server",
        text(server_table(summary)),
        "## Rounds",
        text(round_table(summary)),
    ]
    remarks = {
        "Failures": failures(summary),
        "Corrected quotas": corrected,
        "Where the emulation did not hold": not_held(summary),
        "The host's own energy": rapl.described(measured),
    }
    for title, lines in remarks.items():
        if lines:
            parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def shown(table: Table, summary: Summary) -> Table:
    """A run's table: that of one that emulates nothing without what would be of a device."""
    header, _ = table
    of_a_device = ("error", "rounds held", "not held", "kJ")
    others = [title for title in header if "emulated" in title or title in of_a_device]
    return table if summary.emulates else without(table, others)


def _energy(summary: Summary) -> list[str]:
    if energy.of_run(summary) is None:
        return []
    note = (
        "Energy is modelled: the watts of each device's profile for its emulated seconds, "
        "busy while it trains or evaluates; clients of one computer share its watts."
    )
    return ["## Energy", _markdown(energy.energy_table(summary)), note]


def failures(summary: Summary) -> list[str]:
    """Each client and round without an answer, and why, in one line."""
    return [
        f"round {record.round}: {client.client}: {' '.join(client.error.split())}"
        for record in summary.rounds
        for client in record.clients
        if client.error
    ]


def not_held(summary: Summary) -> list[str]:
    """Each device and round for which the host could not hold the emulation, and why."""
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
        figure(last.local_accuracy, ".4f"),
        figure(last.local_loss, ".4f"),
        str(last.samples),
        f"{len(answered)}/{len(rounds)}",
    )


def _epoch_row(rounds: list[ClientRound]) -> Sequence[str]:
    errors = [c.emulation_error for c in rounds if c.emulation_error is not None]
    targets = (c.target_epoch_seconds for c in rounds if c.target_epoch_seconds is not None)
    held = sum(c.emulation_error is not None and c.not_held is None for c in rounds)
    return (
        rounds[0].client,
        figure(_median(second for c in rounds for second in c.epoch_seconds), ".2f"),
        figure(_median(second for c in rounds for second in c.emulated_epoch_seconds), ".2f"),
        figure(_median(targets), ".2f"),
        figure(_median(errors), "+.1%"),
        f"{held}/{len(errors)}" if errors else "-",
    )


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _resource_row(rounds: list[ClientRound]) -> Sequence[str]:
    def in_all(field: str, unit: float = 1) -> str:
        value = total(rounds, field)
        return figure(None if value is None else value / unit, ".1f")

    peaks = [c.peak_memory_bytes for c in rounds if c.peak_memory_bytes is not None]
    epochs = [epoch for client in rounds for epoch in client.epochs]
    return (
        rounds[0].client,
        in_all("cpu_seconds"),
        figure(_median(epoch.share for epoch in epochs), ".2f"),
        in_all("throttled_seconds"),
        figure(_median(epoch.steal_seconds / epoch.seconds for epoch in epochs), ".1%"),
        figure(max(peaks) / 2**20 if peaks else None, ".0f"),
        in_all("bytes_sent", 1e6),
        in_all("bytes_received", 1e6),
    )
