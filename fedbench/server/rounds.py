"""The rounds of one run: wait for clients, train, aggregate, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from fedbench.config import Experiment
from fedbench.flower.clock import now
from fedbench.records.clock import WallSeconds
from fedbench.records.deadline import Deadlines
from fedbench.records.facts import RunFacts
from fedbench.records.rounds import Attempt, Missing, RoundRecord
from fedbench.records.verdict import Emulation
from fedbench.server import replies as replies_of
from fedbench.server.directory import Directory, Member, Say
from fedbench.server.exchange import Exchange, Questions, Stopwatch
from fedbench.server.replies import Kind
from fedbench.server.strategy import select, staleness_weight
from fedbench.server.tally import Tally, told

WAIT_POLL_SECONDS = 0.5
NEWCOMER_POLL_SECONDS = 0.05
RETURN_SECONDS = 120.0
SAY_SECONDS = 10.0
_TIME_IS_UP = "no answer before the round's timeout"
_ENOUGH = "not waited for: enough others had answered"
_EVENTS: dict[Kind, str] = {"train": "trained", "evaluate": "evaluated"}


class TooFewTrainedError(Exception):
    """Fewer clients trained in a round than it needs; the message has what each of the others said.

    `record` is that of the last attempt.
    """

    def __init__(self, record: RoundRecord, minimum: int) -> None:
        self.record = record
        said = "; ".join(f"{c.client}: {c.error}" for c in record.clients if c.error)
        who = f"only {record.trained} of at least {minimum} clients" if record.trained else None
        attempts = len(record.attempts) + 1
        times = f", begun {attempts} times" if attempts > 1 else ""
        super().__init__(f"{who or 'no client'} trained in round {record.round}{times}: {said}")


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
        self._questions = Questions(experiment, facts, self._emulation)
        self._clock = clock
        self._deadlines = Deadlines(experiment, self._emulation, alone=facts.emulates)
        self._chosen: list[Member] = []
        self._late: dict[int, int] = {}  # nodes that are waited for still, with their round
        self._begun = False

    def choose(self, _server_round: int) -> list[int]:
        """Return the nodes of the current round: to evaluate, of those that trained."""
        return [member.node_id for member in self._chosen]

    def wait(self, needed: int, most: float = inf) -> list[Member]:
        """Return the connected clients, once `needed` of them are.

        After the experiment's waiting time, and `most` seconds at most, it goes on with those that
        came; when none came, it says so and waits again.
        """
        while True:
            deadline = self._clock() + min(self._experiment.wait_for_clients_seconds, most)
            next_word = self._clock()
            while len(members := self._connected()) < needed or self._directory.newcomers:
                if self._clock() >= deadline:
                    break
                if self._directory.newcomers:
                    self._grid.pause(NEWCOMER_POLL_SECONDS)
                    continue
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

    def _expected(self, number: int) -> list[Member]:
        """Return who is there for a round: at first all that the run expects.

        A run that goes on waits for them, too: a crash loses no client. One that does not come back
        is not waited for as at the run's beginning.
        """
        if self._begun:
            return self.wait(self._experiment.min_clients)
        self._begun = True
        return self.wait(self._facts.clients, inf if number == 1 else RETURN_SECONDS)

    def _connected(self) -> list[Member]:
        asked = self._experiment.clients
        members = self._directory.connected()
        return [member for member in members if asked is None or member.client in asked]

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord, RoundRecord]:
        """Go through one round; return the new global model and what it cost.

        A round in which fewer clients trained than its minimum leaves the model as it was, and is
        begun anew.

        Raises:
            TooFewTrainedError: it was begun as often as it may be.
        """
        attempts: list[Attempt] = []
        chosen = self._experiment
        while True:
            trained, record = self._attempt(strategy, number, arrays, len(attempts))
            record = record.model_copy(update={"attempts": list(attempts)})
            if not record.below_minimum:
                return trained, record
            few = f"{record.trained} clients trained, at least {chosen.min_clients} have to"
            reason = f"round {number}: {few}; the model stays as it was"
            self._say("below_minimum", round=number, reason=reason)
            if chosen.below_minimum == "stop" or len(attempts) + 1 >= chosen.failing_rounds:
                raise TooFewTrainedError(record, chosen.min_clients)
            attempts.append(
                Attempt(
                    started_at=record.started_at,
                    duration_seconds=record.duration_seconds,
                    clients=record.clients,
                )
            )

    def _attempt(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, attempt: int
    ) -> tuple[ArrayRecord, RoundRecord]:
        members = self._expected(number)
        tally, wanted = self._invite(members, number, attempt)
        started_at, start = now().isoformat(timespec="milliseconds"), time.monotonic()
        grid = self._grid.flower

        messages = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        collecting = Stopwatch(self._replies("train", messages, arrays, tally, number, wanted))
        aggregated, _ = strategy.aggregate_train(number, cast("list[Message]", collecting))
        aggregating = (
            WallSeconds(collecting.consumer_seconds()),
            WallSeconds(collecting.last_seconds()),
        )
        self._chosen = tally.survivors()
        below = len(self._chosen) < self._experiment.min_clients
        if not below:
            arrays = aggregated or arrays
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
        return arrays, record.model_copy(update={"below_minimum": below})

    def _invite(self, members: list[Member], number: int, attempt: int) -> tuple[Tally, int]:
        """Choose who trains, but for those that are still busy; return how many are wanted."""
        chosen = self._experiment
        by_name = {member.client: member for member in members}
        names, wanted = select(
            by_name,
            chosen.fraction,
            chosen.seed,
            number,
            over=chosen.over_selection,
            attempt=attempt,
        )
        self._say("round", round=number, rounds=chosen.rounds, clients=sorted(names))
        tally = Tally([by_name[name] for name in sorted(names)], self._emulation)
        self._chosen = []
        for member in [by_name[name] for name in names]:
            if member.node_id in self._late:
                busy = f"still busy with round {self._late[member.node_id]}"
                tally.missed(member.client, "train", busy, "timed_out")
            else:
                self._chosen.append(member)
        return tally, wanted

    def _replies(
        self,
        kind: Kind,
        messages: Iterable[Message],
        arrays: ArrayRecord,
        tally: Tally,
        number: int,
        wanted: int | None = None,
    ) -> Iterator[Message]:
        """Yield good replies as they come; failures are counted and told, and the round goes on.

        It is closed when the time is up, or when so many as are `wanted` have answered well.
        """
        stale = kind == "train" and self._experiment.late_results == "stale"
        seconds = self._seconds(kind, arrays)
        asked = {member.node_id for member in self._chosen}
        asking = self._questions.asking(messages, number, seconds, self._name)
        self._grid.timing.lap()
        replies = self._grid.exchange(asking, seconds, keep_late=stale)
        if stale:
            self._late |= dict.fromkeys(asked, number)
        good = 0
        for node_id, reply in replies:
            lap = self._grid.timing.lap()
            member = self._directory.member(node_id)
            asked_in = self._late.pop(node_id, number) if stale else number
            try:
                reply = self._directory.explained(node_id, reply)  # noqa: PLW2901
                work = replies_of.admit(kind, reply, self._questions.asked(arrays, member.samples))
            except replies_of.FailedReplyError as error:
                if node_id in asked or tally.busy(member):
                    tally.failed(member.client, kind, str(error), error.missing, lap)
                self._tell_failure(number, member.client, str(error), error.missing)
                continue
            if node_id in asked:
                tally.add(member.client, work, lap)
                good += 1
            else:
                tally.add_late(member, work, lap, number - asked_in)
                replies_of.discount(reply, staleness_weight(number - asked_in))
            self._deadlines.learn(member.client, work)
            self._say(_EVENTS[kind], round=number, client=member.client, **told(work))
            if good == wanted:
                replies.close()
            yield reply
        self._close(kind, tally, number, enough=good == wanted)

    def _name(self, node_id: int) -> str:
        return self._directory.member(node_id).client

    def _close(self, kind: Kind, tally: Tally, number: int, *, enough: bool) -> None:
        """Count those that did not answer, and say so."""
        reason = _ENOUGH if enough else _TIME_IS_UP
        missing: Missing = "cancelled" if enough else "timed_out"
        for client in tally.silent(kind):
            tally.missed(client, kind, reason, missing)
            self._tell_failure(number, client, reason, missing)

    def _tell_failure(self, number: int, client: str, reason: str, missing: Missing) -> None:
        event = "cancelled" if missing == "cancelled" else "failed"
        self._say(event, round=number, client=client, reason=reason, missing=missing)

    def _seconds(self, kind: Kind, arrays: ArrayRecord) -> WallSeconds:
        """Return how long the clients that are chosen have."""
        megabytes = sum(len(array.data) for array in arrays.values()) / 1e6
        if kind == "train":
            images = [(member.client, member.samples) for member in self._chosen]
            return self._deadlines.training(images, megabytes)
        return self._deadlines.evaluation([member.client for member in self._chosen], megabytes)
