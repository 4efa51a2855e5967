"""What SuperLink keeps of nodes that are gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from superlink import SuperLink

from fedbench.flower import superlink as flower
from fedbench.flower.superlink import forget_nodes
from fedbench.server.grid import PromptGrid


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


def test_the_model_that_a_node_did_not_take_is_forgotten_with_it(superlink: SuperLink) -> None:
    stays, goes = superlink.join(), superlink.join()
    model = ArrayRecord({"weights": Array(np.arange(1000, dtype=np.float32))})
    asked = [
        Message(RecordDict({"arrays": model}), node, MessageType.TRAIN) for node in (stays, goes)
    ]
    with superlink.reached(), closing(PromptGrid(superlink.grid, lambda: False)) as grid:
        replies = grid.exchange(asked, 10.0)

        def lose_one() -> None:
            until(lambda: superlink.waiting(goes))
            flower.sign_off(superlink.app, goes)

        losing = threading.Thread(target=lose_one)
        losing.start()
        node, reply = next(replies)
        losing.join()
        assert (node, reply.has_error()) == (goes, True)
        assert superlink.holds(asked[0]), "it is still to be taken"
        assert not superlink.holds(asked[1])
        superlink.answer(stays, lambda message: Message(RecordDict({}), reply_to=message))
        assert [node for node, _ in replies] == [stays]
    assert superlink.stored() == set()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
