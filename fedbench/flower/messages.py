"""Flower's messages: apart and together again, as errors, and who makes them.

Flower keeps a message as a tree of objects: records, arrays, and chunks of arrays. An object's id
is the hash of its content.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

from flwr.app import Array, Error, Message, MessageType
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    get_object_type_from_object_content,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

_NO_ARRAYS: Mapping[str, Array] = MappingProxyType({})


class Deflated(NamedTuple):
    """Messages as they travel: their trees, and each object's content once, children first."""

    trees: list[ObjectTree]
    contents: dict[str, bytes]


class Inflated(NamedTuple):
    """A message, and its arrays by object id."""

    message: Message
    arrays: dict[str, Array]


def deflate(messages: Iterable[Message]) -> Deflated:
    """Give each message the id that its content has, and take it apart."""
    trees: list[ObjectTree] = []
    objects: dict[str, InflatableObject] = {}
    with no_object_id_recompute():
        for message in messages:
            _set_id(message, message.object_id)
            trees.append(get_object_tree(message))
            objects |= get_all_nested_objects(message)
        contents = {object_id: item.deflate() for object_id, item in objects.items()}
    return Deflated(trees, {object_id: contents[object_id] for object_id in object_ids(trees)})


def inflate(
    tree: ObjectTree, contents: Mapping[str, bytes], known: Mapping[str, Array] = _NO_ARRAYS
) -> Inflated:
    """Put a message together; `known` has the arrays whose contents are left out."""
    objects: dict[str, InflatableObject] = dict(known)
    message = inflate_object_from_contents(tree.object_id, dict(contents), objects=objects)
    _set_id(message, tree.object_id)
    arrays = {
        object_id: objects[object_id]
        for object_id in object_ids([tree])
        if isinstance(objects.get(object_id), Array)
    }
    return Inflated(cast("Message", message), arrays)


def _set_id(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def object_ids(trees: Iterable[ObjectTree], without: Collection[str] = ()) -> list[str]:
    """Return the ids of the trees' objects, children first: the order that a bundle has them in.

    Objects in `without`, and what only they need, are left out.
    """
    ids: dict[str, None] = {}
    for tree in trees:
        if tree.object_id not in without:
            ids |= dict.fromkeys(object_ids(tree.children, without)) | {tree.object_id: None}
    return list(ids)


def carry_arrays(contents: Iterable[bytes]) -> bool:
    """Return whether an array, as of a model, is among the contents."""
    return any(get_object_type_from_object_content(content) == "Array" for content in contents)


def emptied(message: Message) -> Message:
    """Return a message without its content, that can be replied to all the same."""
    return cast("Message", remove_content_from_message(message))


def app_error(message: Message, reason: str) -> Message:
    """Return the reply of a node whose ClientApp raised an exception."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def refused(message: Message, problem: str) -> Message:
    """Return the reply in place of one that is not kept, because of a problem that it has."""
    return app_error(message, f"{refusal(message.metadata.message_type)}: {problem}")


def refusal(message_type: str) -> str:
    """Return how the reason begins for which a reply to such a message is not kept."""
    return "refused update" if message_type == MessageType.TRAIN else "refused reply"


def lost_node_error(message: Message, reason: str) -> Message:
    """Return the reply in place of a node that is gone."""
    return Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)


def is_from_a_lost_node(reply: Message) -> bool:
    """Return whether the reply stands in place of a node that is gone."""
    return bool(reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE)


def expired(reply: Message) -> bool:
    """Return whether the reply stands in place of one that came too late, or never will."""
    late = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
    return bool(reply.has_error() and reply.error.code in late)


def crashed(reply: Message) -> bool:
    """Return whether the reply tells of a stock node's process for a message that died."""
    return bool(reply.has_error() and reply.error.code == ErrorCode.CLIENT_APP_CRASHED)


def identify(run_id: int, node_id: int = 1, task_id: int = 1) -> None:
    """Let this process make messages, as Flower does for the process of a run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, task_id
