"""The rounds of one run: wait for clients, train, aggregate, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from fedbench.config import Experiment
from fedbench.records import ClientRound, RoundRecord
from fedbench.server.directory import Directory, Member, Say
from fedbench.server.grid import PromptGrid
from fedbench.server.selection import select

WAIT_POLL_SECONDS = 0.5
SAY_SECONDS = 10.0


class Rounds:
    """Runs rounds one by one. `say(event, **facts)` tells whoever watches."""

    def __init__(
        self,
        experiment: Experiment,
        expected: int,
        grid: PromptGrid,
        directory: Directory,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._experiment = experiment
        self._expected = expected
        self._grid = grid
        self._directory = directory
        self._say = say
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
            while len(members := self._directory.connected()) < needed:
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
        tally = Tally(self._chosen, self._directory)
        grid = self._grid.flower

        messages = strategy.configure_train(number, arrays, config, grid)
        collecting = Stopwatch(self._replies(messages, tally.trained, "trained", number))
        aggregated, _ = strategy.aggregate_train(number, cast("list[Message]", collecting))
        aggregate_seconds = collecting.consumer_seconds()
        arrays = aggregated or arrays

        self._chosen = tally.survivors()
        messages = strategy.configure_evaluate(number, arrays, config, grid)
        strategy.aggregate_evaluate(
            number, list(self._replies(messages, tally.evaluated, "evaluated", number))
        )
        duration = time.monotonic() - start
        return arrays, tally.record(number, started_at, duration, aggregate_seconds)

    def _replies(
        self,
        messages: Iterable[Message],
        count: Callable[[int, Message], None],
        event: str,
        number: int,
    ) -> Iterator[Message]:
        """Good replies as they come; failures are counted and told, and the round goes on."""
        for node_id, reply in self._grid.exchange(messages, self._experiment.round_timeout_seconds):
            count(node_id, reply)
            client = self._directory.member(node_id).client
            if reply.has_error():
                self._say("failed", round=number, client=client, reason=reply.error.reason)
            else:
                metrics = reply.content["metrics"]
                figures = {key: metrics[key] for key in ("loss", "accuracy") if key in metrics}
                seconds = sum(metrics.get("epoch-seconds", [metrics.get("evaluate-seconds", 0.0)]))
                self._say(event, round=number, client=client, seconds=seconds, **figures)
                yield reply


class Stopwatch:
    """An iterator that knows how long its consumer took between items."""

    def __init__(self, items: Iterator[Message]) -> None:
        self._items = items
        self._waited = 0.0
        self._start = time.monotonic()

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        began = time.monotonic()
        try:
            return next(self._items)
        finally:
            self._waited += time.monotonic() - began

    def consumer_seconds(self) -> float:
        """Seconds since the start that were not spent waiting for items."""
        return time.monotonic() - self._start - self._waited


class Tally:
    """What each client of one round reported."""

    def __init__(self, members: Iterable[Member], directory: Directory) -> None:
        self._members = list(members)
        self._directory = directory
        self._figures: dict[str, dict[str, Any]] = {
            m.client: {"client": m.client, "device": m.device} for m in self._members
        }
        self._answered: set[tuple[str, str]] = set()

    def survivors(self) -> list[Member]:
        """Those that trained: whoever failed to would only be waited for once more."""
        return [member for member in self._members if "samples" in self._figures[member.client]]

    def trained(self, node_id: int, reply: Message) -> None:
        """Counts a reply to a train message."""
        if (metrics := self._metrics("train", node_id, reply)) is None:
            return
        figures = self._figures[self._directory.member(node_id).client]
        figures |= {
            "epoch_seconds": metrics.get("epoch-seconds", []),
            "samples": metrics["num-examples"],
            "local_loss": metrics.get("loss"),
            "local_accuracy": metrics.get("accuracy"),
            "cpu_seconds": metrics["cpu-seconds"],
            "throttled_seconds": metrics["throttled-seconds"],
        }

    def evaluated(self, node_id: int, reply: Message) -> None:
        """Counts a reply to an evaluate message."""
        if (metrics := self._metrics("evaluate", node_id, reply)) is None:
            return
        self._figures[self._directory.member(node_id).client] |= {
            "evaluate_seconds": metrics.get("evaluate-seconds"),
            "server_loss": metrics.get("loss"),
            "server_accuracy": metrics.get("accuracy"),
            "test_samples": metrics["num-examples"],
        }

    def _metrics(self, kind: str, node_id: int, reply: Message) -> dict[str, Any] | None:
        client = self._directory.member(node_id).client
        figures = self._figures[client]
        self._answered.add((kind, client))
        if reply.has_error():
            figures["error"] = f"{kind}: {reply.error.reason}"
            return None
        metrics: dict[str, Any] = dict(reply.content["metrics"])
        for key in ("bytes_sent", "bytes_received"):
            if (value := metrics.get(key.replace("_", "-"))) is not None:
                figures[key] = figures.get(key, 0) + value
        figures["peak_memory_bytes"] = metrics["peak-memory-bytes"]
        return metrics

    def record(
        self, number: int, started_at: str, duration: float, aggregate_seconds: float
    ) -> RoundRecord:
        """The round's record; clients that never answered are marked late."""
        for client, figures in self._figures.items():
            for kind in ("train", "evaluate"):
                if (kind, client) not in self._answered:
                    figures.setdefault("error", f"{kind}: no answer before the round's timeout")
        weights = {client: f.pop("test_samples", 0) for client, f in self._figures.items()}
        clients = [ClientRound(**figures) for figures in self._figures.values()]
        busy = [sum(c.epoch_seconds) + (c.evaluate_seconds or 0) for c in clients]
        return RoundRecord(
            round=number,
            started_at=started_at,
            server_accuracy=_mean(clients, weights, "server_accuracy"),
            server_loss=_mean(clients, weights, "server_loss"),
            server_epoch_seconds=max(
                (c.evaluate_seconds for c in clients if c.evaluate_seconds is not None),
                default=None,
            ),
            duration_seconds=duration,
            overhead_seconds=duration - max(busy, default=0.0),
            aggregate_seconds=aggregate_seconds,
            clients=clients,
        )


def _mean(clients: list[ClientRound], weights: dict[str, int], field: str) -> float | None:
    """The mean over the clients that reported it, weighted by their test images."""
    known = [(getattr(c, field), weights[c.client]) for c in clients]
    known = [(value, weight) for value, weight in known if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
