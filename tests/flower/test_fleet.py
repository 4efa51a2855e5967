"""The connection, with Flower's own server side at its other end."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.supernode.fleet_http_client import FleetHttpClient
from superlink import SuperLink

from fedbench.engines.containers.runtime import certificates as tls
from fedbench.flower import fleet
from fedbench.flower.bundles import RefusedError
from fedbench.flower.fleet import (
    FleetConnection,
    NotWantedError,
    RunOverError,
    WithdrawnError,
    connect,
)
from fedbench.flower.messages import deflate, inflate, object_ids
from fedbench.flower.runtime import RuntimeConnection

WEIGHTS = np.arange(3_000_000, dtype=np.float32)  # three chunks


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


def question(node: int, number: int = 1) -> Message:
    arrays = ArrayRecord({"weights": Array(WEIGHTS)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"number": number})})
    return Message(content, node, MessageType.TRAIN)


def answer(message: Message) -> Message:
    weights = message.content["arrays"]["weights"].numpy() * 2
    return Message(
        RecordDict({"arrays": ArrayRecord({"weights": Array(weights)})}), reply_to=message
    )


def received(link: FleetConnection) -> Message:
    parcel = link.poll(())
    assert parcel is not None
    message = inflate(parcel.tree, link.receive(parcel, ())).message
    assert message.metadata.message_id == parcel.envelope.metadata.message_id
    return message


def test_a_node_is_there_for_as_long_as_it_is_connected(
    superlink: SuperLink, address: str, certificates: Path
) -> None:
    with connect(address, (certificates / "ca.pem").read_bytes()) as link:
        assert superlink.nodes() == {link.node_id}
        assert link.poll(()) is None

    assert superlink.nodes() == set()
    assert not superlink.send(question(link.node_id)), "it signed off"


def test_a_heartbeat_may_take_as_long_as_everything_else(
    superlink: SuperLink, link: FleetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(FleetHttpClient, "_unary_unary", lambda _, **call: asked.append(call))
    FleetHttpClient("http://nowhere").SendNodeHeartbeat(SendNodeHeartbeatRequest())

    assert [call["timeout"] for call in asked] == [fleet.TIMEOUT_SECONDS]
    # They come every 22 s at the most, and over a new connection three round trips later.
    assert superlink.believed_seconds(link.node_id) > 22.5 + 3 * 20


def test_a_node_far_away_gives_its_server_more_time(
    address: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    register, connection = FleetHttpClient.RegisterNode, fleet.HTTPSConnection

    def register_late(client: FleetHttpClient, request: Any) -> Any:
        time.sleep(0.2)
        return register(client, request)

    def connected(host: str, *, timeout: float, context: Any) -> Any:
        given.append(timeout)
        return connection(host, timeout=timeout, context=context)

    monkeypatch.setattr(FleetHttpClient, "RegisterNode", register_late)
    monkeypatch.setattr(fleet, "HTTPSConnection", connected)
    with connect(address, (certificates / "ca.pem").read_bytes()) as link:
        assert link.poll(()) is None

    (timeout,) = given
    assert fleet.TIMEOUT_SECONDS + 2 * 0.2 <= timeout < fleet.TIMEOUT_SECONDS + 2 * 20


def test_a_message_comes_whole_and_so_does_its_reply(
    superlink: SuperLink, link: FleetConnection
) -> None:
    sent = question(link.node_id)
    superlink.send(sent)

    message = received(link)
    reply = answer(message)
    link.push(reply, deflate([reply]))

    assert np.array_equal(message.content["arrays"]["weights"].numpy(), WEIGHTS)
    stored = superlink.reply_to(sent.metadata.message_id)
    assert np.array_equal(stored.content["arrays"]["weights"].numpy(), WEIGHTS * 2)
    assert link.poll(()) is None


def test_superlink_forgets_a_message_that_was_answered(
    superlink: SuperLink, link: FleetConnection
) -> None:
    sent = question(link.node_id)
    superlink.send(sent)
    message = received(link)
    assert superlink.holds(sent)

    reply = answer(message)
    link.push(reply, deflate([reply]))

    assert not superlink.holds(sent)


def test_what_is_known_does_not_come_again(superlink: SuperLink, link: FleetConnection) -> None:
    superlink.send(question(link.node_id))
    parcel = link.poll(())
    assert parcel is not None
    link.receive(parcel, ())
    (array,) = [tree for tree in parcel.tree.children[0].children if len(tree.children) == 1]
    weights = array.children[0]
    assert len(weights.children) == 3

    superlink.send(question(link.node_id, number=2))
    again = link.poll([weights.object_id])
    assert again is not None
    contents = link.receive(again, [weights.object_id])

    assert list(contents) == object_ids([again.tree], without=[weights.object_id])
    assert sum(map(len, contents.values())) < 3000


def test_what_is_still_on_its_way_is_pulled_when_it_is_there(
    superlink: SuperLink, link: FleetConnection
) -> None:
    sent = question(link.node_id)
    arrive = superlink.announce(sent)
    arrival = threading.Timer(0.2, arrive)
    arrival.start()

    message = received(link)

    assert np.array_equal(message.content["arrays"]["weights"].numpy(), WEIGHTS)
    arrival.join()


def test_a_connection_that_breaks_amid_a_message_loses_nothing(
    superlink: SuperLink, link: FleetConnection
) -> None:
    superlink.send(question(link.node_id))
    parcel = link.poll(())
    assert parcel is not None
    next(parcel.contents)
    link._connection.close()

    contents = link.receive(parcel, ())

    assert contents.keys() == set(object_ids([parcel.tree]))
    superlink.send(question(link.node_id, number=2))
    assert received(link).content["config"]["number"] == 2


def test_the_reply_to_a_run_that_is_over_is_refused(
    superlink: SuperLink, link: FleetConnection
) -> None:
    superlink.send(question(link.node_id))
    reply = answer(received(link))
    superlink.finish()

    with pytest.raises(RunOverError):
        link.push(reply, deflate([reply]))


def withdraw(superlink: SuperLink, message: Message) -> None:
    """What the ServerApp does when a round is closed."""
    with superlink.reached(), closing(RuntimeConnection(superlink.grid)) as server:
        server.withdraw([message.metadata.message_id], [])


def test_a_node_learns_that_its_message_was_withdrawn_and_its_reply_is_kept_by_nobody(
    superlink: SuperLink, link: FleetConnection
) -> None:
    sent, next_one = question(link.node_id), question(link.node_id, number=2)
    superlink.send(sent)
    message = received(link)
    about = message.metadata
    link.check(about.run_id, about.message_id)
    superlink.send(next_one)

    withdraw(superlink, sent)

    with pytest.raises(WithdrawnError):
        link.check(about.run_id, about.message_id)
    reply = answer(message)
    link.push(reply, deflate([reply]))
    assert not superlink.holds(sent)
    assert not superlink.holds(reply)
    assert received(link).content["config"]["number"] == 2, "it goes on with the next"


def test_a_message_that_is_withdrawn_on_its_way_is_dropped(
    superlink: SuperLink, link: FleetConnection
) -> None:
    sent = question(link.node_id)
    superlink.announce(sent)
    parcel = link.poll(())
    assert parcel is not None
    withdraw(superlink, sent)

    with pytest.raises(WithdrawnError):
        link.receive(parcel, ())


def test_nobody_wants_an_answer_once_the_run_is_over(
    superlink: SuperLink, link: FleetConnection
) -> None:
    superlink.send(question(link.node_id))
    about = received(link).metadata
    superlink.finish()

    with pytest.raises(RunOverError):
        link.check(about.run_id, about.message_id)


def test_a_server_that_does_not_know_the_node_refuses_it(
    superlink: SuperLink, link: FleetConnection
) -> None:
    link.node_id += 1

    with pytest.raises(NotWantedError):
        link.check(superlink.run_id, "0" * 64)

    with pytest.raises(RefusedError, match="401 Invalid SuperNode authentication"):
        link.poll(())


def test_a_server_of_another_authority_is_not_spoken_to(address: str, tmp_path: Path) -> None:
    tls.ensure(tmp_path)

    with (
        pytest.raises(httpx.ConnectError, match="certificate verify failed"),
        connect(address, (tmp_path / "ca.pem").read_bytes()),
    ):
        pass
