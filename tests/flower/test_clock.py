"""Clocks that jump and clocks that are off, with Flower's own server side in this process."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore import date
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.routers.fleet import node_auth
from superlink import SuperLink

from fedbench.flower import clock
from fedbench.flower.bundles import FLEET_PULL
from fedbench.flower.clock import SteadyClock, seconds_ahead
from fedbench.flower.fleet import FleetConnection, connect
from fedbench.flower.messages import deflate, inflate
from fedbench.flower.superlink import keep_time

HOUR = 3600.0


class Wall:
    """This computer's clock, which somebody sets."""

    ahead = 0.0

    def now(self, tz: object = None) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """That by which Flower and we go, unless we go by another."""
    wall = Wall()
    monkeypatch.setattr(date, "datetime", SimpleNamespace(datetime=wall, UTC=UTC))
    monkeypatch.setattr(node_auth, "now", date.now)
    monkeypatch.setattr(clock, "CLOCK", SteadyClock())
    monkeypatch.setattr(clock, "wall_clock", wall.now)
    return wall


@pytest.fixture
def superlink(wall: Wall) -> SuperLink:
    keep_time()
    return SuperLink()


def question(node: int) -> Message:
    return Message(RecordDict({"task": ConfigRecord({"round": 1})}), node, MessageType.TRAIN)


def answer(link: FleetConnection) -> None:
    parcel = link.poll(())
    assert parcel is not None
    message = inflate(parcel.tree, link.receive(parcel, ())).message
    reply = Message(RecordDict({}), reply_to=message)
    link.push(reply, deflate([reply]))


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_no_reply_is_lost_when_the_clock_is_set_in_mid_round(
    superlink: SuperLink, link: FleetConnection, wall: Wall, jump: float
) -> None:
    before, after = question(link.node_id), question(link.node_id)
    superlink.send(before)
    wall.ahead = jump

    answer(link)
    superlink.send(after)
    answer(link)

    assert superlink.nodes() == {link.node_id}
    for sent in (before, after):
        assert not superlink.reply_to(sent.metadata.message_id).has_error()
    state = superlink.app.state.linkstate_factory.state()
    assert state.get_task_by_token(superlink.token), "the run goes on"
    replies = state.get_message_res({before.metadata.message_id}, superlink.run_id)
    assert [reply.has_error() for reply in replies] == [False]


def test_a_run_by_the_wall_clock_is_lost(wall: Wall) -> None:
    """Else the test above could not fail."""
    superlink = SuperLink()
    superlink.join()
    wall.ahead = HOUR
    assert superlink.nodes() == set()
    assert superlink.app.state.linkstate_factory.state().get_task_by_token(superlink.token) is None


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_stock_node_of_this_computer_signs_by_the_clock_that_was_set(
    superlink: SuperLink, link: FleetConnection, wall: Wall, jump: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    wall.ahead = jump
    monkeypatch.setattr(
        "fedbench.flower.fleet.date", SimpleNamespace(now=lambda: wall.now().astimezone(UTC))
    )
    superlink.send(question(link.node_id))
    answer(link)


@pytest.fixture(params=[-600, 600])
def off(request: pytest.FixtureRequest) -> float:
    """By how much the server's clock is ahead."""
    seconds: float = request.param
    return seconds


@pytest.fixture
def elsewhere(
    superlink: SuperLink, certificates: Path, off: float, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of a server that goes by another clock."""
    theirs = SteadyClock()
    theirs.advance(off)
    monkeypatch.setattr(node_auth, "now", lambda: theirs.now(UTC))
    server = certificates / "server"
    with superlink.served(
        ssl_certfile=server / "server.pem",
        ssl_keyfile=server / "server.key",
        date_header=False,
        headers=[("date", formatdate(theirs.timestamp(), usegmt=True))],
    ) as address:
        yield address


def test_a_device_whose_clock_is_off_joins_and_is_told(
    superlink: SuperLink, elsewhere: str, certificates: Path, off: float,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with connect(elsewhere, (certificates / "ca.pem").read_bytes()) as link:
        sent = question(link.node_id)
        superlink.send(sent)
        answer(link)
        assert superlink.replied(sent)
    (record,) = [record for record in caplog.records if record.name == "fedbench.clock"]
    told, _, rest = (
        record.getMessage().removeprefix("this device's clock is off by ").partition(" ")
    )
    assert abs(int(told) + off) <= 2
    assert rest == "s from its server's: the server's is used"


def test_it_would_not_be_let_in_by_its_own(elsewhere: str, certificates: Path) -> None:
    """Else the test above could not fail."""
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with connect(elsewhere, (certificates / "ca.pem").read_bytes()) as link:
        answers = []
        for own in (False, True):
            if own:
                clock.CLOCK = SteadyClock()
                clock.hold(date)
            headers = link._credentials() | {"content-type": PROTOBUF_MEDIA_TYPE}
            question = PullMessagesRequest(node=Node(node_id=link.node_id)).SerializeToString()
            url = f"https://{elsewhere}{FLEET_PULL}"
            answers.append(httpx.post(url, content=question, headers=headers, verify=context))
        clock.follow(date, elsewhere, (certificates / "ca.pem").read_bytes())
    assert [answer.status_code for answer in answers] == [200, 401]


def test_a_clock_that_is_right_is_not_told_of(
    superlink: SuperLink, link: FleetConnection, caplog: pytest.LogCaptureFixture
) -> None:
    assert abs((date.now() - datetime.now(UTC)).total_seconds()) < clock.TOLD_SECONDS
    assert "fedbench.clock" not in {record.name for record in caplog.records}


def test_a_server_that_is_not_there_says_nothing(
    certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert seconds_ahead("localhost:1", (certificates / "ca.pem").read_bytes()) is None
    assert "the server does not say what time it is" in caplog.text


def test_a_steady_clock_goes_on_from_where_it_began() -> None:
    wall, monotonic = [1000.0], [50.0]
    steady = SteadyClock(lambda: wall[0], lambda: monotonic[0])
    wall[0] += HOUR
    monotonic[0] += 2
    assert steady.timestamp() == 1002
    assert steady.now(UTC).timestamp() == 1002
    steady.advance(600)
    assert steady.timestamp() == 1602
