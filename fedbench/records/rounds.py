"""What happened in a round: declared here once, from a client's reply to the report.

A client's reply to a train message is a `TrainWork`, to an evaluate message an `EvaluateWork`; both
together, with what the server adds, are the client's round.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, computed_field

from fedbench.records.clock import REAL_TIME, Dilation, EmulatedSeconds, WallSeconds
from fedbench.records.files import Record, parse_moment
from fedbench.records.lines import read_lines

ROUNDS_FILE = "rounds.jsonl"

Missing = Literal[
    "crashed", "out_of_memory", "network", "left", "refused", "error", "timed_out", "cancelled"
]
"""Why a client is missing in a round. Its process died (for want of memory), nothing was heard from
it (frozen, or without a network), it signed off, what it sent is not valid, it raised an exception,
it had not answered when the round's time was up, or when enough others had."""
MISSING: tuple[Missing, ...] = get_args(Missing)

Count = Annotated[int, Field(ge=0)]
Wall = Annotated[WallSeconds, Field(ge=0, allow_inf_nan=False)]
CpuSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EpochRecord(Record):
    """What a device really had of the host in one local epoch. Seconds are wall seconds.

    `steal_seconds` are those for which the hypervisor kept the CPUs of this device from the host,
    as the mean over these CPUs; `due_seconds` those that its pace allowed, None on a real device.
    """

    seconds: Annotated[WallSeconds, Field(gt=0, allow_inf_nan=False)]
    cpu_seconds: CpuSeconds
    throttled_seconds: Wall
    steal_seconds: Wall
    due_seconds: Wall | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        """The CPUs that it had."""
        return self.cpu_seconds / self.seconds


class ClientWork(Record):
    """What a client says of any message that it worked on; seconds are wall seconds.

    `serialise_seconds` are those between a model and its bytes. The stock node measures neither
    bytes nor what becomes of its time. `busy_share_seconds` are those of its busy ones that are its
    own: each moment is divided by the number of clients that were busy on its computer; None where
    it did not say.
    """

    bytes_sent: Count | None = None
    bytes_received: Count | None = None
    download_seconds: Wall | None = None
    upload_seconds: Wall | None = None
    serialise_seconds: Wall | None = None
    peak_memory_bytes: Count | None = None
    busy_share_seconds: Wall | None = None


class TrainWork(ClientWork):
    """What a client says of its training: of `samples` images, in local epochs."""

    samples: Count = 0
    epoch_seconds: list[Wall] = Field(default_factory=list)
    epochs: list[EpochRecord] = Field(default_factory=list)
    local_accuracy: float | None = None
    local_loss: float | None = None
    cpu_seconds: CpuSeconds | None = None
    throttled_seconds: Wall | None = None


class EvaluateWork(ClientWork):
    """What a client says of its evaluation of the new global model.

    `evaluate_download_seconds` are those of `download_seconds` that came after training.
    """

    evaluate_seconds: Wall | None = None
    evaluate_download_seconds: Wall | None = None
    server_accuracy: float | None = None
    server_loss: float | None = None


class Participant(Record):
    """Which client it is, and of which device."""

    client: str
    device: str


