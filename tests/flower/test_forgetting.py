"""What SuperLink keeps of nodes that are gone."""

from __future__ import annotations

import pytest
from flwr.app import Message, MessageType, RecordDict
from superlink import SuperLink

from fedbench.flower import superlink as flower
from fedbench.flower.superlink import forget_nodes


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    monkeypatch.setattr(flower, "MOST_NODES", 3)
    return SuperLink()


def known(superlink: SuperLink) -> set[int]:
    return set(superlink.app.state.linkstate_factory.state().nodes)


def test_the_oldest_that_are_gone_are_forgotten(superlink: SuperLink) -> None:
    stays = superlink.join()
    left = [superlink.join() for _ in range(3)]
    for node in left:
        superlink.sign_off(node)
    forget_nodes(superlink.app)
    assert known(superlink) == {stays, *left[1:]}
    assert superlink.nodes() == {stays}


def test_nobody_who_is_there_is_forgotten(superlink: SuperLink) -> None:
    here = {superlink.join() for _ in range(5)}
    forget_nodes(superlink.app)
    assert superlink.nodes() == known(superlink) == here


def test_what_a_forgotten_node_was_asked_is_answered_as_of_one_that_is_gone(
    superlink: SuperLink,
) -> None:
    node = superlink.join()
    asked = Message(RecordDict({}), node, MessageType.TRAIN)
    superlink.send(asked)
    flower.sign_off(superlink.app, node)
    for _ in range(3):
        superlink.join()
    forget_nodes(superlink.app)

    state = superlink.app.state.linkstate_factory.state()
    (reply,) = state.get_message_res({asked.metadata.message_id}, superlink.run_id)

    assert node not in known(superlink)
    assert reply.has_error()
