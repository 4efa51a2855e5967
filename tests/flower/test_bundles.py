from __future__ import annotations

import struct

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st

from fedbench.flower.bundles import deflate, object_ids, pack, unpack

WEIGHTS = np.arange(10_000, dtype=np.float32)


def tree(name: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=name, children=children)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_unpacked(parts: list[bytes]) -> None:
    assert unpack(b"".join(pack(parts))) == parts


def test_nothing_is_a_bundle_of_nothing() -> None:
    assert unpack(b"") == []


@pytest.mark.parametrize("length", [1, 8, 15, 19])
def test_half_a_bundle_is_none(length: int) -> None:
    with pytest.raises(struct.error):
        unpack(b"".join(pack([b"1234"]))[:length])


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
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    content = RecordDict({"arrays": ArrayRecord({"weights": Array(WEIGHTS)})})
    messages = [Message(content, node, "train") for node in (11, 22)]

    trees, contents = deflate(messages)

    assert [tree.object_id for tree in trees] == [m.metadata.message_id for m in messages]
    assert list(contents) == object_ids(trees)
    assert sum(len(content) > WEIGHTS.nbytes for content in contents.values()) == 1
    for message in messages:
        again = inflate_object_from_contents(message.metadata.message_id, dict(contents))
        assert isinstance(again, Message)
        assert again.metadata.dst_node_id == message.metadata.dst_node_id
        assert np.array_equal(again.content["arrays"]["weights"].numpy(), WEIGHTS)