class ClientRound(TrainWork, EvaluateWork, Participant):
    """What one client did in one round. Seconds are wall seconds, but for those called emulated.

    `target_epoch_seconds` (emulated) is what an epoch takes on the real device, None where the
    client is one, and `emulation_error` by how much the median epoch missed it. `not_held` says why
    the host could not hold the emulation.
    Joules are modelled, of the emulated device in this round: `busy` while it trained or evaluated,
    else `idle`; None where its profile has no watts, or nobody knows for how long it was busy.

    A client that did not answer has `error` and no figures, and `missing` says what kind of error;
    it is `late` where it had none but the round was closed. `staleness` is how many rounds ago it
    was asked for the update that was added in this one.
    """

    error: str | None = None
    missing: Missing | None = None
    late: bool = False
    staleness: Count = 0
    dilation: Dilation = REAL_TIME
    target_epoch_seconds: EmulatedSeconds | None = None
    emulation_error: float | None = None
    not_held: str | None = None
    energy_idle_joules: float | None = None
    energy_busy_joules: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def emulated_epoch_seconds(self) -> list[EmulatedSeconds]:
        """Seconds of each local epoch on the emulated device."""
        return [self.dilation.emulated(seconds) for seconds in self.epoch_seconds]

    @property
    def busy_seconds(self) -> WallSeconds:
        """Wall seconds of training and evaluation."""
        return WallSeconds(sum(self.epoch_seconds) + (self.evaluate_seconds or 0.0))

    @property
    def trained_samples(self) -> int:
        """The samples that it trained: its images, once for each local epoch."""
        return self.samples * len(self.epoch_seconds)

    @property
    def late_epoch_seconds(self) -> EmulatedSeconds | None:
        """Emulated seconds by which local epochs ended late, added up; None on a real device.

        An epoch that ended early makes up for none that was late.
        """
        late = [e.seconds - e.due_seconds for e in self.epochs if e.due_seconds is not None]
        if not late:
            return None
        return self.dilation.emulated(WallSeconds(sum(max(0.0, seconds) for seconds in late)))

    @property
    def energy_joules(self) -> float | None:
        """Joules of both together, idle and busy."""
        if self.energy_idle_joules is None or self.energy_busy_joules is None:
            return None
        return self.energy_idle_joules + self.energy_busy_joules


class RoundParts(Record):
    """What the slowest client waited for while it neither trained nor evaluated, in wall seconds.

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


class Attempt(Record):
    """A round in which too few clients trained, so that it was begun anew, and why each did not."""

    started_at: str
    duration_seconds: WallSeconds
    clients: list[ClientRound]


class RoundRecord(Record):
    """One round: the global model after it, and what it cost in wall seconds.

    `overhead_seconds` is the duration less the slowest client's training and evaluation, `parts`
    what it was made of (None in records of older versions). `confusion[actual][predicted]` counts
    the test images of all clients that evaluated; the last round has it. `attempts` are those
    before. A round that ended below its minimum is the last of a run that failed: it did not change
    the model.
    """

    round: int
    started_at: str
    server_accuracy: float | None
    server_loss: float | None
    server_epoch_seconds: WallSeconds | None
    duration_seconds: WallSeconds
    overhead_seconds: WallSeconds
    parts: RoundParts | None = None
    aggregate_seconds: WallSeconds
    confusion: list[list[int]] | None = None
    clients: list[ClientRound]
    attempts: list[Attempt] = Field(default_factory=list)
    below_minimum: bool = False

    @property
    def trained(self) -> int:
        """Return how many clients trained; one that failed at the evaluation did."""
        return sum(not (client.error or "").startswith("train: ") for client in self.clients)

    @property
    def missing(self) -> list[ClientRound]:
        """Return who was missing, in all attempts."""
        attempts = [*(attempt.clients for attempt in self.attempts), self.clients]
        return [client for clients in attempts for client in clients if client.missing]


def by_client(rounds: Iterable[RoundRecord]) -> dict[str, list[ClientRound]]:
    """Return what each client did, round by round."""
    clients: dict[str, list[ClientRound]] = {}
    for record in rounds:
        for client in record.clients:
            clients.setdefault(client.client, []).append(client)
    return clients


def total(clients: Iterable[ClientRound], field: str) -> float | None:
    """Return the sum of a field over the clients that have it; None where nobody has."""
    values = (getattr(client, field) for client in clients)
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def require_moment(record: RoundRecord) -> RoundRecord:
    """Return the record of a round if it says when the round began.

    Raises:
        ValueError: it does not.
    """
    parse_moment(record.started_at)
    return record


def parse_round(line: bytes) -> RoundRecord:
    """Parse a line of `rounds.jsonl`.

    Raises:
        ValueError: it is no record of a round.
    """
    return require_moment(RoundRecord.model_validate_json(line))


def read_rounds(folder: Path) -> list[RoundRecord]:
    """Return the complete rounds of a run so far.

    Raises:
        DamagedFileError: a line before the last is damaged.
    """
    return read_lines(folder / ROUNDS_FILE, parse_round)
