"""Flower's Grid with a deadline, a quick poll and an ear for the user's wish to stop.

Flower's own `send_and_receive` looks for replies every 3 s, and holds all of them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException

from flwr.app import Message
from flwr.serverapp import Grid

from fedbench.flower import runtime
from fedbench.flower.bundles import RefusedError
from fedbench.flower.messages import emptied, inflate, lost_node_error, refused
from fedbench.flower.runtime import Arrival, LostObjectError, RuntimeConnection
from fedbench.flower.whole import require_whole
from fedbench.server.exchange import Replies, RunStopped, ServerPart
from fedbench.telemetry.timing import Timing
from fedbench.wire import SIGNED_OFF

POLL_SECONDS = 0.05  # the server holds back its answer while there is no reply
_NOT_WHOLE = "its reply did not arrive whole"
# A reply's arrays: so many times what was sent, as an app may add to the model what it likes.
_MOST_MODELS = 4
_SMALL_BYTES = 2**20


@dataclass
class _Question:
    """A message that was sent, without its content; `arrival` is what came of its reply so far."""

    envelope: Message
    most_bytes: int
    """How many bytes the arrays of a reply may have."""
    arrival: Arrival | None = None


_Questions = dict[str, _Question]  # by the message's id


class PromptGrid:
    """Sends messages over a Flower Grid and yields the replies as they come, one at a time."""

    def __init__(self, grid: Grid, stopped: Callable[[], bool]) -> None:
        self.flower = grid
        self.timing = Timing[ServerPart]()
        self._stopped = stopped
        self._superlink = RuntimeConnection(grid)
        self._waiting: _Questions = {}  # of the exchange that goes on
        self._late: _Questions = {}
        self._asked: _Questions = {}
        self._gone: list[Message] = []  # asked of nodes that had signed off
        self._closed = False

    def close(self) -> None:
        """Withdraw what is open, and close its connection to SuperLink."""
        self._withdraw(self._waiting | self._late | self._asked)
        self._superlink.close()
        self._closed = True

    def node_ids(self) -> list[int]:
        """Return the nodes that are connected now."""
        return list(self.flower.get_node_ids())

    def pause(self, seconds: float) -> None:
        """Sleep, as `Exchange` has it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._heed()
            time.sleep(min(left, POLL_SECONDS))

    def _heed(self) -> None:
        if self._stopped():
            raise RunStopped

    def exchange(
        self, messages: Iterable[Message], timeout: float, *, keep_late: bool = False
    ) -> Replies:
        """Exchange messages, as `Exchange` has it."""
        sent, gone = self._send(messages)
        deadline = time.monotonic() + timeout  # of the clients: they have their messages now
        waiting = self._waiting = sent | self._late if keep_late else sent
        needed = set(sent or waiting)
        try:
            for message in gone:
                yield _failure(message, SIGNED_OFF)
            while needed & waiting.keys():
                left = max(deadline - time.monotonic(), 0.0)
                self._look(waiting, left)
                yield from self._whole(waiting)
                if not left:
                    break
            for message_id, question in list(waiting.items()):
                if question.arrival:
                    self._withdraw({message_id: waiting.pop(message_id)})
                    yield _failure(question.envelope, _NOT_WHOLE)
        finally:
            self._waiting = {}
            if keep_late:
                self._late = waiting
            else:
                self._withdraw(waiting)

    def ask(self, messages: Iterable[Message]) -> None:
        """Send messages, as `Exchange` has it."""
        messages = list(messages)
        nodes = {message.metadata.dst_node_id for message in messages}
        before = {key: q for key, q in self._asked.items() if _node(q.envelope) in nodes}
        self._withdraw(before)
        sent, gone = self._send(messages)
        kept = {key: q for key, q in self._asked.items() if key not in before}
        self._asked = kept | sent
        self._gone += gone

    def answers(self) -> Iterator[tuple[int, Message]]:
        """Yield replies, as `Exchange` has it."""
        while self._gone:
            yield _failure(self._gone.pop(), SIGNED_OFF)
        if self._asked:
            self._look(self._asked, 0.0)
            yield from self._whole(self._asked)

    def _look(self, waiting: _Questions, seconds: float) -> None:
        """Note what has arrived since; wait a little for it, where there is time."""
        missing = [key for key, question in waiting.items() if question.arrival is None]
        arrivals = self._superlink.pull(missing, seconds) if missing else []
        if not arrivals:
            self.pause(min(POLL_SECONDS, seconds))
        for arrival in arrivals:
            waiting[arrival.reply_to].arrival = arrival

    def _whole(self, waiting: _Questions) -> Iterator[tuple[int, Message]]:
        """Yield the replies that are there whole; they are waited for no more."""
        for message_id, question in list(waiting.items()):
            if question.arrival is None:
                continue
            self._heed()
            if reply := self._reply(question, question.arrival):
                del waiting[message_id]
                yield _node(question.envelope), reply

    def _send(self, messages: Iterable[Message]) -> tuple[_Questions, list[Message]]:
        """Return what was sent, and what SuperLink took not: its node has signed off."""
        messages = list(messages)
        sent: _Questions = {}
        gone: list[Message] = []
        for message_id, message in zip(self._push(messages), messages, strict=True):
            envelope = emptied(message)
            if message_id:
                sent[message_id] = _Question(envelope, _most_bytes(message))
            else:
                gone.append(envelope)
        return sent, gone

    def _push(self, messages: Sequence[Message]) -> Sequence[str]:
        """Return the messages' ids, empty where SuperLink did not take one."""
        if not messages:
            return []
        with self.timing.measure("pack"):
            packed = runtime.pack(messages)
        with self.timing.measure("send"):
            return self._superlink.push(packed)

    def _withdraw(self, questions: _Questions) -> None:
        """Let SuperLink forget messages; a SuperLink that is gone has."""
        arrivals = [question.arrival for question in questions.values() if question.arrival]
        if questions and not self._closed:
            with suppress(OSError, HTTPException, RefusedError):
                self._superlink.withdraw(questions, arrivals)

    def _reply(self, question: _Question, arrival: Arrival) -> Message | None:
        """Return the reply to a message; None while it is not whole yet."""
        with self.timing.measure("receive"):
            try:
                contents = self._superlink.contents(arrival)
            except LostObjectError:
                return lost_node_error(question.envelope, _NOT_WHOLE)
        if contents is None:
            return None
        with self.timing.measure("unpack"):
            return _unpacked(question, arrival, contents)


def _unpacked(question: _Question, arrival: Arrival, contents: dict[str, bytes]) -> Message:
    """Return what a reply says; one that cannot be put together is an error of its client."""
    try:
        require_whole(arrival.tree, contents, question.most_bytes)
        return inflate(arrival.tree, contents).message
    except Exception as error:  # a client may send what Flower never thought of
        return refused(question.envelope, str(error) or type(error).__name__)


def _most_bytes(message: Message) -> int:
    arrays = [
        array for record in message.content.array_records.values() for array in record.values()
    ]
    return _MOST_MODELS * sum(len(array.data) for array in arrays) + _SMALL_BYTES


def _failure(envelope: Message, reason: str) -> tuple[int, Message]:
    return _node(envelope), lost_node_error(envelope, reason)


def _node(envelope: Message) -> int:
    return envelope.metadata.dst_node_id
