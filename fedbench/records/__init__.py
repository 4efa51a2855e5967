"""What a run leaves behind, one line per round: written by the server, read by the host.

A run's folder: `experiment.json`, `profile.json`, `run.json` (the host's facts for the server),
`events.jsonl`, `rounds.jsonl`, `summary.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field

# The last event of a run, and what its status then is.
ENDINGS = {"finished": "finished", "stopped": "interrupted", "error": "failed"}


class Record(BaseModel):
    """A frozen record; unknown keys of a later version are ignored."""

    model_config = ConfigDict(frozen=True)


class EpochRecord(Record):
    """What a device really had of the host in one local epoch. Seconds are wall seconds.

    `steal_seconds` are those for which the hypervisor kept the CPUs of this device from the host,
    as the mean over these CPUs.
    """

    seconds: float
    cpu_seconds: float
    throttled_seconds: float
    steal_seconds: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        """The CPUs that it had."""
        return self.cpu_seconds / self.seconds


class ClientRound(Record):
    """What one client did in one round. Seconds are wall seconds, but for those called emulated.

    Emulated seconds are wall seconds / `dilation`; `target_epoch_seconds` (emulated) is what an
    epoch takes on the real device, None where the client is one, and `emulation_error` by how much
    the median epoch missed it. `not_held` says why the host could not hold the emulation.
    Joules are modelled, of the emulated device in this round: `busy` while it trained or evaluated,
    else `idle`; None where its profile has no watts, or nobody knows for how long it was busy.
    `busy_share_seconds` are those of its busy ones that are its own: each moment is divided by the
    number of clients that were busy on its computer; None where it did not say.

    A client that did not answer has `error` and no figures; it is `late` where it had none but the
    round's time was up. The stock node measures neither bytes
    nor what becomes of its time. `serialise_seconds` are those between a model and its bytes;
    `evaluate_download_seconds` those of `download_seconds` that came after training.
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
    download_seconds: float | None = None
    evaluate_download_seconds: float | None = None
    upload_seconds: float | None = None
    serialise_seconds: float | None = None
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None
    late: bool = False
    epochs: list[EpochRecord] = []
    dilation: float = 1.0
    target_epoch_seconds: float | None = None
    emulation_error: float | None = None
    not_held: str | None = None
    busy_share_seconds: float | None = None
    energy_idle_joules: float | None = None
    energy_busy_joules: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def emulated_epoch_seconds(self) -> list[float]:
        """Seconds of each local epoch on the emulated device."""
        return [seconds / self.dilation for seconds in self.epoch_seconds]

    @property
    def busy_seconds(self) -> float:
        """Wall seconds of training and evaluation."""
        return sum(self.epoch_seconds) + (self.evaluate_seconds or 0.0)

    @property
    def energy_joules(self) -> float | None:
        """Of both, idle and busy."""
        if self.energy_idle_joules is None or self.energy_busy_joules is None:
            return None
        return self.energy_idle_joules + self.energy_busy_joules


class RoundParts(Record):
    """What the slowest client waited for while it neither trained nor evaluated, in seconds.

    `send`: models and messages on their way to it. `receive`: its replies on their way to the
    aggregation. `serialise`: between models and bytes, on either side. `aggregate`: after the last
    reply. `wait`: the rest, such as other clients, polls, and a CPU quota that is used up. They add
    up to the round's overhead; None where the client does not measure, as the stock node.
    """

    send: float | None = None
    receive: float | None = None
    serialise: float | None = None
    aggregate: float
    wait: float | None = None


class RoundRecord(Record):
    """One round: the global model after it, and what it cost.

    `overhead_seconds` is the duration less the slowest client's training and evaluation, `parts`
    what it was made of (None in records of older versions). `confusion[actual][predicted]` counts
    the test images of all clients that evaluated; the last round has it.
    """

    round: int
    started_at: str
    server_accuracy: float | None
    server_loss: float | None
    server_epoch_seconds: float | None
    duration_seconds: float
    overhead_seconds: float
    parts: RoundParts | None = None
    aggregate_seconds: float
    confusion: list[list[int]] | None = None
    clients: list[ClientRound]


class Summary(Record):
    """`summary.json`: how the run ended, and all its rounds.

    `rounds_not_held` counts them by client, for those that have a target. A run that does not
    `emulates`, in one program, has wall seconds, and they are no device's.
    """

    run: str
    status: str
    experiment: str
    profile: str
    started_at: str
    total_seconds: float
    rounds: list[RoundRecord]
    error: str | None = None
    dilation: float = 1.0
    rounds_not_held: dict[str, int] = {}
    emulates: bool = True


def emulates(facts: Mapping[str, Any]) -> bool:
    """Whether a run of these facts (`run.json`) is in containers, not in one program."""
    return "engine" not in facts


def by_client(rounds: Iterable[RoundRecord]) -> dict[str, list[ClientRound]]:
    """What each client did, round by round."""
    clients: dict[str, list[ClientRound]] = {}
    for record in rounds:
        for client in record.clients:
            clients.setdefault(client.client, []).append(client)
    return clients


def total(clients: Iterable[ClientRound], field: str) -> float | None:
    """The sum of a figure over those that have it; None where nobody has."""
    values = (getattr(client, field) for client in clients)
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def summarise(folder: Path) -> Summary:
    """The summary of a run as its records have it now, however the run ended."""
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    events = list(read_lines(folder / "events.jsonl"))
    created = datetime.fromisoformat(facts["created"])
    last = datetime.fromisoformat(events[-1]["time"]) if events else created
    ending: dict[str, Any] = next(
        (e for e in reversed(events) if e["event"] in (*ENDINGS, "started")), {}
    )
    # Neither an ending nor a start after it: the server died, or was never reached.
    status = ENDINGS.get(ending.get("event", ""), "failed")
    rounds = read_rounds(folder)
    missing = "the server never started it" if not ending else "the server died"
    return Summary(
        run=folder.name,
        status=status,
        experiment=facts["experiment"],
        profile=facts["profile"],
        started_at=facts["created"],
        total_seconds=(last - created).total_seconds(),
        rounds=rounds,
        error=ending.get("reason", missing) if status == "failed" else None,
        dilation=facts.get("emulation", {}).get("dilation", 1.0),
        rounds_not_held=_rounds_not_held(rounds),
        emulates=emulates(facts),
    )


def _rounds_not_held(rounds: list[RoundRecord]) -> dict[str, int]:
    judged = [c for r in rounds for c in r.clients if c.emulation_error is not None]
    counts = dict.fromkeys((client.client for client in judged), 0)
    for client in judged:
        counts[client.client] += client.not_held is not None
    return counts


def write_summary(folder: Path) -> Summary:
    """Writes `summary.json` and returns it."""
    summary = summarise(folder)
    replace_text(folder / "summary.json", summary.model_dump_json(indent=2) + "\n")
    return summary


def replace_text(path: Path, text: str) -> None:
    """Writes a file anew; a reader finds the old or the new text, never half of it."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")  # others may write the same
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_rounds(folder: Path) -> list[RoundRecord]:
    """The complete rounds of a run so far."""
    return [RoundRecord.model_validate(line) for line in read_lines(folder / "rounds.jsonl")]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON-lines file, which may be written to right now or not exist yet."""
    if not path.exists():
        return
    # Only b"\n" ends a line: text within one may hold other separators, such as U+2028.
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
