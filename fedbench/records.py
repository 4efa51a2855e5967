"""What a run leaves behind, one line per round: written by the server, read by the host."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record; unknown keys of a later version are ignored."""

    model_config = ConfigDict(frozen=True)


class ClientRound(Record):
    """What one client did in one round. Seconds are wall seconds.

    A client that did not answer has `error` and no figures; the stock node measures no bytes.
    """

    client: str
    device: str
    epoch_seconds: list[float] = []
    evaluate_seconds: float | None = None
    samples: int = 0
    local_accuracy: float | None = None
    local_loss: float | None = None
    server_accuracy: float | None = None
    server_loss: float | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None


class RoundRecord(Record):
    """One round: the global model after it, and what it cost.

    `overhead_seconds` is the duration less the slowest client's training and evaluation.
    """

    round: int
    started_at: str
    server_accuracy: float | None
    server_loss: float | None
    server_epoch_seconds: float | None
    duration_seconds: float
    overhead_seconds: float
    aggregate_seconds: float
    clients: list[ClientRound]


class Summary(Record):
    """`summary.json`: how the run ended, and all its rounds."""

    run: str
    status: str
    experiment: str
    profile: str
    started_at: str
    total_seconds: float
    rounds: list[RoundRecord]
    error: str | None = None
