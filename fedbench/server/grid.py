"""Flower's Grid with a deadline, a quick poll and an ear for the user's wish to stop.

Messages and replies travel as bundles (see fedbench/flower/bundles.py), the replies one at a time.
Flower's own `send_and_receive` looks for replies every 3 s, takes a request for each object, and
waits a second whenever it finds a reply whose arrays are still on their way. Uses internals: exact
pin, contract test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import HTTPConnection
from typing import Any, cast

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedbench.flower import bundles
from fedbench.flower.bundles import RUNTIME_OBJECTS, RUNTIME_PULL, RUNTIME_PUSH
from fedbench.server.exchange import RunStopped, ServerPart
from fedbench.telemetry.timing import Timing

POLL_SECONDS = 0.05  # the server holds back its answer while there is no reply
_OBJECT_BACKOFF_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0  # SuperLink is in the same container


class PromptGrid:
    """Sends messages over a Flower Grid and yields the replies as they come."""

    def __init__(self, grid: Grid, stopped: Callable[[], bool]) -> None:
        self.flower = grid
        self.timing = Timing[ServerPart]()
        self._stopped = stopped
        internal = cast("Any", grid)
        self._headers = {TASK_TOKEN_HEADER: internal._token}
        self._superlink = bundles.Connection(
            lambda: HTTPConnection(internal._addr), _PATIENCE_SECONDS
        )

    def close(self) -> None:
        """Closes its connection to SuperLink."""
        self._superlink.close()

    def node_ids(self) -> list[int]:
        """The nodes that are connected now."""
        return list(self.flower.get_node_ids())

    def pause(self, seconds: float) -> None:
        """As `Exchange` has it."""
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
        """As `Exchange` has it."""
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
            answers = self._pull(list(waiting))
            if not answers:
                self.pause(POLL_SECONDS)
            for envelope, tree in answers:
                self._heed()
                # A reply for a dead node comes from SuperLink itself: only the message it
                # answers tells which node it stands for.
                message = waiting.pop(envelope.metadata.reply_to_message_id)
                if reply := self._reply(envelope.metadata.message_id, tree, deadline):
                    yield message.metadata.dst_node_id, reply
                else:
                    yield _failure(message, "its reply did not arrive whole")

    def _push(self, messages: Sequence[Message]) -> Sequence[str]:
        """The messages' ids; empty where SuperLink did not take one."""
        if not messages:
            return []
        with self.timing.measure("pack"):
            trees, contents = bundles.deflate(messages)
            envelopes = [message_to_proto(remove_content_from_message(m)) for m in messages]
            question = PushAppMessagesRequest(messages_list=envelopes, message_object_trees=trees)
        with self.timing.measure("send"):
            answer = self._post(RUNTIME_PUSH, [question.SerializeToString(), *contents.values()])
        return cast("Sequence[str]", PushAppMessagesResponse.FromString(answer[0]).message_ids)

    def _pull(self, message_ids: Sequence[str]) -> list[tuple[ProtoMessage, ObjectTree]]:
        """What came in reply to the messages, without content."""
        question = PullAppMessagesRequest(message_ids=message_ids)
        if not (parts := self._post(RUNTIME_PULL, [question.SerializeToString()])):
            return []
        answer = PullAppMessagesResponse.FromString(parts[0])
        return list(zip(answer.messages_list, answer.message_object_trees, strict=True))

    def _reply(self, message_id: str, tree: ObjectTree, deadline: float) -> Message | None:
        """A reply with its content; None where a client died amid its upload."""
        with self.timing.measure("receive"):
            if (contents := self._contents(message_id, tree, deadline)) is None:
                return None
        with self.timing.measure("unpack"):
            message = cast("Message", inflate_object_from_contents(message_id, contents))
            message.metadata.__dict__["_message_id"] = message_id
            return message

    def _contents(
        self, message_id: str, tree: ObjectTree, deadline: float
    ) -> dict[str, bytes] | None:
        contents = dict.fromkeys(bundles.object_ids([tree]), b"")
        while missing := [object_id for object_id, content in contents.items() if not content]:
            parts = self._post(RUNTIME_OBJECTS, [message_id.encode(), " ".join(missing).encode()])
            if not parts or time.monotonic() > deadline:
                return None
            contents |= zip(missing, parts, strict=True)
            if not all(parts):
                self.pause(_OBJECT_BACKOFF_SECONDS)
        return contents

    def _post(self, path: str, parts: Sequence[bytes]) -> list[bytes]:
        return list(self._superlink.post(path, parts, lambda: self._headers).parts())


def _failure(message: Message, reason: str) -> tuple[int, Message]:
    error = Error(code=ErrorCode.NODE_UNAVAILABLE, reason=reason)
    return message.metadata.dst_node_id, Message(error, reply_to=message)
