from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
from clock import Clock
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.server.superlink.linkstate.utils import NODE_UNAVAILABLE_ERROR_REASON

from fedbench.server.directory import (
    ANSWER_SECONDS,
    LONGEST_PAUSE_SECONDS,
    NEWCOMER_SECONDS,
    Directory,
    Member,
    Why,
)
from fedbench.server.exchange import Exchange
from fedbench.wire import SIGNED_OFF

DATA = "digits-iid-1"
SAID = {"client": "a", "device": "laptop", "samples": 1}


class Nodes:
    """Connected nodes; `identities` says what each replies, None that it does not."""

    def __init__(self, identities: dict[int, ConfigRecord | Error | None]) -> None:
        self.identities = identities
        self.asked: list[int] = []
        self.content: dict[int, RecordDict] = {}  # of those that say something else
        self._open: dict[int, Message] = {}

    def node_ids(self) -> list[int]:
        return list(self.identities)

    def ask(self, messages: Iterable[Message]) -> None:
        for message in messages:
            assert message.metadata.message_type == MessageType.QUERY
            assert dict(message.content["config"]) == {"data": DATA}
            self.asked.append(message.metadata.dst_node_id)
            self._open[message.metadata.dst_node_id] = message

    def answers(self) -> Iterator[tuple[int, Message]]:
        for node, message in list(self._open.items()):
            answer = self.identities[node]
            if isinstance(answer, ConfigRecord):
                del self._open[node]
                content = self.content.get(node, RecordDict({"client": answer}))
                yield node, Message(content, reply_to=message)
            elif answer:
                del self._open[node]
                yield node, Message(answer, reply_to=message)


class Said(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **facts: Any) -> None:
        self.append((event, facts))


def identity(client: str, samples: int = 100) -> ConfigRecord:
    return ConfigRecord({"client": client, "device": "laptop", "samples": samples})


def directory(
    nodes: Nodes, said: Said, why: Why = lambda node, client: None, clock: Clock | None = None
) -> Directory:
    return Directory(cast("Exchange", nodes), DATA, said, why, clock or Clock())


def known_now(directory: Directory) -> list[Member]:
    """The clients that are known once those that were asked have answered."""
    directory.connected()
    return directory.connected()


def test_clients_are_known_by_name_and_sorted() -> None:
    nodes = Nodes({5: identity("workstation"), 3: identity("laptop")})

    members = known_now(directory(nodes, Said()))

    assert members == [Member(3, "laptop", "laptop", 100), Member(5, "workstation", "laptop", 100)]


def test_each_node_is_asked_once() -> None:
    nodes = Nodes({1: identity("a")})
    known = directory(nodes, Said())
    known_now(known)
    nodes.identities[2] = identity("b")

    assert [member.client for member in known_now(known)] == ["a", "b"]
    known.connected()
    assert nodes.asked == [1, 2]


def test_a_client_that_went_away_is_not_connected_but_still_known() -> None:
    nodes = Nodes({1: identity("a"), 2: identity("b")})
    known = directory(nodes, Said())
    known_now(known)
    del nodes.identities[1]

    assert [member.client for member in known.connected()] == ["b"]
    assert known.member(1) == Member(1, "a", "laptop", 100)


def test_a_node_that_never_said_who_it_is_has_a_name_all_the_same() -> None:
    assert directory(Nodes({}), Said()).member(9) == Member(9, "node-9", "unknown")


def test_a_client_without_images_is_left_out_and_told_once() -> None:
    nodes, said = Nodes({1: identity("a"), 2: identity("b", samples=0)}), Said()
    known = directory(nodes, said)

    for _ in range(2):
        assert [member.client for member in known_now(known)] == ["a"]
    assert said == [("left_out", {"client": "b", "data": DATA})]
    assert nodes.asked == [1, 2]


def test_a_node_that_cannot_say_who_it_is_is_told_once_and_asked_ever_more_rarely() -> None:
    nodes, said, clock = Nodes({1: Error(code=2, reason="ValueError: no data")}), Said(), Clock()
    known, start = directory(nodes, said, clock=clock), clock.now
    asked_at: list[float] = []
    for second in range(200):
        clock.now = start + second
        before = len(nodes.asked)
        assert known.connected() == []
        asked_at += [second] * (len(nodes.asked) - before)

    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    # It answers when it is looked for a second later, and the pause begins then.
    assert pauses[:7] == [2, 3, 5, 9, 17, 33, LONGEST_PAUSE_SECONDS + 1]
    assert said == [("unidentified", {"node": 1, "reason": "ValueError: no data"})]

    nodes.identities[1] = identity("a")
    clock.now += LONGEST_PAUSE_SECONDS
    assert [member.client for member in known_now(known)] == ["a"]


