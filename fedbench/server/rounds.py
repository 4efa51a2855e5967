"""The rounds of one run: wait for clients, train, aggregate, evaluate, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from fedbench.config import Experiment
from fedbench.records import RoundRecord
from fedbench.records.verdict import REAL, Emulation
from fedbench.server.directory import Directory, Member, Say
from fedbench.server.exchange import Exchange, Stopwatch
from fedbench.server.selection import select
from fedbench.server.tally import Tally

WAIT_POLL_SECONDS = 0.5
SAY_SECONDS = 10.0


class Rounds:
    """Runs rounds one by one. `say(event, **facts)` tells whoever watches."""

    def __init__(
        self,
        experiment: Experiment,
        expected: int,
        grid: Exchange,
        directory: Directory,
        say: Say,
        emulation: Emulation = REAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._experiment = experiment
        self._expected = expected
        self._grid = grid
        self._directory = directory
        self._say = say
        self._emulation = emulation
        self._clock = clock
        self._chosen: list[Member] = []

    def choose(self, _server_round: int) -> list[int]:
        """Node ids of the clients of the current round: to evaluate, of those that trained."""
        return [member.node_id for member in self._chosen]

    def wait(self, needed: int) -> list[Member]:
        """The connected clients, once `needed` of them are.

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
        wanted = self._experiment.clients
        members = self._directory.connected()
        return [member for member in members if wanted is None or member.client in wanted]

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> tuple[ArrayRecord, RoundRecord]:
        """One round: the new global model and what it cost."""
        members = self.wait(self._expected if number == 1 else 1)
        by_name = {member.client: member for member in members}
        names = select(by_name, self._experiment.fraction, self._experiment.seed, number)
        self._chosen = [by_name[name] for name in names]
        self._say("round", round=number, rounds=self._experiment.rounds, clients=names)
        started_at, start = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
        tally = Tally(self._chosen, self._directory, self._emulation)
        grid = self._grid.flower

        messages = strategy.configure_train(number, arrays, config, grid)
        collecting = Stopwatch(self._replies(messages, tally.trained, "trained", number))
        aggregated, _ = strategy.aggregate_train(number, cast("list[Message]", collecting))
        aggregating = collecting.consumer_seconds(), collecting.last_seconds()
        arrays = aggregated or arrays

        self._chosen = tally.survivors()
        messages = strategy.configure_evaluate(number, arrays, config, grid)
        strategy.aggregate_evaluate(
            number, list(self._replies(messages, tally.evaluated, "evaluated", number))
        )
        duration = time.monotonic() - start
        last = number == self._experiment.rounds
        record = tally.record(number, started_at, duration, *aggregating, last=last)
        for client in record.clients:
            if client.not_held:
                self._say("not_held", round=number, client=client.client, reason=client.not_held)
        return arrays, record

    def _replies(
        self,
        messages: Iterable[Message],
        count: Callable[[int, Message, Counter[str]], None],
        event: str,
        number: int,
    ) -> Iterator[Message]:
        """Good replies as they come; failures are counted and told, and the round goes on."""
        self._grid.timing.lap()
        for node_id, reply in self._grid.exchange(messages, self._experiment.round_timeout_seconds):
            lap = self._grid.timing.lap()
            count(node_id, self._directory.explained(node_id, reply), lap)
            client = self._directory.member(node_id).client
            if reply.has_error():
                self._say("failed", round=number, client=client, reason=reply.error.reason)
            else:
                metrics = reply.content["metrics"]
                figures = {key: metrics[key] for key in ("loss", "accuracy") if key in metrics}
                seconds = sum(metrics.get("epoch-seconds", [metrics.get("evaluate-seconds", 0.0)]))
                self._say(event, round=number, client=client, seconds=seconds, **figures)
                yield reply
