"""Whatever devices send, it is answered with 4xx, soon, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st
from superlink import SuperLink

from fedbench.flower.bundle_server import Bundles
from fedbench.flower.bundles import FLEET_PULL, FLEET_PUSH, MEDIA_TYPE, pack
from fedbench.flower.intake import Intake, Limits
from fedbench.flower.longpoll import LongPoll
from fedbench.flower.messages import deflate, object_ids
from fedbench.server import public_app as public
from fedbench.server import registry as registries
from fedbench.server import superlink
from fedbench.server.public_app import public_app
from fedbench.server.registry import Registry
from fedbench.wire import CLIENTS_PATH

ANNOUNCEMENT = {"client": "pc", "device": "legacy-pc", "instance": "i1", "metrics_port": 9101}
ENDING = {"exit_code": 1, "killed_for_memory": False, "memory_limit": None}
TOO_LARGE = "it has 12000 bytes or more, 10000 are the most"
SMALL = Limits(small=2000, plain=4000, largest=10_000, strangers=3000, idle_seconds=0.2)


class Server:
    """All that devices reach, in this process."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.superlink = SuperLink()
        self.registry = Registry(lambda _: None)
        fleet = LongPoll(Bundles(self.superlink.app), hold=0.01)
        self.intake = Intake(fleet, self.superlink.app, limits)
        self.app = public_app(self.intake, self.registry)
        self.key = ec.generate_private_key(ec.SECP384R1())
        state = self.superlink.app.state.linkstate_factory.state()
        public_key = public_key_to_bytes(self.key.public_key())
        self.node = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, 0)
        state.activate_node(self.node, 30)

    def signed(self, media_type: str = PROTOBUF_MEDIA_TYPE) -> dict[str, str]:
        """Headers as Flower's nodes send them."""
        stamp = now().isoformat()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: encoded(public_key_to_bytes(self.key.public_key())),
            FLEET_HTTP_SIGNATURE_HEADER: encoded(sign_message(self.key, stamp.encode())),
            TIMESTAMP_HEADER: stamp,
            "content-type": media_type,
        }

    def asks(self) -> Message:
        """A message that the node has taken, and will answer."""
        content = RecordDict({"task": ConfigRecord({"round": 1})})
        message = Message(content, self.node, MessageType.TRAIN)
        self.superlink.send(message)
        state = self.superlink.app.state.linkstate_factory.state()
        assert state.get_message_ins(self.node, limit=1)
        return message

    def talk(self, said: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def talking() -> Any:
            transport = httpx.ASGITransport(self.app)  # whatever the app raises, it raises
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await said(client)

        return asyncio.run(talking())

    def post(self, path: str, content: Any, headers: dict[str, str] | None = None) -> Any:
        return self.talk(lambda client: client.post(path, content=content, headers=headers))


def encoded(content: bytes) -> str:
    return b64encode(content).decode()


@pytest.fixture
def server() -> Server:
    return Server()


async def trickle(*pieces: bytes, pause: float = 0) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(pause)


# What clients say of themselves.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)


def bodies(honest: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Honest but for a key, or nothing of the kind."""
    spoiled = st.tuples(st.sampled_from([*honest, "node_id", "pacing", "wait", "x"]), json_values)
    return (
        spoiled.map(lambda pair: json.dumps(honest | dict([pair])).encode())
        | json_values.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=100)
        | st.sampled_from([b"[" * 10_000, b'{"a":' * 2000, b"9" * 9999, b'"\\ud800"', b"\xff" * 9])
    )


@examples(150)
@given(body=bodies(ANNOUNCEMENT))
def test_any_announcement_is_taken_or_refused(body: bytes) -> None:
    registry = Registry(lambda _: None)
    transport = httpx.ASGITransport(public_app(no_fleet, registry, Quick(registry)))

    async def say() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(CLIENTS_PATH, content=body)

    answer = asyncio.run(say())

    assert answer.status_code in (200, 422)
    assert len(answer.content) < 1000
    assert len(registry.targets()) == (answer.status_code == 200)
    registry.pacing(), registry.presence(), registry.lost()


class Quick(public.Lifelines):
    async def hold(self, request: Any, said: Any) -> None:
        """Hold nothing back."""


async def no_fleet(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not for SuperLink")


@examples(60)
@given(body=bodies(ENDING), client=st.text(max_size=9), instance=st.text(max_size=9))
def test_any_ending_of_a_stranger_is_refused(
    server: Server, body: bytes, client: str, instance: str
) -> None:
    names = quote(client, safe=""), quote(instance, safe="")
    for url in ("/pc/i1/ending", "/{}/{}/ending".format(*names)):
        assert server.post(CLIENTS_PATH + url, body).status_code in (404, 422)
    assert server.registry.lost() == {}


@pytest.mark.parametrize("path", [CLIENTS_PATH, f"{CLIENTS_PATH}/pc/i1/ending"])
def test_what_clients_say_is_short(server: Server, path: str) -> None:
    large = b"x" * (public.MOST_BYTES + 1)
    assert server.post(path, large).status_code == 413
    assert server.post(path, trickle(large[:-1], b"xx")).status_code == 413, "by no length"
    assert server.post(path, large[:-1]).status_code == 422


def test_who_says_half_of_it_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "SAYING_SECONDS", 0.05)
    assert server.post(CLIENTS_PATH, trickle(b"{", b"}", pause=0.5)).status_code == 408


def test_names_without_end_are_not_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "MOST_CLIENTS", 3)
    registry = Registry(lambda _: None)
    server.app = public_app(no_fleet, registry, Quick(registry))
    statuses = [
        server.post(CLIENTS_PATH, json.dumps(ANNOUNCEMENT | {"client": f"pc-{i}"})).status_code
        for i in (1, 2, 3, 4, 1, 5)
    ]
    server.app = public_app(server.intake, server.registry)
    assert statuses == [200, 200, 200, 429, 200, 429]
    assert len(registry.targets()) == len(registry.lost()) == 3


# What nodes say to SuperLink.


def others_keys() -> list[str]:
    keys = [rsa.generate_private_key(65537, 1024), x25519.X25519PrivateKey.generate()]
    public_keys = [
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for key in keys
    ]
    return [encoded(key) for key in public_keys]


@pytest.mark.parametrize(
    "key", ["", "=", "x", "é", encoded(b"\0"), encoded(b"-----BEGIN"), *others_keys()],
    ids=["none", "padding", "short", "latin", "nul", "half", "rsa", "x25519"],
)  # fmt: skip
@pytest.mark.parametrize("media_type", [PROTOBUF_MEDIA_TYPE, MEDIA_TYPE])
def test_a_key_that_no_node_has_is_refused(server: Server, key: str, media_type: str) -> None:
    headers = server.signed(media_type) | {FLEET_HTTP_PUBLIC_KEY_HEADER: key.encode("latin-1")}  # type: ignore[dict-item]
    for path in (FLEET_PULL, FLEET_PUSH, "/v1/fleet/register-node", "/v1/fleet/nothing"):
        assert server.post(path, b"", headers).status_code == 401


@examples(100)
@given(
    path=st.sampled_from(
        ["register-node", "activate-node", "deactivate-node", "send-node-heartbeat", "get-run",
         "pull-messages", "push-messages", "push-object", "pull-object", "get-fab",
         "confirm-message-received", "unregister-node"]
    ),
    body=st.binary(max_size=60),
    media_type=st.sampled_from([PROTOBUF_MEDIA_TYPE, MEDIA_TYPE, "text/plain"]),
    stamp=st.none() | st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=30),
)  # fmt: skip
def test_any_request_of_a_node_is_answered(
    server: Server, path: str, body: bytes, media_type: str, stamp: str | None
) -> None:
    headers = server.signed(media_type)
    if stamp is not None:
        headers[TIMESTAMP_HEADER] = stamp
    before = server.superlink.stored()

    answer = server.post(f"/v1/fleet/{path}", body, headers)

    assert 400 <= answer.status_code < 500
    assert server.superlink.stored() == before


def test_a_stranger_sends_no_more_than_a_little(server: Server) -> None:
    stranger = server.signed() | {FLEET_HTTP_SIGNATURE_HEADER: "AAAA"}
    for body in (b"x" * 2001, trickle(*[b"x" * 500] * 5)):
        assert server.post(FLEET_PUSH, body, stranger).status_code == 401
    assert server.post(FLEET_PUSH, trickle(b"x", b"x", pause=1), stranger).status_code == 408
    assert server.intake._of_strangers == 0


def test_strangers_together_keep_no_more_than_some(server: Server) -> None:
    stranger = server.signed() | {FLEET_HTTP_SIGNATURE_HEADER: "AAAA"}

    async def crowd(client: httpx.AsyncClient) -> list[int]:
        half = [
            client.post(FLEET_PULL, content=trickle(b"x" * 1900, b"", pause=0.15), headers=stranger)
            for _ in range(3)
        ]
        waiting = [asyncio.ensure_future(each) for each in half]
        await asyncio.sleep(0.05)
        assert server.intake._of_strangers <= SMALL.strangers + 2000
        question = PullMessagesRequest(node=Node(node_id=server.node)).SerializeToString()
        mine = await client.post(FLEET_PULL, content=question, headers=server.signed())
        return [mine.status_code, *[(await each).status_code for each in waiting]]

    assert server.talk(crowd) == [200, 401, 401, 401], "a node gets in all the same"
    assert server.intake._of_strangers == 0


@pytest.mark.parametrize("by_length", [True, False])
def test_a_node_whose_update_is_too_large_is_told_and_fails(by_length: bool) -> None:
    server = Server()
    sent = server.asks()
    body = b"x" * 12_000

    content = body if by_length else trickle(*[body[:3000]] * 4)
    answer = server.post(FLEET_PUSH, content, server.signed(MEDIA_TYPE))

    assert (answer.status_code, answer.text) == (
        413,
        TOO_LARGE,
    )
    error = server.superlink.reply_to(sent.metadata.message_id).error
    assert error.reason == f"refused update: {answer.text}"


def test_a_node_sends_as_much_as_a_model_has(server: Server) -> None:
    answer = server.post(FLEET_PUSH, b"x" * 10_000, server.signed(MEDIA_TYPE))
    assert answer.status_code == 400, "it is read"
    assert server.post(FLEET_PULL, b"x" * 4001, server.signed()).status_code == 413


@pytest.mark.parametrize("length", ["-1", "x", "1e9", "9" * 30, "²"])
def test_a_length_that_is_no_number_is_refused(server: Server, length: str) -> None:
    headers = server.signed() | {"content-length": length.encode("utf-8")}  # type: ignore[dict-item]
    assert server.post(FLEET_PUSH, trickle(b""), headers).status_code == 400


def reply_of(sent: Message, node: int, *, named: int) -> tuple[PushMessagesRequest, list[bytes]]:
    reply = Message(RecordDict({}), reply_to=sent)
    reply.metadata.__dict__["_src_node_id"] = named
    objects = deflate([reply])
    envelope = message_to_proto(remove_content_from_message(reply))
    push = PushMessagesRequest(
        node=Node(node_id=node), messages_list=[envelope], message_object_trees=objects.trees
    )
    return push, [*objects.contents.values()]


def test_a_reply_in_plain_flower_in_anothers_name_is_refused() -> None:
    server = Server()
    other = server.superlink.join()
    asked = Message(RecordDict({}), other, MessageType.TRAIN)
    server.superlink.send(asked)
    mine = server.asks()
    push, _ = reply_of(asked, server.node, named=other)

    answer = server.post(FLEET_PUSH, push.SerializeToString(), server.signed())

    assert answer.status_code == 400
    assert f"in the name of node {other}" in answer.text
    assert not server.superlink.replied(asked)
    assert server.superlink.reply_to(mine.metadata.message_id).has_error()


def test_a_reply_in_plain_flower_is_taken(server: Server) -> None:
    sent = server.asks()
    push, _ = reply_of(sent, server.node, named=server.node)

    assert server.post(FLEET_PUSH, push.SerializeToString(), server.signed()).status_code == 200
    assert server.superlink.replied(sent)


@pytest.mark.parametrize("count", [0, 2])
def test_no_reply_and_two_in_plain_flower_are_refused(count: int) -> None:
    server = Server()
    sent = server.asks()
    one, _ = reply_of(sent, server.node, named=server.node)
    push = PushMessagesRequest(node=one.node, messages_list=[*one.messages_list] * count)

    assert server.post(FLEET_PUSH, push.SerializeToString(), server.signed()).status_code == 400
    assert server.superlink.reply_to(sent.metadata.message_id).has_error()


def test_a_bundle_of_a_node_passes(server: Server) -> None:
    question = PullMessagesRequest(node=Node(node_id=server.node)).SerializeToString()
    answer = server.post(FLEET_PULL, b"".join(pack([question, b""])), server.signed(MEDIA_TYPE))
    assert (answer.status_code, answer.content) == (200, b"")


@examples(60)
@given(
    field=st.sampled_from(
        ["run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id", "group_id",
         "ttl", "message_type", "created_at"]
    ),
    number=st.sampled_from([0, 1, 2**63 - 1]) | st.integers(0, 2**64 - 1),
    text=st.text(max_size=70),
)  # fmt: skip
def test_a_bundle_with_any_metadata_is_answered(
    server: Server, field: str, number: int, text: str
) -> None:
    """SuperLink takes it or not; a node that makes no sense is told so, and its run as well."""
    sent = server.asks()
    push, contents = reply_of(sent, server.node, named=server.node)
    metadata = push.messages_list[0].metadata
    is_text = isinstance(getattr(metadata, field), str)
    setattr(metadata, field, text if is_text else number)
    before = server.superlink.stored()

    body = b"".join(pack([push.SerializeToString(), *contents]))
    answer = server.post(FLEET_PUSH, body, server.signed(MEDIA_TYPE))

    assert answer.status_code in (200, 400, 403)
    if answer.status_code == 400:
        assert server.superlink.reply_to(sent.metadata.message_id).has_error()
        kept = server.superlink.stored() - before
        assert kept.isdisjoint(object_ids(push.message_object_trees)), "errors alone"


@pytest.mark.parametrize(("said", "largest"), [("", 2**30), ("4GiB", 2**32)])
def test_how_large_an_update_may_be_is_a_setting(
    said: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_LARGEST_UPDATE", said)
    assert superlink.limits().largest == largest
