from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree

from fedbench.flower.messages import (
    app_error,
    deflate,
    inflate,
    is_from_a_lost_node,
    lost_node_error,
    object_ids,
)

WEIGHTS = np.arange(10_000, dtype=np.float32)


def tree(name: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=name, children=children)


def test_objects_come_children_first_and_once() -> None:
    shared = tree("shared")

    assert object_ids([tree("a", tree("b", shared), shared), tree("c", shared)]) == [
        "shared", "b", "a", "c",
    ]  # fmt: skip


def test_what_is_there_is_left_out_with_what_only_it_needs() -> None:
    one = tree(
        "message", tree("array", tree("chunk"), tree("shared")), tree("other", tree("shared"))
    )

    assert object_ids([one], without=["array"]) == ["shared", "other", "message"]


def test_messages_are_taken_apart_into_what_makes_them_again() -> None:
    content = RecordDict({"arrays": ArrayRecord({"weights": Array(WEIGHTS)})})
    messages = [Message(content, node, "train") for node in (11, 22)]

    trees, contents = deflate(messages)

    assert [tree.object_id for tree in trees] == [m.metadata.message_id for m in messages]
    assert list(contents) == object_ids(trees)
    assert sum(len(content) > WEIGHTS.nbytes for content in contents.values()) == 1
    for message, its_tree in zip(messages, trees, strict=True):
        again, arrays = inflate(its_tree, contents)
        assert again.metadata.message_id == message.metadata.message_id
        assert again.metadata.dst_node_id == message.metadata.dst_node_id
        assert np.array_equal(again.content["arrays"]["weights"].numpy(), WEIGHTS)
        assert [array.numpy().size for array in arrays.values()] == [WEIGHTS.size]


def test_an_array_that_is_there_is_not_needed_again() -> None:
    content = RecordDict({"arrays": ArrayRecord({"weights": Array(WEIGHTS)})})
    (its_tree,), contents = deflate([Message(content, 11, "train")])
    _, arrays = inflate(its_tree, contents)
    rest = {i: contents[i] for i in object_ids([its_tree], without=arrays)}

    again, kept = inflate(its_tree, rest, arrays)

    assert sum(map(len, rest.values())) < WEIGHTS.nbytes
    assert np.array_equal(again.content["arrays"]["weights"].numpy(), WEIGHTS)
    assert kept == arrays


@pytest.mark.parametrize(("error", "lost"), [(app_error, False), (lost_node_error, True)])
def test_an_error_reply_says_whether_its_node_is_gone(
    error: Callable[[Message, str], Message], lost: bool
) -> None:
    reply = error(Message(RecordDict(), 11, "train"), "out of memory")

    assert reply.error.reason == "out of memory"
    assert is_from_a_lost_node(reply) is lost