def test_a_silent_node_holds_nobody_up_and_takes_part_once_it_has_answered() -> None:
    nodes, clock = Nodes({1: identity("a"), 2: None}), Clock()
    known = directory(nodes, Said(), clock=clock)
    known.connected()
    assert known.newcomers
    assert [member.client for member in known.connected()] == ["a"]
    clock.now += NEWCOMER_SECONDS
    assert not known.newcomers, "it is not waited for a second time"

    for _ in range(100):
        clock.now += (ANSWER_SECONDS - 10) / 100
        assert [member.client for member in known.connected()] == ["a"]
    assert nodes.asked == [1, 2], "its answer counts, however late"
    clock.now += 10
    known.connected()
    assert nodes.asked == [1, 2, 2], "unless it was lost"
    assert not known.newcomers

    nodes.identities[2] = identity("b")
    assert [member.client for member in known.connected()] == ["a", "b"]


def test_of_nodes_that_are_gone_no_query_is_kept() -> None:
    nodes = Nodes({1: None})
    known = directory(nodes, Said())
    known.connected()
    nodes.identities = {2: identity("b")}
    nodes._open.clear()

    assert [member.client for member in known_now(known)] == ["b"]
    assert not known.newcomers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SAID | {"samples": 1.5}, "samples: Input should be a valid integer"),
        (SAID | {"samples": -1}, "samples: Input should be greater than or equal to 0"),
        (SAID | {"client": "../a"}, "client: "),
        (SAID | {"weight": 9}, "weight: Extra inputs are not permitted"),
        ({}, "client: Field required"),
        (None, "it does not say who it is"),
    ],
)
def test_an_identity_that_is_not_valid_is_told_and_the_others_take_part(
    answer: dict[str, Any] | None, reason: str
) -> None:
    nodes, said = Nodes({1: identity("b"), 2: identity("c")}), Said()
    nodes.content[1] = RecordDict({} if answer is None else {"client": ConfigRecord(answer)})

    members = known_now(directory(nodes, said))

    assert members == [Member(2, "c", "laptop", 100)]
    ((event, facts),) = said
    assert (event, facts["node"]) == ("unidentified", 1)
    assert facts["reason"].startswith(f"refused reply: {reason}")


REASON = "killed for memory: its limit is 300 MiB (device laptop)"


def told(node: int, client: str) -> str | None:
    return {(1, "node-1"): REASON, (2, "b"): REASON}.get((node, client))


def test_a_node_that_is_lost_before_it_said_who_it_is_is_explained() -> None:
    said = Said()
    lost = Error(code=ErrorCode.NODE_UNAVAILABLE, reason="no heartbeat")
    known_now(directory(Nodes({1: lost}), said, told))

    assert said == [("unidentified", {"node": 1, "reason": REASON})]


def test_an_error_says_why_a_node_is_gone_if_that_is_known() -> None:
    known = directory(Nodes({2: identity("b"), 3: identity("c")}), Said(), told)
    known_now(known)

    def explained(node: int, code: int, reason: str = "as it was") -> str:
        question = Message(RecordDict(), node, MessageType.TRAIN)
        reply = Message(Error(code=code, reason=reason), reply_to=question)
        return str(known.explained(node, reply).error.reason)

    assert explained(2, ErrorCode.NODE_UNAVAILABLE) == REASON
    assert explained(3, ErrorCode.NODE_UNAVAILABLE) == "as it was"
    assert explained(3, ErrorCode.NODE_UNAVAILABLE, NODE_UNAVAILABLE_ERROR_REASON) == SIGNED_OFF
    # It answered: it is not gone, whatever became of it before.
    assert explained(2, ErrorCode.CLIENT_APP_RAISED_EXCEPTION) == "as it was"


def test_of_a_restarted_client_the_new_node_counts_whatever_order_flower_gives() -> None:
    nodes = Nodes({9: identity("a")})
    known = directory(nodes, Said())
    known_now(known)
    nodes.identities = {4: identity("a"), 9: identity("a")}

    assert [member.node_id for member in known_now(known)] == [4]

    nodes.identities = {9: identity("a"), 4: identity("a")}
    assert [member.node_id for member in known.connected()] == [4]
