"""What a run needs of a Grid: its nodes, an exchange of messages, the user's wish, the time.

`grid.py` has it over the network, `fedbench.engines.in_process` in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Literal, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedbench.config import Experiment
from fedbench.records.facts import RunFacts
from fedbench.records.verdict import Emulation
from fedbench.server.replies import Asked
from fedbench.telemetry.timing import Timing
from fedbench.wire import TASK, ClientTask

# Packing and sending messages, receiving and unpacking replies.
ServerPart = Literal["pack", "send", "receive", "unpack"]


Replies = Generator[tuple[int, Message], None, None]


class RunStopped(Exception):  # noqa: N818 (the user's wish, not an error)
    """The user asked to stop the run."""


class Exchange(Protocol):
    """`flower` is the Grid as Flower's strategies know it; `timing` what became of the time."""

    @property
    def flower(self) -> Grid:
        """Flower's own interface."""

    @property
    def timing(self) -> Timing[ServerPart]:
        """Where the server's time went."""

    def node_ids(self) -> list[int]:
        """Return the nodes that are connected now."""

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            RunStopped: the user asked to stop.
        """

    def exchange(
        self, messages: Iterable[Message], timeout: float, *, keep_late: bool = False
    ) -> Replies:
        """Send the messages; yield (node id, reply), first come first served.

        A reply may be an error, of a node that died as well. The exchange ends after `timeout`
        seconds, or when it is closed. Messages that have no reply then are withdrawn: their nodes
        stop to work on them. With `keep_late` they stay, and the next exchange that has it yields
        their replies among its own; it does not wait for them, unless it has no messages.

        Raises:
            RunStopped: the user asked to stop.
        """

    def ask(self, messages: Iterable[Message]) -> None:
        """Send messages without waiting; each takes the place of an earlier one to its node."""

    def answers(self) -> Iterator[tuple[int, Message]]:
        """Yield (node id, reply) of those replies to what was asked that are there by now.

        Raises:
            RunStopped: the user asked to stop.
        """


class Questions:
    """What the clients of a run are asked, and what is expected of their replies."""

    def __init__(self, experiment: Experiment, facts: RunFacts, emulation: Emulation) -> None:
        self._experiment = experiment
        self._facts = facts
        self._emulation = emulation
        self._question = experiment.model_dump_json()

    def asking(
        self,
        messages: Iterable[Message],
        number: int,
        seconds: float,
        name_of: Callable[[int], str],
    ) -> Iterator[Message]:
        """Add to each message what its client is asked, whatever the strategy put into it.

        The client has so many `seconds`; `name_of(node_id)` is its name.
        """
        for message in messages:
            task = self._task(name_of(message.metadata.dst_node_id), number)
            content = RecordDict(dict(message.content))  # a strategy gives all messages the same
            content[TASK] = ConfigRecord(task.record())
            message.content = content
            message.metadata.ttl += seconds  # it is kept for as long, and half a day more
            yield message

    def asked(self, sent: ArrayRecord, samples: int | None) -> Asked:
        """Return what the reply of a client with so many images is measured by."""
        return Asked(sent, self._facts.classes, samples, self._experiment.task != "noop")

    def _task(self, client: str, number: int) -> ClientTask:
        return ClientTask(
            run=self._facts.run,
            round=number,
            classes=self._facts.classes,
            data=self._facts.data,
            pace=self._emulation.pace.get(client),
            experiment=self._question,
        )


class Stopwatch:
    """The replies of an exchange; it knows how long their consumer took between them."""

    def __init__(self, items: Iterator[Message]) -> None:
        self._items = items
        self._waited = 0.0
        self._start = time.monotonic()
        self._before_last = 0.0

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        began = time.monotonic()
        try:
            item = next(self._items)
        finally:
            self._waited += time.monotonic() - began
        self._before_last = self.consumer_seconds()
        return item

    def consumer_seconds(self) -> float:
        """Return the seconds since the start that were not spent waiting for items."""
        return time.monotonic() - self._start - self._waited

    def last_seconds(self) -> float:
        """Return those since the last item came: by then nobody works beside the consumer."""
        return self.consumer_seconds() - self._before_last
