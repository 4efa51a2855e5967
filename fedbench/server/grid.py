"""Flower's Grid with a deadline, a quick poll and an ear for the user's wish to stop.

Flower's own `send_and_receive` looks for replies every 3 s, and holds all of them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from fedbench.flower import runtime
from fedbench.flower.messages import inflate, lost_node_error, object_ids
from fedbench.flower.runtime import Arrival, RuntimeConnection
from fedbench.server.exchange import RunStopped, ServerPart
from fedbench.telemetry.timing import Timing

POLL_SECONDS = 0.05  # the server holds back its answer while there is no reply
_OBJECT_BACKOFF_SECONDS = 0.05


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
        while waiting and time.monotonic() < deadline:
            arrivals = self._superlink.pull(list(waiting))
            if not arrivals:
                self.pause(POLL_SECONDS)
            for arrival in arrivals:
                self._heed()
                message = waiting.pop(arrival.reply_to)
                if reply := self._reply(arrival, deadline):
                    yield message.metadata.dst_node_id, reply
                else:
                    yield _failure(message, "its reply did not arrive whole")

    def _push(self, messages: Sequence[Message]) -> Sequence[str]:
        """Return the messages' ids, empty where SuperLink did not take one."""
        if not messages:
            return []
        with self.timing.measure("pack"):
            packed = runtime.pack(messages)
        with self.timing.measure("send"):
            return self._superlink.push(packed)

    def _reply(self, arrival: Arrival, deadline: float) -> Message | None:
        """Return a reply with its content; None where a client died amid its upload."""
        with self.timing.measure("receive"):
            if (contents := self._contents(arrival, deadline)) is None:
                return None
        with self.timing.measure("unpack"):
            return inflate(arrival.tree, contents).message

    def _contents(self, arrival: Arrival, deadline: float) -> dict[str, bytes] | None:
        contents = dict.fromkeys(object_ids([arrival.tree]), b"")
        while missing := [object_id for object_id, content in contents.items() if not content]:
            parts = self._superlink.contents(arrival, missing)
            if not parts or time.monotonic() > deadline:
                return None
            contents |= zip(missing, parts, strict=True)
            if not all(parts):
                self.pause(_OBJECT_BACKOFF_SECONDS)
        return contents


def _failure(message: Message, reason: str) -> tuple[int, Message]:
    return message.metadata.dst_node_id, lost_node_error(message, reason)
