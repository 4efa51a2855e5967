"""Pushes that no honest node makes, over TLS, with Flower's own server side at the other end."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.node_pb2 import Node
from superlink import SuperLink

from fedbench.flower.bundles import FLEET_PUSH, MEDIA_TYPE, RefusedError, pack
from fedbench.flower.fleet import FleetConnection, connect
from fedbench.flower.messages import Deflated, deflate, inflate
from fedbench.server.grid import PromptGrid

WEIGHTS = np.arange(1000, dtype=np.float32)


@pytest.fixture
def superlink() -> Iterator[SuperLink]:
    superlink = SuperLink()
    with superlink.reached():
        yield superlink


def question(node: int) -> Message:
    content = RecordDict({"arrays": ArrayRecord({"weights": Array(WEIGHTS)})})
    return Message(content, node, MessageType.TRAIN)


def answered(link: FleetConnection) -> tuple[PushMessagesRequest, Deflated]:
    """A good reply to the message that waits for the node, ready to be spoiled."""
    parcel = link.poll(())
    assert parcel is not None
    message = inflate(parcel.tree, link.receive(parcel, ())).message
    arrays = ArrayRecord({"weights": Array(message.content["arrays"]["weights"].numpy() * 2)})
    content = RecordDict({"arrays": arrays, "work": ConfigRecord({"work": "{}"})})
    reply = Message(content, reply_to=message)
    objects = deflate([reply])
    envelope = message_to_proto(remove_content_from_message(reply))
    push = PushMessagesRequest(
        node=Node(node_id=link.node_id),
        messages_list=[envelope],
        message_object_trees=objects.trees,
    )
    return push, objects


def lacks_the_last(push: PushMessagesRequest, contents: list[bytes]) -> None:
    contents.pop()


def lacks_all(push: PushMessagesRequest, contents: list[bytes]) -> None:
    contents.clear()


def has_one_too_many(push: PushMessagesRequest, contents: list[bytes]) -> None:
    contents.append(contents[0])


def has_another_in_its_place(push: PushMessagesRequest, contents: list[bytes]) -> None:
    contents[0] = contents[0][:-1] + b"x"


def is_two(push: PushMessagesRequest, contents: list[bytes]) -> None:
    push.messages_list.append(push.messages_list[0])


def has_no_tree(push: PushMessagesRequest, contents: list[bytes]) -> None:
    del push.message_object_trees[:]


def is_in_anothers_name(push: PushMessagesRequest, contents: list[bytes]) -> None:
    push.messages_list[0].metadata.src_node_id += 1


def is_another_message(push: PushMessagesRequest, contents: list[bytes]) -> None:
    push.messages_list[0].metadata.message_id = "0" * 64


def names_no_parts(push: PushMessagesRequest, contents: list[bytes]) -> None:
    """Its tree is the root alone, which names its content's id."""
    del push.message_object_trees[0].children[:]
    contents[:] = contents[-1:]


def is_no_message(push: PushMessagesRequest, contents: list[bytes]) -> None:
    """Its tree is what belongs below."""
    tree = push.message_object_trees[0].children[0]
    push.message_object_trees[0].CopyFrom(tree)
    push.messages_list[0].metadata.message_id = tree.object_id
    contents.pop()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lacks_the_last, "5 objects came, expected 6"),
        (lacks_all, "0 objects came, expected 6"),
        (has_one_too_many, "7 objects came, expected 6"),
        (has_another_in_its_place, "is not what its id says"),
        (is_two, "2 messages with 1 trees of objects came, expected one"),
        (has_no_tree, "1 messages with 0 trees of objects came, expected one"),
        (is_in_anothers_name, "in the name of node"),
        (is_another_message, "its objects are another message's"),
        (names_no_parts, "an object of kind Message has other parts than it names"),
        (is_no_message, "an object of kind RecordDict is no part of a bundle"),
    ],
)
def test_a_push_that_is_not_whole_is_refused_and_fails_its_node(
    superlink: SuperLink, link: FleetConnection, spoil, reason: str
) -> None:
    sent = question(link.node_id)
    superlink.send(sent)
    push, objects = answered(link)
    contents = list(objects.contents.values())
    spoil(push, contents)

    with pytest.raises(RefusedError, match="400") as refused:
        link._post(FLEET_PUSH, [push.SerializeToString(), *contents])

    assert reason in str(refused.value)
    reply = superlink.reply_to(sent.metadata.message_id)
    assert reply.has_error()
    assert reply.error.reason.startswith("refused update: ")
    assert reason in reply.error.reason
    assert superlink.stored() == {reply.metadata.message_id}, "the error alone"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]" * 1000,
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 2**40),
        struct.pack("<QQ", 1, 2**63),
        struct.pack("<QQ", 1, 10) + b"123456789",
        struct.pack("<QQ", 1, 1) + b"123456789",
        struct.pack("<Q", 0) + b"more",
        b"".join(pack([b"\xff\xff"])),
        b"".join(pack([b""])),
    ],
)
def test_a_body_that_is_no_bundle_is_refused_and_fails_its_node(
    superlink: SuperLink, link: FleetConnection, address: str, certificates: Path, body: bytes
) -> None:
    sent = question(link.node_id)
    superlink.send(sent)
    assert link.poll(()) is not None

    answer = post(link, address, certificates, body)

    assert answer.status_code in (400, 401)
    if answer.status_code == 400:
        reply = superlink.reply_to(sent.metadata.message_id)
        assert reply.error.reason.startswith("refused update: ")
        assert superlink.stored() == {reply.metadata.message_id}


