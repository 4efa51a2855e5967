"""A run as tables: per device, per round, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, median

from fedbench.records import ClientRound, RoundRecord, Summary

Table = tuple[Sequence[str], list[Sequence[str]]]


def device_table(summary: Summary) -> Table:
    """Per client: accuracy and loss of its last local epoch, and seconds per local epoch."""
    header = (
        "client",
        "device",
        "local accuracy",
        "local loss",
        "s / local epoch",
        "images",
        "rounds",
    )
    return header, [_device_row(rounds) for rounds in _by_client(summary.rounds).values()]


def resource_table(summary: Summary) -> Table:
    """Per client: what it used in the whole run; the peak counts file cache, too."""
    header = ("client", "CPU s", "throttled s", "peak MiB", "sent MB", "received MB")
    return header, [_resource_row(rounds) for rounds in _by_client(summary.rounds).values()]


def server_table(summary: Summary) -> Table:
    """The global model: accuracy, loss and seconds of its evaluation, total time, overhead."""
    header = (
        "server accuracy",
        "server loss",
        "server epoch s",
        "rounds",
        "total s",
        "overhead s / round",
    )
    last = summary.rounds[-1] if summary.rounds else None
    row = (
        _figure(last.server_accuracy if last else None, ".4f"),
        _figure(last.server_loss if last else None, ".4f"),
        _figure(last.server_epoch_seconds if last else None, ".2f"),
        str(len(summary.rounds)),
        f"{summary.total_seconds:.1f}",
        _figure(median(r.overhead_seconds for r in summary.rounds) if last else None, ".2f"),
    )
    return header, [row]


def round_table(summary: Summary) -> Table:
    """Round by round: the global model, and what the round took."""
    header = (
        "round",
        "server accuracy",
        "server loss",
        "duration s",
        "overhead s",
        "clients",
        "slowest",
    )
    return header, [_round_row(record) for record in summary.rounds]


def markdown(summary: Summary) -> str:
    """The whole report."""
    parts = [
        f"# Run {summary.run}",
        f"Experiment {summary.experiment} on profile {summary.profile}: {summary.status}"
        + (f" ({summary.error})" if summary.error else ""),
        f"Started {summary.started_at}.",
        "## Devices",
        _markdown(device_table(summary)),
        _markdown(resource_table(summary)),
        "## Server",
        _markdown(server_table(summary)),
        "## Rounds",
        _markdown(round_table(summary)),
    ]
    failures = [
        f"- round {record.round}: {client.client}: {' '.join(client.error.split())}"
        for record in summary.rounds
        for client in record.clients
        if client.error
    ]
    return "\n\n".join(parts + (["## Failures", "\n".join(failures)] if failures else [])) + "\n"


def _by_client(rounds: Iterable[RoundRecord]) -> dict[str, list[ClientRound]]:
    clients: dict[str, list[ClientRound]] = {}
    for record in rounds:
        for client in record.clients:
            clients.setdefault(client.client, []).append(client)
    return clients


def _device_row(rounds: list[ClientRound]) -> Sequence[str]:
    answered = [client for client in rounds if client.error is None]
    last = answered[-1] if answered else rounds[-1]
    seconds = [second for client in answered for second in client.epoch_seconds]
    return (
        last.client,
        last.device,
        _figure(last.local_accuracy, ".4f"),
        _figure(last.local_loss, ".4f"),
        _figure(fmean(seconds) if seconds else None, ".2f"),
        str(last.samples),
        f"{len(answered)}/{len(rounds)}",
    )


def _resource_row(rounds: list[ClientRound]) -> Sequence[str]:
    def known(field: str) -> list[float]:
        values = (getattr(client, field) for client in rounds)
        return [value for value in values if value is not None]

    def total(field: str, unit: float = 1) -> str:
        values = known(field)
        return _figure(sum(values) / unit if values else None, ".1f")

    peaks = known("peak_memory_bytes")
    return (
        rounds[0].client,
        total("cpu_seconds"),
        total("throttled_seconds"),
        _figure(max(peaks) / 2**20 if peaks else None, ".0f"),
        total("bytes_sent", 1e6),
        total("bytes_received", 1e6),
    )


def _round_row(record: RoundRecord) -> Sequence[str]:
    busy = {c.client: sum(c.epoch_seconds) + (c.evaluate_seconds or 0) for c in record.clients}
    answered = sum(client.error is None for client in record.clients)
    return (
        str(record.round),
        _figure(record.server_accuracy, ".4f"),
        _figure(record.server_loss, ".4f"),
        f"{record.duration_seconds:.2f}",
        f"{record.overhead_seconds:.2f}",
        f"{answered}/{len(record.clients)}",
        max(busy, key=lambda name: busy[name]) if any(busy.values()) else "-",
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _markdown(table: Table) -> str:
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
