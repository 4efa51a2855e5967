"""Runs as CSV: one line for each run, round and client, with every number that was recorded.

A column's name ends in its unit where it has one. What was not measured is empty. The numbers of
all local epochs of a round are in one field, separated by spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedbench.host.report.tables import text_table
from fedbench.records import ClientRound, RoundParts, RoundRecord, Summary

_OF_A_ROUND = (
    "started_at", "server_accuracy", "server_loss", "server_epoch_seconds", "duration_seconds",
    "overhead_seconds", "aggregate_seconds", "below_minimum",
)  # fmt: skip
_OF_A_CLIENT = (
    "samples", "local_accuracy", "local_loss", "server_accuracy", "server_loss",
    "evaluate_seconds", "bytes_sent", "bytes_received", "download_seconds",
    "evaluate_download_seconds", "upload_seconds", "serialise_seconds", "cpu_seconds",
    "throttled_seconds", "peak_memory_bytes", "target_epoch_seconds", "emulation_error",
    "not_held", "busy_share_seconds", "energy_idle_joules", "energy_busy_joules", "error",
    "missing", "late", "staleness",
)  # fmt: skip
_OF_A_DEVICE = (  # a run in one program has none
    "dilation", "epoch_emulated_seconds", "epoch_due_seconds", "target_epoch_seconds",
    "emulation_error", "not_held", "busy_share_seconds", "energy_idle_joules",
    "energy_busy_joules",
)  # fmt: skip
_OF_AN_EPOCH = ("cpu_seconds", "throttled_seconds", "steal_seconds", "due_seconds", "share")
_COLUMNS = {
    "samples": "training_images",
    "target_epoch_seconds": "target_epoch_emulated_seconds",
    "emulation_error": "emulation_error_ratio",
    "epoch_share": "epoch_cpus",
    "throttled_seconds": "throttled_cpu_seconds",
    "epoch_throttled_seconds": "epoch_throttled_cpu_seconds",
}


def runs_csv(summaries: Iterable[Summary]) -> str:
    """Write the lines of all runs under one header, in the order of runs, rounds and clients.

    Columns that only an emulated device has are left out where no run emulates. Where some do,
    the lines of the others have empty fields there.
    """
    lines = [
        _line(s, record, client)
        for s in summaries
        for record in s.rounds
        for client in record.clients
    ]
    fullest = max(lines, key=len) if lines else {}
    return text_table.records_csv(list(fullest), lines)


def _line(summary: Summary, record: RoundRecord, client: ClientRound) -> dict[str, object]:
    overhead = record.parts or RoundParts(aggregate=record.aggregate_seconds)
    fields = {
        "run": summary.run,
        "experiment": summary.experiment,
        "profile": summary.profile,
        "round": record.round,
        "client": client.client,
        "device": client.device,
        "dilation": client.dilation,
        "epoch_seconds": _spaced(client.epoch_seconds),
        "epoch_emulated_seconds": _spaced(client.emulated_epoch_seconds),
        **{
            f"epoch_{field}": _spaced([getattr(epoch, field) for epoch in client.epochs])
            for field in _OF_AN_EPOCH
        },
        **{field: getattr(client, field) for field in _OF_A_CLIENT},
        **{f"round_{field}": getattr(record, field) for field in _OF_A_ROUND},
        "round_attempts": len(record.attempts),
        **{f"overhead_{part}_seconds": getattr(overhead, part) for part in RoundParts.model_fields},
    }
    left_out = () if summary.emulates else _OF_A_DEVICE
    return {_column(field): value for field, value in fields.items() if field not in left_out}


def _spaced(values: Sequence[float | None]) -> str:
    return " ".join(str(value) for value in values if value is not None)


def _column(field: str) -> str:
    """Name the column of a field; `wall` tells its seconds from emulated ones and CPU seconds."""
    name = _COLUMNS.get(field, field)
    if not name.endswith("_seconds") or name.endswith(("emulated_seconds", "cpu_seconds")):
        return name
    return f"{name.removesuffix('seconds')}wall_seconds"
