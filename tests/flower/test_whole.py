"""Messages as Flower takes them apart, spoiled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from hypothesis import given
from hypothesis import strategies as st

from fedbench.flower.messages import app_error, deflate
from fedbench.flower.whole import NotWholeError, require_whole

Contents = dict[str, bytes]
WEIGHTS = np.zeros(3_000_000, np.float32)  # three chunks, of which two are the same
MIB = 2**20


def message() -> Message:
    arrays = ArrayRecord({"weights": Array(WEIGHTS), "more": Array(WEIGHTS[:3])})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"number": 1})})
    return Message(content, 5, MessageType.TRAIN)


def apart(whole: Message) -> tuple[ObjectTree, Contents]:
    (tree,), contents = deflate([whole])
    return tree, contents


def made(kind: str, body: bytes = b"{}", *children: str) -> tuple[str, bytes]:
    content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\x00" + body
    return hashlib.sha256(content).hexdigest(), content


@pytest.mark.parametrize("largest", [None, 13 * MIB])
def test_what_flower_makes_is_whole(largest: int | None) -> None:
    require_whole(*apart(message()), largest)
    require_whole(*apart(app_error(message(), "out of memory")), largest)


def test_arrays_are_no_larger_than_they_may_be() -> None:
    with pytest.raises(NotWholeError, match="its arrays have 12000268 bytes, expected 12000267"):
        require_whole(*apart(message()), 12_000_267)


def test_a_chunk_that_is_named_a_million_times_counts_as_often() -> None:
    chunk_id, chunk = made("ArrayChunk", bytes(1000))
    body = json.dumps({"arraychunk_ids": [0] * 10**6}).encode()
    tree, contents = chain(made("Array", body, chunk_id), (chunk_id, chunk))

    with pytest.raises(NotWholeError, match="its arrays have 1000000000 bytes"):
        require_whole(tree, contents, MIB)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'{"arraychunk_ids": [7]}', b'{"arraychunk_ids": ["0"]}',
             b'{"arraychunk_ids": 1}', b"[" * 10**5, b"\xff"],
)  # fmt: skip
def test_an_array_that_does_not_say_what_it_is_made_of_is_not_whole(body: bytes) -> None:
    with pytest.raises(NotWholeError, match="an array does not say what it is made of"):
        require_whole(*chain(made("Array", body)))


def chain(*objects: tuple[str, bytes]) -> tuple[ObjectTree, Contents]:
    """A message with one object in another, of which the last is given."""
    contents = dict(objects)
    tree = None
    for object_id, _ in reversed(objects):
        tree = ObjectTree(object_id=object_id, children=[tree] if tree else [])
    for kind in ("ArrayRecord", "RecordDict", "Message"):
        assert tree is not None
        object_id, content = made(kind, b"{}", tree.object_id)
        contents[object_id] = content
        tree = ObjectTree(object_id=object_id, children=[tree])
    assert tree is not None
    return tree, contents


def _without_children(tree: ObjectTree, contents: Contents) -> None:
    del tree.children[0].children[:]


def _with_a_child_twice(tree: ObjectTree, contents: Contents) -> None:
    tree.children.append(tree.children[0])


def _of_an_unknown_kind(tree: ObjectTree, contents: Contents) -> None:
    contents[tree.object_id] = made("CustomDataClass")[1]


def _of_another_kind(tree: ObjectTree, contents: Contents) -> None:
    contents[tree.object_id] = made("ArrayChunk")[1]


def _without_a_head(tree: ObjectTree, contents: Contents) -> None:
    contents[tree.object_id] = b"no divider"


def _of_another_length(tree: ObjectTree, contents: Contents) -> None:
    contents[tree.children[0].object_id] += b" "


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_without_children, "an object of kind RecordDict has other parts than it names"),
        (_with_a_child_twice, "an object of kind Message has other parts than it names"),
        (_of_an_unknown_kind, "an object of kind CustomDataClass is no part of a bundle"),
        (_of_another_kind, "an object of kind ArrayChunk is no part of a bundle"),
        (_without_a_head, "Head and body"),
        (_of_another_length, "length expected"),
    ],
)
def test_a_message_that_is_not_whole_says_what_is_wrong(
    spoil: Callable[[ObjectTree, Contents], None], reason: str
) -> None:
    tree, contents = apart(message())
    spoil(tree, contents)

    with pytest.raises(NotWholeError, match=reason):
        require_whole(tree, contents)


@given(st.binary(max_size=80), st.sampled_from(["Message", "RecordDict", "ArrayRecord", "Array"]))
def test_any_content_is_whole_or_an_error(body: bytes, kind: str) -> None:
    for content in (body, kind.encode() + body, made(kind, body)[1]):
        object_id = hashlib.sha256(content).hexdigest()
        tree = ObjectTree(object_id=object_id)
        try:
            require_whole(tree, {object_id: content}, 100)
        except NotWholeError:
            continue
