from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode

from fedbench.server.directory import ANSWER_SECONDS, Directory, Member, Why
from fedbench.server.exchange import Exchange

DATA = "digits-iid-1"
SAID = {"client": "a", "device": "laptop", "samples": 1}


class Nodes:
    """Connected nodes; `answers` says what each replies, None that it does not."""

    def __init__(self, answers: dict[int, ConfigRecord | Error | None]) -> None:
        self.answers = answers
        self.asked: list[int] = []
        self.content: dict[int, RecordDict] = {}  # of those that say something else

    def node_ids(self) -> list[int]:
        return list(self.answers)

    def exchange(
        self, messages: Iterable[Message], timeout: float
    ) -> Iterator[tuple[int, Message]]:
        assert timeout == ANSWER_SECONDS
        for message in messages:
            assert message.metadata.message_type == MessageType.QUERY
            assert dict(message.content["config"]) == {"data": DATA}
            node = message.metadata.dst_node_id
            self.asked.append(node)
            answer = self.answers[node]
            if isinstance(answer, ConfigRecord):
                content = self.content.get(node, RecordDict({"client": answer}))
                yield node, Message(content, reply_to=message)
            elif answer:
                yield node, Message(answer, reply_to=message)


class Said(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **facts: Any) -> None:
        self.append((event, facts))


def identity(client: str, samples: int = 100) -> ConfigRecord:
    return ConfigRecord({"client": client, "device": "laptop", "samples": samples})


def directory(nodes: Nodes, said: Said, why: Why = lambda node, client: None) -> Directory:
    return Directory(cast("Exchange", nodes), DATA, said, why)


def test_clients_are_known_by_name_and_sorted() -> None:
    nodes = Nodes({5: identity("workstation"), 3: identity("laptop")})

    members = directory(nodes, Said()).connected()

    assert members == [Member(3, "laptop", "laptop", 100), Member(5, "workstation", "laptop", 100)]


def test_each_node_is_asked_once() -> None:
    nodes = Nodes({1: identity("a")})
    known = directory(nodes, Said())
    known.connected()
    nodes.answers[2] = identity("b")

    assert [member.client for member in known.connected()] == ["a", "b"]
    known.connected()
    assert nodes.asked == [1, 2]


def test_a_client_that_went_away_is_not_connected_but_still_known() -> None:
    nodes = Nodes({1: identity("a"), 2: identity("b")})
    known = directory(nodes, Said())
    known.connected()
    del nodes.answers[1]

    assert [member.client for member in known.connected()] == ["b"]
    assert known.member(1) == Member(1, "a", "laptop", 100)


def test_a_node_that_never_said_who_it_is_has_a_name_all_the_same() -> None:
    assert directory(Nodes({}), Said()).member(9) == Member(9, "node-9", "unknown")


def test_a_client_without_images_is_left_out_and_told_once() -> None:
    nodes, said = Nodes({1: identity("a"), 2: identity("b", samples=0)}), Said()
    known = directory(nodes, said)

    for _ in range(2):
        assert [member.client for member in known.connected()] == ["a"]
    assert said == [("left_out", {"client": "b", "data": DATA})]
    assert nodes.asked == [1, 2]


def test_a_node_that_cannot_say_who_it_is_is_told_once_and_asked_again() -> None:
    nodes, said = Nodes({1: Error(code=2, reason="ValueError: train.safetensors")}), Said()
    known = directory(nodes, said)

    assert known.connected() == known.connected() == []
    assert said == [("unidentified", {"node": 1, "reason": "ValueError: train.safetensors"})]

    nodes.answers[1] = identity("a")
    assert [member.client for member in known.connected()] == ["a"]
    assert nodes.asked == [1, 1, 1]


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

    members = directory(nodes, said).connected()

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
    directory(Nodes({1: lost}), said, told).connected()

    assert said == [("unidentified", {"node": 1, "reason": REASON})]


def test_an_error_says_why_a_node_is_gone_if_that_is_known() -> None:
    known = directory(Nodes({2: identity("b"), 3: identity("c")}), Said(), told)
    known.connected()

    def explained(node: int, code: int) -> str:
        question = Message(RecordDict(), node, MessageType.TRAIN)
        reply = Message(Error(code=code, reason="as it was"), reply_to=question)
        return str(known.explained(node, reply).error.reason)

    assert explained(2, ErrorCode.NODE_UNAVAILABLE) == REASON
    assert explained(3, ErrorCode.NODE_UNAVAILABLE) == "as it was"
    # It answered: it is not gone, whatever became of it before.
    assert explained(2, ErrorCode.CLIENT_APP_RAISED_EXCEPTION) == "as it was"


def test_a_silent_node_is_asked_again() -> None:
    nodes = Nodes({1: None})
    known = directory(nodes, Said())
    assert known.connected() == []

    nodes.answers[1] = identity("a")
    assert [member.node_id for member in known.connected()] == [1]


def test_of_a_restarted_client_the_new_node_counts_whatever_order_flower_gives() -> None:
    nodes = Nodes({9: identity("a")})
    known = directory(nodes, Said())
    known.connected()
    nodes.answers = {4: identity("a"), 9: identity("a")}

    assert [member.node_id for member in known.connected()] == [4]

    nodes.answers = {9: identity("a"), 4: identity("a")}
    assert [member.node_id for member in known.connected()] == [4]
