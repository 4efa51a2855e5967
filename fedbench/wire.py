"""What server, clients and host say to each other, in Flower's messages and besides them.

Each thing is declared here once: whoever says it builds the model, and whoever hears it parses the
same. Answers to a task are `fedbench.records`' own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError

from fedbench.config import Experiment, Name
from fedbench.learning.pace import Speed
from fedbench.records.pacing import Pacing
from fedbench.records.rounds import Count, EvaluateWork, Missing, TrainWork

RUN_PATH = "/fedbench/v1/run"
CLIENTS_PATH = "/fedbench/v1/clients"
TASK = "task"
"""The record of a message that has a `ClientTask`."""
WORK = "work"
"""The record of a reply that has a `TrainWork` or an `EvaluateReply`."""
LONGEST_ROUND_TRIP = 60.0
"""Seconds between an announcement and its answer for which a client may be far away."""
ROUND_TRIPS = 3
"""To an answer over a new connection: TCP's and TLS's handshakes come first."""


KILLED_FOR_MEMORY = "killed for memory"
DIED = "the client's process died"
SIGNED_OFF = "the client left the federation"
LOSSES: tuple[tuple[str, Missing], ...] = (
    (KILLED_FOR_MEMORY, "out_of_memory"),
    (DIED, "crashed"),
    (SIGNED_OFF, "left"),
)
"""How the reason begins for which a node is gone, and what kind of reason it is. Of others, nothing
was heard: they are frozen, or without a network."""
Misbehaviour = Literal[
    "nan", "wrong-shape", "wrong-dtype", "huge-header", "no-bundle", "incomplete-bundle",
    "too-many-samples", "raise", "late", "silent", "mute",
]  # fmt: skip
"""What a client that is started as `fedbench.client.faulty` can be told to do wrong."""
MISBEHAVIOUR_FILE, MISBEHAVED_FILE = "/tmp/misbehaviour", "/tmp/misbehaved"  # noqa: S108 (its own)
"""Where such a client is told so, and where it says since when (s, of the Unix clock) it does."""


class NameTakenError(Exception):
    """Another live client of the federation has this client's name."""


class Statement(BaseModel):
    """What one says and another checks; keys that nobody knows are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Announcement(Statement):
    """What a client says of itself. `instance` tells a restart from a second client of one name.

    `node_id` is the client's Flower node; None where only Flower knows it, as with the stock node.
    `wait` is for how many seconds the answer may be held back: the server sees meanwhile whether
    the client is there. `round_trip` is how many seconds its last announcement and the answer were
    on their way: by so much later the next may come.
    """

    client: Name
    device: Name
    instance: Annotated[str, Field(min_length=1, max_length=64)]
    metrics_port: int = Field(ge=1, le=65535)
    node_id: int | None = Field(default=None, ge=1, lt=2**64)
    pacing: Pacing | None = None
    wait: float = Field(default=0, ge=0, le=60)
    round_trip: float = Field(default=0, ge=0, le=LONGEST_ROUND_TRIP)


class Ending(Statement):
    """What became of a client's process. `exit_code` is negative for a signal.

    `memory_limit` is in bytes, None where there is none.
    """

    exit_code: int = Field(ge=-64, le=255)
    killed_for_memory: bool
    memory_limit: Annotated[int, Field(ge=1)] | None

    def reason(self, device: str) -> str:
        """Say it for the round's record; a limit in MiB."""
        if self.killed_for_memory:
            limit = self.memory_limit
            which = f"its limit is {limit / 2**20:.0f} MiB" if limit else "it has no limit"
            return f"{KILLED_FOR_MEMORY}: {which} (device {device})"
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"{DIED} ({how})"


class Identity(Statement):
    """Who a client is, and how many training images it has of the data set that was asked for."""

    client: Name
    device: Name
    samples: int = Field(ge=0, lt=2**63, strict=True)


class Offer(BaseModel):
    """What the server says of its current run to whoever wants to join: its data is a key."""

    experiment: Experiment
    data: str


class ClientTask(Statement):
    """What one client is asked in one round. The experiment travels whole, as one JSON value.

    `data` is the key of its images, `pace` the speed that it keeps to, in samples per wall second:
    None for a real device, which is as fast as it is.
    """

    run: str
    round: int = Field(ge=1)
    classes: int = Field(ge=1)
    data: str
    pace: Speed | None = None
    experiment: Json[Experiment]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Parse what `record` made of it."""
        return cls.model_validate(dict(record))

    def record(self) -> dict[str, Any]:
        """Return it as the values that a record of Flower's holds: numbers, texts and lists."""
        return self.model_dump(mode="json", round_trip=True, exclude_none=True)


class EvaluateReply(EvaluateWork):
    """An `EvaluateWork` with what the round's means are made of.

    `confusion` counts the test images by cell of the matrix, row by row: actual, then predicted.
    """

    test_samples: Count = 0
    confusion: list[Count] = Field(default_factory=list)


Work = TrainWork | EvaluateReply


def work_record(work: Work) -> dict[str, str]:
    """Return a client's work as the one value of a record of Flower's."""
    # Not pydantic's own JSON: a loss that is no number would become null there.
    return {WORK: json.dumps(work.model_dump(exclude_unset=True))}


def first_problem(error: ValidationError) -> str:
    """Say in one line what is wrong with a statement: `samples: Input should be …`."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else problem["msg"]
