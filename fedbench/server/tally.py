"""What the clients of one round reported, and what became of the round's time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from fedbench.records.clock import WallSeconds
from fedbench.records.rounds import ClientRound, Missing, RoundParts, RoundRecord, TrainWork
from fedbench.records.verdict import REAL, Emulation
from fedbench.server.directory import Member
from fedbench.server.replies import Kind
from fedbench.wire import EvaluateReply, Work

# Of both messages together; anything else is what the later of them says.
_ADDED = (
    "bytes_sent",
    "bytes_received",
    "download_seconds",
    "serialise_seconds",
    "busy_share_seconds",
)


class _Error(NamedTuple):
    text: str
    missing: Missing
    late: bool = False


class Tally:
    """What each client of one round did."""

    def __init__(self, members: Iterable[Member], emulation: Emulation = REAL) -> None:
        self._emulation = emulation
        self._members = list(members)
        self._trained: dict[str, TrainWork] = {}
        self._evaluated: dict[str, EvaluateReply] = {}
        self._errors: dict[str, _Error] = {}
        self._staleness: dict[str, int] = {}
        self._answered: dict[tuple[Kind, str], Counter[str]] = {}

    def survivors(self) -> list[Member]:
        """Return those that trained: whoever failed to would only be waited for once more."""
        return [member for member in self._members if member.client in self._trained]

    def busy(self, member: Member) -> bool:
        """Return whether it was chosen while it worked for an earlier round, and still does."""
        error = self._errors.get(member.client)
        return member in self._members and error is not None and error.late

    def silent(self, kind: Kind) -> list[str]:
        """Return the clients that were asked and did not answer in any way."""
        asked = self._members if kind == "train" else self.survivors()
        names = [member.client for member in asked]
        return [c for c in names if (kind, c) not in self._answered and c not in self._errors]

    def add(self, client: str, work: Work, lap: Counter[str]) -> None:
        """Count what a client did; `lap` is what the server spent for its reply."""
        if isinstance(work, TrainWork):
            self._answered["train", client] = lap
            self._trained[client] = work
            self._errors.pop(client, None)
        else:
            self._answered["evaluate", client] = lap
            self._evaluated[client] = work

    def add_late(self, member: Member, work: Work, lap: Counter[str], rounds: int) -> None:
        """Count an update that was asked for so many rounds ago."""
        if member not in self._members:
            self._members.append(member)
        self._staleness[member.client] = rounds
        self.add(member.client, work, lap)

    def failed(
        self, client: str, kind: Kind, reason: str, missing: Missing, lap: Counter[str]
    ) -> None:
        """Count a reply that is an error, or is none that one can use."""
        self._answered[kind, client] = lap
        self._errors[client] = _Error(f"{kind}: {reason}", missing)

    def missed(self, client: str, kind: Kind, reason: str, missing: Missing) -> None:
        """Count a client of which there is no reply, as the exchange is over."""
        self._errors[client] = _Error(f"{kind}: {reason}", missing, late=True)

    def record(
        self,
        number: int,
        started_at: str,
        duration: WallSeconds,
        aggregate_seconds: WallSeconds,
        last_aggregate_seconds: WallSeconds,
        *,
        last: bool = False,
    ) -> RoundRecord:
        """Return the round's record.

        `last_aggregate_seconds` are those of the aggregation since the last reply came. The `last`
        round's has the confusion matrix: one in each would be most of a run's records.
        """
        clients = self._emulation.with_energy(map(self._client, self._members), duration)
        busy = [client.busy_seconds for client in clients if not client.staleness]
        overhead = duration - max(busy, default=0.0)
        evaluations = [c.evaluate_seconds for c in clients if c.evaluate_seconds is not None]
        return RoundRecord(
            round=number,
            started_at=started_at,
            server_accuracy=self._mean("server_accuracy"),
            server_loss=self._mean("server_loss"),
            server_epoch_seconds=max(evaluations, default=None),
            duration_seconds=duration,
            overhead_seconds=overhead,
            parts=self._parts(clients, overhead, last_aggregate_seconds),
            aggregate_seconds=aggregate_seconds,
            confusion=self._confusion() if last else None,
            clients=clients,
        )

    def _client(self, member: Member) -> ClientRound:
        name = member.client
        trained, evaluated = self._trained.get(name), self._evaluated.get(name)
        fields = _merged([work for work in (trained, evaluated) if work])
        if evaluated is None:
            # A reply cannot time itself: the upload that counts, the trained model's, is told with
            # the evaluation. That of the evaluation, a few numbers, is part of what is left.
            fields.pop("upload_seconds", None)
        if trained:
            fields |= self._emulation.verdict(name, trained.samples, trained.epochs)
        if error := self._errors.get(name):
            fields |= {"error": error.text, "missing": error.missing, "late": error.late}
        return ClientRound(
            client=name,
            device=member.device,
            dilation=self._emulation.dilation_of(name),
            staleness=self._staleness.get(name, 0),
            **fields,
        )

    def _mean(self, field: str) -> float | None:
        """Return the mean over the clients that reported it, weighted by their test images."""
        replies = [reply for reply in self._evaluated.values() if getattr(reply, field) is not None]
        images = sum(reply.test_samples for reply in replies)
        total = sum(getattr(reply, field) * reply.test_samples for reply in replies)
        return total / images if images else None

    def _confusion(self) -> list[list[int]] | None:
        """Return the square matrix of all that evaluated; None where there is none."""
        counts = Counter[int]()
        for reply in self._evaluated.values():
            counts.update(dict(enumerate(reply.confusion)))
        size = math.isqrt(len(counts))
        rows = [[counts[size * row + column] for column in range(size)] for row in range(size)]
        return rows or None

    def _parts(self, clients: list[ClientRound], overhead: float, aggregate: float) -> RoundParts:
        """Return the overhead's parts, along the way of the client whose work it does not contain.

        Of several such clients, as where none has work to do, the one that answered last counts.
        What the server and that client spend on it follows one after the other, so that the rest
        is what was waited: for the scheduler, for polls, for other clients.
        """
        order = [client for kind, client in self._answered if kind == "train"]
        slowest = max(
            (client for client in clients if not client.staleness),
            key=lambda c: (c.busy_seconds, order.index(c.client) if c.client in order else -1),
            default=None,
        )
        if slowest is None or slowest.upload_seconds is None:
            return RoundParts(aggregate=aggregate)
        server = sum(self._answered.values(), Counter[str]())
        laps = [self._answered["train", slowest.client], self._answered["evaluate", slowest.client]]
        spent = sum(laps, Counter[str]())
        send = server["send"] + (slowest.download_seconds or 0.0)
        receive = spent["receive"] + slowest.upload_seconds
        serialise = server["pack"] + spent["unpack"] + (slowest.serialise_seconds or 0.0)
        wait = overhead - send - receive - serialise - aggregate
        return RoundParts(
            send=send, receive=receive, serialise=serialise, aggregate=aggregate, wait=wait
        )


def _merged(works: Iterable[Work]) -> dict[str, Any]:
    """Return the fields of a `ClientRound` that a client told of itself, message by message."""
    fields: dict[str, Any] = {}
    for work in works:
        for name, value in work:
            if value is None or name not in ClientRound.model_fields:
                continue
            fields[name] = fields.get(name, 0) + value if name in _ADDED else value
    return fields


def told(work: Work) -> dict[str, float]:
    """Return what an event says of a client's work: wall seconds, loss and accuracy."""
    if isinstance(work, TrainWork):
        values = {
            "seconds": sum(work.epoch_seconds, 0.0),
            "loss": work.local_loss,
            "accuracy": work.local_accuracy,
        }
    else:
        values = {
            "seconds": work.evaluate_seconds or 0.0,
            "loss": work.server_loss,
            "accuracy": work.server_accuracy,
        }
    return {name: value for name, value in values.items() if value is not None}
