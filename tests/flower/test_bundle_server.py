"""Requests that are not as a client or a ServerApp of ours makes them; theirs are tested there."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from flwr.common.constant import ErrorCode
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from superlink import SuperLink

from fedbench.flower.bundle_server import Bundles
from fedbench.flower.bundles import (
    FLEET_PULL,
    FLEET_PUSH,
    FLEET_WANTED,
    MEDIA_TYPE,
    RUNTIME_OBJECTS,
    RUNTIME_PULL,
    RUNTIME_PUSH,
    RUNTIME_WITHDRAW,
    pack,
)

FLEET = [FLEET_PULL, FLEET_PUSH, FLEET_WANTED]
RUNTIME = [RUNTIME_OBJECTS, RUNTIME_PULL, RUNTIME_PUSH, RUNTIME_WITHDRAW]


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


def post(
    superlink: SuperLink, path: str, content: bytes, media_type: str = MEDIA_TYPE, token: str = ""
) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(Bundles(superlink.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            headers = {"content-type": media_type, TASK_TOKEN_HEADER: token}
            return await client.post(path, content=content, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize("path", FLEET)
def test_a_node_has_to_say_who_it_is(superlink: SuperLink, path: str) -> None:
    question = PullMessagesRequest(node=Node(node_id=superlink.join())).SerializeToString()

    answer = post(superlink, path, b"".join(pack([question, b""])))

    assert (answer.status_code, answer.text) == (401, "Invalid SuperNode authentication")


@pytest.mark.parametrize("path", RUNTIME)
@pytest.mark.parametrize("token", ["", "guessed"])
def test_only_the_serverapp_of_a_run_gets_in(superlink: SuperLink, path: str, token: str) -> None:
    answer = post(superlink, path, b"".join(pack([b"", b""])), token=token)

    assert answer.status_code == 401
    assert "authentication failed" in answer.text


@pytest.mark.parametrize("path", [*FLEET, *RUNTIME])
def test_half_a_bundle_is_refused(superlink: SuperLink, path: str) -> None:
    body = b"".join(pack([b"1234"]))[:-1]

    assert post(superlink, path, body, token=superlink.token).status_code == 400


@pytest.mark.parametrize("path", [*FLEET, RUNTIME_PULL, RUNTIME_PUSH])
@pytest.mark.parametrize("parts", [[], [b"\xff"]])
def test_a_bundle_of_something_else_is_refused(
    superlink: SuperLink, path: str, parts: list[bytes]
) -> None:
    body = b"".join(pack(parts))

    assert post(superlink, path, body, token=superlink.token).status_code == 400


def test_plain_flower_is_answered_by_flower(superlink: SuperLink) -> None:
    question = PullAppMessagesRequest(message_ids=["0" * 64]).SerializeToString()

    answer = post(superlink, RUNTIME_PULL, question, PROTOBUF_MEDIA_TYPE, superlink.token)

    (message,) = PullAppMessagesResponse.FromString(answer.content).messages_list
    assert message.metadata.reply_to_message_id == "0" * 64
    assert message.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_objects_that_are_gone_are_said_to_be(superlink: SuperLink) -> None:
    body = b"".join(pack([b"0" * 64, b"1" * 64]))

    answer = post(superlink, RUNTIME_OBJECTS, body, token=superlink.token)

    assert (answer.status_code, answer.content) == (200, b"")
