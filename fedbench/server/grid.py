"""Flower's Grid with a deadline, a quick poll and an ear for the user's wish to stop.

Flower's own `send_and_receive` looks for replies every 3 s, and holds all of them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from fedbench.flower import runtime
from fedbench.flower.messages import inflate, lost_node_error, refused
from fedbench.flower.runtime import Arrival, LostObjectError, RuntimeConnection
from fedbench.flower.whole import require_whole
from fedbench.server.exchange import RunStopped, ServerPart
from fedbench.telemetry.timing import Timing

POLL_SECONDS = 0.05  # the server holds back its answer while there is no reply
_NOT_WHOLE = "its reply did not arrive whole"
# A reply's arrays: so many times what was sent, as an app may add to the model what it likes.
_MOST_MODELS = 4
_SMALL_BYTES = 2**20


class PromptGrid:
    """Sends messages over a Flower Grid and yields the replies as they come, one at a time."""

    def __init__(self, grid: Grid, stopped: Callable[[], bool]) -> None:
        self.flower = grid
        self.timing = Timing[ServerPart]()
        self._stopped = stopped
        self._superlink = RuntimeConnection(grid)

    def close(self) -> None:
        """Close its connection to SuperLink."""
        self._superlink.close()

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
        self, messages: Iterable[Message], timeout: float
    ) -> Iterator[tuple[int, Message]]:
        """Exchange messages, as `Exchange` has it."""
        messages = list(messages)
        ids = self._push(messages)
        deadline = time.monotonic() + timeout  # of the clients: they have their messages now
        waiting: dict[str, Message] = {}
        for message_id, message in zip(ids, messages, strict=True):
            if message_id:
                waiting[message_id] = message
            else:  # SuperLink takes no message for a node that signed off
                yield _failure(message, "the client left the federation")
        arrived: dict[str, Arrival] = {}  # but maybe not whole yet
        while waiting and time.monotonic() < deadline:
            self._look(waiting, arrived)
            for message_id, arrival in list(arrived.items()):
                self._heed()
                message = waiting[message_id]
                if reply := self._reply(message, arrival):
                    del waiting[message_id], arrived[message_id]
                    yield message.metadata.dst_node_id, reply
        for message_id in arrived:
            yield _failure(waiting[message_id], _NOT_WHOLE)

    def _look(self, waiting: Mapping[str, Message], arrived: dict[str, Arrival]) -> None:
        """Add what has arrived since; sleep for a moment if nothing has."""
        missing = [message_id for message_id in waiting if message_id not in arrived]
        arrivals = self._superlink.pull(missing) if missing else []
        if not arrivals:
            self.pause(POLL_SECONDS)
        arrived |= {arrival.reply_to: arrival for arrival in arrivals}

    def _push(self, messages: Sequence[Message]) -> Sequence[str]:
        """Return the messages' ids, empty where SuperLink did not take one."""
        if not messages:
            return []
        with self.timing.measure("pack"):
            packed = runtime.pack(messages)
        with self.timing.measure("send"):
            return self._superlink.push(packed)

    def _reply(self, message: Message, arrival: Arrival) -> Message | None:
        """Return the reply to a message; None while it is not whole yet."""
        with self.timing.measure("receive"):
            try:
                contents = self._superlink.contents(arrival)
            except LostObjectError:
                return lost_node_error(message, _NOT_WHOLE)
        if contents is None:
            return None
        with self.timing.measure("unpack"):
            return _unpacked(message, arrival, contents)


def _unpacked(message: Message, arrival: Arrival, contents: dict[str, bytes]) -> Message:
    """Return what a reply says; one that cannot be put together is an error of its client."""
    arrays = [
        array for record in message.content.array_records.values() for array in record.values()
    ]
    largest = _MOST_MODELS * sum(len(array.data) for array in arrays) + _SMALL_BYTES
    try:
        require_whole(arrival.tree, contents, largest)
        return inflate(arrival.tree, contents).message
    except Exception as error:  # a client may send what Flower never thought of
        return refused(message, str(error) or type(error).__name__)


def _failure(message: Message, reason: str) -> tuple[int, Message]:
    return message.metadata.dst_node_id, lost_node_error(message, reason)
