"""A ServerApp's connection to its SuperLink: messages and replies as bundles.

Flower's own takes a request for each object, and waits a second whenever it finds a reply whose
arrays are still on their way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPConnection
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.server.superlink.linkstate.utils import NODE_UNAVAILABLE_ERROR_REASON
from flwr.serverapp import Grid
from flwr.supercore.constant import TASK_TOKEN_HEADER

from fedbench.flower import messages as flower_messages
from fedbench.flower.bundles import (
    HOLD_HEADER,
    RUNTIME_OBJECTS,
    RUNTIME_PULL,
    RUNTIME_PUSH,
    RUNTIME_WITHDRAW,
    Connection,
)
from fedbench.flower.messages import is_from_a_lost_node, object_ids

_PATIENCE_SECONDS = 5.0  # SuperLink is in the same container
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class LostObjectError(Exception):
    """An object of a reply will not come any more."""


class Arrival(NamedTuple):
    """A reply that is there: the message that it answers, and its own tree.

    A reply for a dead node comes from SuperLink itself: only the message that it answers tells
    which node it stands for.
    """

    reply_to: str
    tree: ObjectTree


def pack(messages: Sequence[Message]) -> list[bytes]:
    """Return the messages as the parts of a bundle, for `push`."""
    trees, contents = flower_messages.deflate(messages)
    envelopes = [message_to_proto(remove_content_from_message(message)) for message in messages]
    question = PushAppMessagesRequest(messages_list=envelopes, message_object_trees=trees)
    return [question.SerializeToString(), *contents.values()]


class RuntimeConnection:
    """Asks what a ServerApp may ask, in the name of the grid that Flower gave it.

    Its methods raise OSError and HTTPException if SuperLink is gone, RefusedError if it refuses.
    """

    def __init__(self, grid: Grid) -> None:
        internal = cast("Any", grid)
        self._headers = {TASK_TOKEN_HEADER: internal._token}
        self._connection = Connection(lambda: HTTPConnection(internal._addr), _PATIENCE_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def push(self, packed: Sequence[bytes]) -> Sequence[str]:
        """Send messages; return an id of each, empty if its node signed off."""
        (answer,) = self._post(RUNTIME_PUSH, packed)
        return cast("Sequence[str]", PushAppMessagesResponse.FromString(answer).message_ids)

    def pull(self, message_ids: Sequence[str], hold: float) -> list[Arrival]:
        """Return the replies to the messages that are there by now, each of them once.

        Where there is none, SuperLink may wait for one, but no longer than `hold` seconds.
        """
        question = PullAppMessagesRequest(message_ids=message_ids).SerializeToString()
        if not (parts := self._post(RUNTIME_PULL, [question], {HOLD_HEADER: f"{hold:.3f}"})):
            return []
        answer = PullAppMessagesResponse.FromString(parts[0])
        pairs = zip(answer.messages_list, answer.message_object_trees, strict=True)
        return [Arrival(envelope.metadata.reply_to_message_id, tree) for envelope, tree in pairs]

    def contents(self, reply: Arrival) -> dict[str, bytes] | None:
        """Return the contents of a reply's objects, once; None while some are still on their way.

        Raises:
            LostObjectError: one of them is gone, because its client died amid its upload.
        """
        ids = object_ids([reply.tree])
        message_id: str = reply.tree.object_id
        parts = self._post(RUNTIME_OBJECTS, [message_id.encode(), " ".join(ids).encode()])
        if not parts:
            raise LostObjectError
        return dict(zip(ids, parts, strict=True)) if all(parts) else None

    def withdraw(self, message_ids: Iterable[str], replies: Iterable[Arrival]) -> None:
        """Let SuperLink forget messages, with their replies, and replies that were pulled."""
        roots = (reply.tree.object_id for reply in replies)
        self._post(RUNTIME_WITHDRAW, [" ".join(message_ids).encode(), " ".join(roots).encode()])

    def _post(
        self, path: str, parts: Sequence[bytes], more: Mapping[str, str] = _NO_HEADERS
    ) -> list[bytes]:
        headers = {**self._headers, **more}
        return list(self._connection.post(path, parts, lambda: headers).parts())


def is_unexplained(reply: Message) -> bool:
    """Return whether the reply stands in place of a node that is gone, and only Flower says why.

    It says of each such node that it was not heard of, also of one that has unregistered.
    """
    return is_from_a_lost_node(reply) and reply.error.reason == NODE_UNAVAILABLE_ERROR_REASON