def post(
    link: FleetConnection, address: str, certificates: Path, body: bytes, **headers: str
) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    signed = link._credentials() | {"content-type": MEDIA_TYPE} | headers
    url = f"https://{address}{FLEET_PUSH}"
    return httpx.post(url, content=body, headers=signed, verify=context)


def test_a_stranger_fails_nobody(
    superlink: SuperLink, link: FleetConnection, address: str, certificates: Path
) -> None:
    superlink.send(question(link.node_id))
    push, objects = answered(link)
    key = next(name for name in link._credentials() if "signature" in name.lower())

    answer = post(link, address, certificates, b"nonsense", **{key: "AAAA"})

    assert answer.status_code == 400
    # The node's own reply is taken all the same.
    list(link._post(FLEET_PUSH, [push.SerializeToString(), *objects.contents.values()]).parts())


def test_a_reply_to_what_another_was_asked_deletes_nothing(
    superlink: SuperLink, link: FleetConnection, address: str, certificates: Path
) -> None:
    with connect(address, (certificates / "ca.pem").read_bytes()) as other:
        mine, others = question(link.node_id), question(other.node_id)
        superlink.send(others)
        superlink.send(mine)
        push, objects = answered(link)
        reply = push.messages_list[0]
        reply.metadata.reply_to_message_id = others.metadata.message_id

        list(link._post(FLEET_PUSH, [push.SerializeToString(), *objects.contents.values()]).parts())

        assert superlink.holds(others)
        assert not superlink.replied(others)
        answered(other)


def test_a_reply_arrives_while_others_send_badly(
    superlink: SuperLink, address: str, certificates: Path
) -> None:
    """One node sends its body byte by byte, one tells of a reply and sends nothing of it."""
    certificate = (certificates / "ca.pem").read_bytes()
    with (
        connect(address, certificate) as slow,
        connect(address, certificate) as empty,
        connect(address, certificate) as good,
        closing(PromptGrid(superlink.grid, lambda: False)) as grid,
    ):
        questions = [question(node.node_id) for node in (slow, empty, good)]
        sent: list[float] = []

        def talk() -> None:
            until(lambda: all(superlink.waiting(node.node_id) for node in (slow, empty, good)))
            superlink.answer(empty.node_id, lambda message: Message(RecordDict(), reply_to=message),
                             uploads=False)  # fmt: skip
            push, objects = answered(slow)
            body = b"".join(pack([push.SerializeToString(), *objects.contents.values()]))
            trickle = half_sent(slow, address, certificates, body)
            push, objects = answered(good)
            time.sleep(0.5)
            sent.append(time.monotonic())
            list(
                good._post(
                    FLEET_PUSH, [push.SerializeToString(), *objects.contents.values()]
                ).parts()
            )
            time.sleep(1)
            trickle.close()

        thread = threading.Thread(target=talk)
        thread.start()
        arrived: dict[int, tuple[float, bool]] = {}
        for node, reply in grid.exchange(questions, 3.0):
            arrived[node] = (time.monotonic(), reply.has_error())
        thread.join()

    assert arrived[good.node_id][0] - sent[0] < 1
    assert not arrived[good.node_id][1]
    assert arrived[empty.node_id][1], "it never came whole"
    assert slow.node_id not in arrived, "it hung up, and may come again"


def half_sent(
    link: FleetConnection, address: str, certificates: Path, body: bytes
) -> ssl.SSLSocket:
    """A connection on which half of a push is under way."""
    host, port = address.split(":")
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    stream = context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)
    headers = link._credentials() | {
        "Host": address,
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    stream.sendall(f"POST {FLEET_PUSH} HTTP/1.1\r\n{head}\r\n".encode() + body[: len(body) // 2])
    return stream


def until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
