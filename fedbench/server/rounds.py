"""The rounds of one run: wait for clients, train, aggregate, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedbench.config import Experiment
from fedbench.records.clock import WallSeconds
from fedbench.records.facts import RunFacts
from fedbench.records.rounds import RoundRecord, TrainWork
from fedbench.records.verdict import Emulation
from fedbench.server import replies
from fedbench.server.directory import Directory, Member, Say
from fedbench.server.exchange import Exchange, Stopwatch
from fedbench.server.replies import Asked, Kind
from fedbench.server.strategy import select
from fedbench.server.tally import Tally
from fedbench.wire import TASK, ClientTask, Work

WAIT_POLL_SECONDS = 0.5
SAY_SECONDS = 10.0
_EVENTS: dict[Kind, str] = {"train": "trained", "evaluate": "evaluated"}


class Rounds:
    """Runs rounds one by one. `say(event, **facts)` tells whoever watches."""

    def __init__(
        self,
        experiment: Experiment,
        facts: RunFacts,
        grid: Exchange,
        directory: Directory,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._experiment = experiment
        self._facts = facts
        self._grid = grid
        self._directory = directory
        self._say = say
        self._emulation = Emulation.of(facts)
        self._question = experiment.model_dump_json()
        self._clock = clock
        self._chosen: list[Member] = []

    def choose(self, _server_round: int) -> list[int]:
        """Return the nodes of the current round: to evaluate, of those that trained."""
        return [member.node_id for member in self._chosen]

    def wait(self, needed: int) -> list[Member]:
        """Return the connected clients, once `needed` of them are.

        After the experiment's waiting time it goes on with those that came; when none came, it
        says so and waits again.
        """
        while True:
            deadline = self._clock() + self._experiment.wait_for_clients_seconds
            next_word = self._clock()
            while len(members := self._connected()) < needed:
                if self._clock() >= deadline:
                    break
                if self._clock() >= next_word:
                    self._say("waiting", connected=[m.client for m in members], needed=needed)
                    next_word = self._clock() + SAY_SECONDS
                self._grid.pause(WAIT_POLL_SECONDS)
            else:
                return members
            if members:
                self._say("incomplete", connected=[m.client for m in members], needed=needed)
                return members
            self._say("nobody", needed=needed)

    def _connected(self) -> list[Member]:
        asked = self._experiment.clients
        members = self._directory.connected()
        return [member for member in members if asked is None or member.client in asked]

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord, RoundRecord]:
        """Go through one round; return the new global model and what it cost."""
        members = self.wait(self._facts.clients if number == 1 else 1)
        by_name = {member.client: member for member in members}
        names = select(by_name, self._experiment.fraction, self._experiment.seed, number)
        self._chosen = [by_name[name] for name in names]
        self._say("round", round=number, rounds=self._experiment.rounds, clients=names)
        started_at, start = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
        tally = Tally(self._chosen, self._emulation)
        grid = self._grid.flower

        messages = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        collecting = Stopwatch(self._replies("train", messages, arrays, tally, number))
        aggregated, _ = strategy.aggregate_train(number, cast("list[Message]", collecting))
        aggregating = (
            WallSeconds(collecting.consumer_seconds()),
            WallSeconds(collecting.last_seconds()),
        )
        arrays = aggregated or arrays

        self._chosen = tally.survivors()
        messages = strategy.configure_evaluate(number, arrays, ConfigRecord(), grid)
        strategy.aggregate_evaluate(
            number, list(self._replies("evaluate", messages, arrays, tally, number))
        )
        duration = WallSeconds(time.monotonic() - start)
        last = number == self._experiment.rounds
        record = tally.record(number, started_at, duration, *aggregating, last=last)
        for client in record.clients:
            if client.not_held:
                self._say("not_held", round=number, client=client.client, reason=client.not_held)
        return arrays, record

    def _replies(
        self,
        kind: Kind,
        messages: Iterable[Message],
        arrays: ArrayRecord,
        tally: Tally,
        number: int,
    ) -> Iterator[Message]:
        """Yield good replies as they come; failures are counted and told, and the round goes on."""
        timeout = self._experiment.round_timeout_seconds
        self._grid.timing.lap()
        for node_id, reply in self._grid.exchange(self._asking(messages, number), timeout):
            lap = self._grid.timing.lap()
            member = self._directory.member(node_id)
            client = member.client
            try:
                reply = self._directory.explained(node_id, reply)  # noqa: PLW2901
                work = replies.admit(kind, reply, self._asked(arrays, member))
            except replies.FailedReplyError as error:
                tally.failed(client, kind, str(error), lap)
                self._say("failed", round=number, client=client, reason=str(error))
                continue
            tally.add(client, work, lap)
            self._say(_EVENTS[kind], round=number, client=client, **_told(work))
            yield reply

    def _asked(self, sent: ArrayRecord, member: Member) -> Asked:
        learns = self._experiment.task != "noop"
        return Asked(sent, self._facts.classes, member.samples, learns)

    def _asking(self, messages: Iterable[Message], number: int) -> Iterator[Message]:
        """Add to each message what its client is asked, whatever the strategy put into it."""
        for message in messages:
            client = self._directory.member(message.metadata.dst_node_id).client
            content = RecordDict(dict(message.content))  # a strategy gives all messages the same
            content[TASK] = ConfigRecord(self._task(client, number).record())
            message.content = content
            yield message

    def _task(self, client: str, number: int) -> ClientTask:
        return ClientTask(
            run=self._facts.run,
            round=number,
            classes=self._facts.classes,
            data=self._facts.data,
            pace=self._emulation.pace.get(client),
            experiment=self._question,
        )


def _told(work: Work) -> dict[str, float]:
    """Return what an event says of a client's work: wall seconds, loss and accuracy."""
    if isinstance(work, TrainWork):
        told = {
            "seconds": sum(work.epoch_seconds, 0.0),
            "loss": work.local_loss,
            "accuracy": work.local_accuracy,
        }
    else:
        told = {
            "seconds": work.evaluate_seconds or 0.0,
            "loss": work.server_loss,
            "accuracy": work.server_accuracy,
        }
    return {name: value for name, value in told.items() if value is not None}
