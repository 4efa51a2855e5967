"""Checks that a message which somebody else sent is whole, before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_object_head_values_from_object_content,
    get_object_id,
)
from flwr.supercore.inflatable.inflatable_utils import validate_object_content

from fedbench.flower.messages import object_ids

_RECORDS = ("ArrayRecord", "ConfigRecord", "MetricRecord")
# What the children of an object may be.
_BELOW: Mapping[str, Sequence[str]] = {
    "": ("Message",),
    "Message": ("RecordDict",),
    "RecordDict": _RECORDS,
    "ArrayRecord": ("Array",),
    "Array": ("ArrayChunk",),
}


class NotWholeError(ValueError):
    """A message lacks something, or is not what it says; says what."""


def require_whole_push(question: PushMessagesRequest, contents: Sequence[bytes]) -> None:
    """Check one reply of a node and its objects' contents, children first.

    Raises:
        NotWholeError: it is not whole, or not this node's.
    """
    require_one_reply(question)
    trees = question.message_object_trees
    ids = object_ids(trees)
    if len(contents) != len(ids):
        raise NotWholeError(f"{len(contents)} objects came, expected {len(ids)}")
    for object_id, content in zip(ids, contents, strict=True):
        if get_object_id(content) != object_id:
            raise NotWholeError(f"object {object_id[:12]} is not what its id says")
    require_whole(trees[0], dict(zip(ids, contents, strict=True)))


def require_one_reply(question: PushMessagesRequest) -> None:
    """Check that a push is of one reply, and its sender's.

    Raises:
        NotWholeError: it is not.
    """
    envelopes, trees = question.messages_list, question.message_object_trees
    if (len(envelopes), len(trees)) != (1, 1):
        raise NotWholeError(
            f"{len(envelopes)} messages with {len(trees)} trees of objects came, expected one"
        )
    metadata, tree = envelopes[0].metadata, trees[0]
    if metadata.src_node_id != question.node.node_id:
        raise NotWholeError(
            f"node {question.node.node_id} sent it in the name of node {metadata.src_node_id}"
        )
    if metadata.message_id != tree.object_id:
        raise NotWholeError("its objects are another message's")


def require_whole(
    tree: ObjectTree, contents: Mapping[str, bytes], largest: int | None = None
) -> None:
    """Check that each object is well formed, of a kind that belongs there, and has its children.

    `largest` is how many bytes all arrays may have: an array may name one chunk a million times.

    Raises:
        NotWholeError: one is not, or the arrays are larger.
    """
    size = _checked_size(tree, contents, "")
    if largest is not None and size > largest:
        raise NotWholeError(f"its arrays have {size} bytes, expected {largest} at the most")


def _checked_size(tree: ObjectTree, contents: Mapping[str, bytes], parent: str) -> int:
    """Return how many bytes the arrays of a tree will have; `parent` is the kind above it."""
    content = contents[tree.object_id]
    try:
        validate_object_content(content)
    except UnexpectedObjectContentError as error:
        raise NotWholeError(str(error)) from None
    kind, children, _ = get_object_head_values_from_object_content(content)
    if kind not in _BELOW.get(parent, ()):
        raise NotWholeError(f"an object of kind {kind} is no part of {parent or 'a bundle'}")
    if children != [child.object_id for child in tree.children]:
        raise NotWholeError(f"an object of kind {kind} has other parts than it names")
    below = sum(_checked_size(child, contents, kind) for child in tree.children)
    return (
        _array_size(content, [contents[child] for child in children]) if kind == "Array" else below
    )


def _array_size(content: bytes, chunks: Sequence[bytes]) -> int:
    """Return how many bytes an array will have; it may name a chunk more than once."""
    try:
        said = json.loads(content[content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :])
        sizes = [get_object_head_values_from_object_content(chunk)[2] for chunk in chunks]
        return sum(sizes[number] for number in said["arraychunk_ids"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise NotWholeError(f"an array does not say what it is made of: {error}") from None
