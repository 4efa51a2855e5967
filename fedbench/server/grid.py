"""Flower's Grid with a deadline, a quick poll and an ear for the user's wish to stop.

Flower's own `send_and_receive` looks for replies every 3 s, and waits a second whenever it finds
a reply whose arrays are still on their way. Pulling uses internals: exact pin, contract test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)

POLL_SECONDS = 0.05  # the server holds back its answer while there is no reply
_OBJECT_BACKOFF_SECONDS = 0.05


class RunStopped(Exception):  # noqa: N818 (the user's wish, not an error)
    """The user asked to stop the run."""


class PromptGrid:
    """Sends messages over a Flower Grid and yields the replies as they come."""

    def __init__(self, grid: Grid, stopped: Callable[[], bool]) -> None:
        self.flower = grid
        self._stopped = stopped

    def node_ids(self) -> list[int]:
        """The nodes that are connected now."""
        return list(self.flower.get_node_ids())

    def pause(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            RunStopped: the user asked to stop.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopped():
                raise RunStopped
            time.sleep(min(left, POLL_SECONDS))

    def exchange(
        self, messages: Iterable[Message], timeout: float
    ) -> Iterator[tuple[int, Message]]:
        """Sends the messages; yields (node id, reply), first come first served.

        A reply may be an error, of a node that died as well. A node that has not answered after
        `timeout` seconds is given up: no reply is yielded for it.

        Raises:
            RunStopped: the user asked to stop.
        """
        messages = list(messages)
        ids = self.flower.push_messages(messages)
        deadline = time.monotonic() + timeout
        waiting: dict[str, Message] = {}
        for message_id, message in zip(ids, messages, strict=True):
            if message_id:
                waiting[message_id] = message
            else:  # SuperLink takes no message for a node that signed off
                yield _failure(message, "the client left the federation")
        while waiting and time.monotonic() < deadline:
            for message_id, reply in self._pull(list(waiting), deadline):
                # A reply for a dead node comes from SuperLink itself: only the message it
                # answers tells which node it stands for.
                message = waiting.pop(message_id)
                if reply:
                    yield message.metadata.dst_node_id, reply
                else:
                    yield _failure(message, "its reply did not arrive whole")
            if waiting:
                self.pause(POLL_SECONDS)

    def _pull(
        self, message_ids: list[str], deadline: float
    ) -> Iterator[tuple[str, Message | None]]:
        """What came in reply to the messages; None where a client died amid its upload."""
        grid = cast("Any", self.flower)
        client, run_id = grid._runtime_client, grid.run.run_id
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        pull = make_pull_object_fn_protobuf(client.PullObject, grid.node, run_id)
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            message_id, answered = proto.metadata.message_id, proto.metadata.reply_to_message_id
            try:
                contents = pull_objects(
                    [node.object_id for node in iterate_object_tree(tree)],
                    pull,
                    max_time=max(deadline - time.monotonic(), 0.0),
                    initial_backoff=_OBJECT_BACKOFF_SECONDS,
                    backoff_cap=0.5,
                )
            except ObjectPullError:
                yield answered, None
                continue
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=grid.node, run_id=run_id, message_object_id=message_id
                )
            )
            message = cast("Message", inflate_object_from_contents(message_id, contents))
            message.metadata.__dict__["_message_id"] = message_id
            yield answered, message


def _failure(message: Message, reason: str) -> tuple[int, Message]:
    error = Error(code=ErrorCode.NODE_UNAVAILABLE, reason=reason)
    return message.metadata.dst_node_id, Message(error, reply_to=message)
