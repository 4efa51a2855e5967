"""Flower's Grid without a network: messages go to worker processes, replies come as they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from math import inf
from typing import Any, NoReturn
from uuid import uuid4

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedbench.engines.in_process.workers import Workers
from fedbench.server.exchange import Replies, RunStopped, ServerPart
from fedbench.telemetry.timing import Timing

POLL_SECONDS = 0.2

_Futures = dict[Future[Message], int]  # with the node of each


class MemoryGrid(Grid):
    """The nodes are the workers' clients, all connected from the beginning to the end.

    It is what `fedbench.server` needs of a Grid (`Exchange`), and a Grid to any of Flower's
    strategies. `look` is called a few times a second while replies are waited for.
    """

    def __init__(
        self,
        workers: Workers,
        stopped: Callable[[], bool] = lambda: False,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.timing = Timing[ServerPart]()
        self._workers = workers
        self._stopped = stopped
        self._look = look
        self._sent: dict[str, Future[Message]] = {}
        self._late: _Futures = {}
        self._asked: _Futures = {}

    @property
    def flower(self) -> Grid:
        """Flower's own interface, which this grid has as well."""
        return self

    def node_ids(self) -> list[int]:
        """Return all clients."""
        return list(self._workers.node_ids)

    def pause(self, seconds: float) -> None:
        """Sleep, as `Exchange` has it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._heed()
            time.sleep(min(left, POLL_SECONDS))

    def exchange(
        self, messages: Iterable[Message], timeout: float, *, keep_late: bool = False
    ) -> Replies:
        """Exchange messages as `Exchange` has it, but yield replies in the messages' order.

        So a run tells the same events in the same order each time.
        What a node raises is its reply. A message that a worker has begun cannot be withdrawn: its
        reply is dropped.
        """
        waiting = self._submit(messages)
        needed = list(waiting)
        if keep_late:
            needed = needed or list(self._late)
            waiting |= self._late
        try:
            for future in self._ended(needed, timeout):
                yield waiting.pop(future), future.result()
                if keep_late:
                    yield from _done(waiting, but=needed)
        finally:
            if keep_late:
                self._late = waiting
            else:
                _cancel(waiting)

    def ask(self, messages: Iterable[Message]) -> None:
        """Send messages, as `Exchange` has it."""
        sent = self._submit(messages)
        before = {f: node for f, node in self._asked.items() if node in sent.values()}
        _cancel(before)
        self._asked = {f: node for f, node in self._asked.items() if f not in before} | sent

    def answers(self) -> Iterator[tuple[int, Message]]:
        """Yield replies, as `Exchange` has it."""
        self._heed()
        yield from _done(self._asked)

    def _submit(self, messages: Iterable[Message]) -> _Futures:
        return {self._workers.submit(m): m.metadata.dst_node_id for m in messages}

    def _ended(
        self, futures: Iterable[Future[Message]], timeout: float | None
    ) -> Iterator[Future[Message]]:
        deadline = inf if timeout is None else time.monotonic() + timeout
        for future in futures:
            self._heed()
            while not future.done() and time.monotonic() < deadline:
                self._heed()
                wait([future], POLL_SECONDS)
                self._look()
            if future.done():
                yield future

    def _heed(self) -> None:
        if self._stopped():
            self._workers.cancel()
            raise RunStopped

    # Flower's own interface.

    def set_run(self, run: Any) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> NoReturn:
        """SuperLink's record of the run: there is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a run in memory has no record in SuperLink")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to one client."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return all clients."""
        return self.node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        """Hand the messages to the workers, and return a name for each."""
        sent = {uuid4().hex: self._workers.submit(message) for message in messages}
        self._sent |= sent
        return list(sent)

    def pull_messages(self, message_ids: Iterable[str]) -> Sequence[Message]:
        """Return the replies to the named messages that are there."""
        ready = [name for name in message_ids if name in self._sent and self._sent[name].done()]
        return [self._sent.pop(name).result() for name in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Sequence[Message]:
        """Return all replies, or those that came within `timeout` seconds."""
        futures = [self._workers.submit(message) for message in messages]
        return [future.result() for future in self._ended(futures, timeout)]


def _done(
    futures: _Futures, but: Collection[Future[Message]] = ()
) -> Iterator[tuple[int, Message]]:
    """Yield the replies that are there; they are waited for no more."""
    for future in [future for future in futures if future not in but and future.done()]:
        yield futures.pop(future), future.result()


def _cancel(futures: _Futures) -> None:
    for future in futures:
        future.cancel()
