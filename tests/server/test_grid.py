from __future__ import annotations

import gc
import json
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body
from superlink import SuperLink

from fedbench.server import grid as grid_module
from fedbench.server.exchange import RunStopped
from fedbench.server.grid import PromptGrid

LONG = 60.0
WEIGHTS = np.arange(1000, dtype=np.float32)


@pytest.fixture(autouse=True)
def _poll_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "POLL_SECONDS", 0.01)


Prompt = Callable[[Callable[[], bool]], PromptGrid]


@pytest.fixture
def prompt(superlink: Any) -> Iterator[Prompt]:
    """Makes grids of the run, with a user who may wish to stop."""
    with ExitStack() as stack:
        yield lambda stopped: stack.enter_context(closing(PromptGrid(superlink.grid, stopped)))


class World:
    """What goes on while the grid waits: one action between each two looks for replies."""

    def __init__(self, *actions: Callable[[], object]) -> None:
        self._actions = list(actions)

    def __call__(self) -> bool:
        if self._actions:
            self._actions.pop(0)()
        return False


def questions(nodes: Iterable[int]) -> list[Message]:
    content = RecordDict({"config": ConfigRecord({"round": 3})})
    return [Message(content, node, MessageType.TRAIN) for node in nodes]


def trained(message: Message) -> Message:
    arrays = ArrayRecord({"weights": Array(WEIGHTS * int(message.content["config"]["round"]))})
    metrics = MetricRecord({"num-examples": message.metadata.dst_node_id % 1000})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def raised(message: Message) -> Message:
    return Message(Error(code=2, reason="out of memory"), reply_to=message)


def test_the_nodes_that_are_connected_are_known(superlink: Any, prompt: Prompt) -> None:
    first, second, gone = superlink.join(), superlink.join(), superlink.join()
    superlink.sign_off(gone)

    assert sorted(prompt(World()).node_ids()) == sorted([first, second])


def test_replies_come_whole_and_in_the_order_in_which_they_were_given(
    superlink: Any, prompt: Prompt
) -> None:
    slow, quick = superlink.join(), superlink.join()
    world = World(lambda: superlink.answer(quick, trained), lambda: superlink.answer(slow, trained))

    replies = list(prompt(world).exchange(questions([slow, quick]), LONG))

    assert [node for node, _ in replies] == [quick, slow]
    for node, reply in replies:
        assert reply.metadata.src_node_id == node
        assert reply.content["metrics"]["num-examples"] == node % 1000
        assert np.array_equal(reply.content["arrays"]["weights"].numpy(), WEIGHTS * 3)


def test_one_reply_is_held_at_a_time(superlink: Any, prompt: Prompt) -> None:
    nodes = [superlink.join() for _ in range(4)]
    given: list[weakref.ref[Message]] = []

    def answer() -> None:
        for node in nodes:
            superlink.answer(node, trained)

    for _, reply in prompt(World(answer)).exchange(questions(nodes), LONG):
        given.append(weakref.ref(reply))
        del reply
        assert sum(ref() is not None for ref in given) <= 1

    assert len(given) == 4


def test_an_exception_in_a_client_is_a_reply(superlink: Any, prompt: Prompt) -> None:
    node = superlink.join()
    world = World(lambda: superlink.answer(node, raised))

    ((who, reply),) = prompt(world).exchange(questions([node]), LONG)

    assert who == node
    assert reply.error.reason == "out of memory"


def test_a_reply_for_a_dead_node_is_put_down_to_that_node(superlink: Any, prompt: Prompt) -> None:
    dead, alive = superlink.join(heartbeat_seconds=0.1), superlink.join()
    world = World(lambda: superlink.answer(alive, trained))

    replies = dict(prompt(world).exchange(questions([dead, alive]), LONG))

    assert replies.keys() == {dead, alive}
    assert replies[dead].has_error()
    assert replies[dead].metadata.src_node_id == 1  # SuperLink's own, not the client's
    assert not replies[alive].has_error()


def test_nodes_that_signed_off_fail_at_once_each_for_itself(superlink: Any, prompt: Prompt) -> None:
    nodes = [superlink.join() for _ in range(3)]
    superlink.sign_off(nodes[0])
    superlink.sign_off(nodes[2])
    world = World(lambda: superlink.answer(nodes[1], trained))

    replies = list(prompt(world).exchange(questions(nodes), LONG))

    assert [node for node, _ in replies] == [nodes[0], nodes[2], nodes[1]]
    assert [reply.has_error() for _, reply in replies] == [True, True, False]
    assert replies[0][1].error.reason == "the client left the federation"


def test_a_node_that_signs_off_amid_its_work_fails(superlink: Any, prompt: Prompt) -> None:
    node = superlink.join()
    world = World(lambda: superlink.sign_off(node))

    ((who, reply),) = prompt(world).exchange(questions([node]), LONG)

    assert who == node
    assert reply.has_error()


def test_a_node_that_dies_amid_its_upload_fails_alone(superlink: Any, prompt: Prompt) -> None:
    dying, alive = superlink.join(), superlink.join()
    world = World(
        lambda: superlink.answer(alive, trained),
        lambda: superlink.answer(dying, trained, uploads=False),
    )

    replies = dict(prompt(world).exchange(questions([dying, alive]), 1.0))

    assert replies[dying].error.reason == "its reply did not arrive whole"
    assert not replies[alive].has_error()


class Bomb(Array):
    """An array that names its only chunk so often that it has 10 GB."""

    def deflate(self) -> bytes:
        said = {"dtype": "float32", "shape": [2], "stype": "numpy.ndarray"}
        body = json.dumps(said | {"arraychunk_ids": [0] * 2_500_000}).encode()
        return add_header_to_object_body(body, self)


class Nonsense(ConfigRecord):
    def deflate(self) -> bytes:
        return add_header_to_object_body(b"\xff no protobuf", self)


Bomb.__qualname__, Nonsense.__qualname__ = "Array", "ConfigRecord"


@pytest.mark.parametrize(
    ("kind", "reason"), [(Bomb, "its arrays have 10320000000 bytes"), (Nonsense, "Error parsing")]
)
def test_a_reply_that_cannot_be_put_together_is_an_error_of_its_node(
    superlink: Any, prompt: Prompt, kind: type, reason: str
) -> None:
    bad, good = superlink.join(), superlink.join()

    def spoiled(message: Message) -> Message:
        reply = trained(message)
        if kind is Bomb:
            reply.content["arrays"]["weights"] = Bomb(WEIGHTS)
        else:
            reply.content["arrays"] = Nonsense()
        return reply

    world = World(lambda: superlink.answer(bad, spoiled), lambda: superlink.answer(good, trained))

    replies = dict(prompt(world).exchange(questions([bad, good]), LONG))

    assert replies[bad].error.reason.startswith(f"refused update: {reason}")
    assert not replies[good].has_error()


def test_a_reply_that_is_not_whole_yet_holds_up_no_other(superlink: Any, prompt: Prompt) -> None:
    slow, quick = superlink.join(), superlink.join()
    rest: list[Callable[[], object]] = []

    def finish() -> None:
        rest[0]()

    world = World(
        lambda: rest.append(superlink.answer_slowly(slow, trained)),
        lambda: superlink.answer(quick, trained),
        *[lambda: None] * 10,
        finish,
    )

    replies = list(prompt(world).exchange(questions([slow, quick]), LONG))

    assert [node for node, _ in replies] == [quick, slow]
    assert not any(reply.has_error() for _, reply in replies)


def test_a_silent_node_is_given_up(superlink: Any, prompt: Prompt) -> None:
    silent, alive = superlink.join(), superlink.join()
    world = World(lambda: superlink.answer(alive, trained))

    replies = list(prompt(world).exchange(questions([silent, alive]), 0.3))

    assert [node for node, _ in replies] == [alive]


def test_a_reply_that_comes_after_all_is_not_taken_for_one_of_the_next_round(
    superlink: Any, prompt: Prompt
) -> None:
    late = superlink.join()
    grid = prompt(World())
    taken: list[Message] = []
    world = World(lambda: taken.append(superlink.take(late)))
    assert list(prompt(world).exchange(questions([late]), 0.1)) == []
    assert superlink.announce(raised(taken[0]))() is False, "nobody waits for it any more"

    world = World(lambda: superlink.answer(late, trained))
    ((_, reply),) = prompt(world).exchange(questions([late]), LONG)

    assert not reply.has_error()
    assert list(grid.answers()) == []


def test_the_deadline_is_kept_whoever_holds_back_an_answer() -> None:
    """The server's long poll alone would hold it back for two seconds."""
    superlink = SuperLink()
    with superlink.reached(polled=True), closing(PromptGrid(superlink.grid, World())) as grid:
        node = superlink.join()
        start = time.monotonic()
        assert list(grid.exchange(questions([node]), 0.3)) == []
        assert 0.3 <= time.monotonic() - start < 1.5


@pytest.mark.parametrize("whole", [True, False])
def test_a_reply_that_was_there_when_time_was_up_counts_if_it_is_whole(
    superlink: Any, prompt: Prompt, whole: bool
) -> None:
    first, second = superlink.join(), superlink.join()
    world = World(lambda: superlink.answer(first, trained))
    replies = prompt(world).exchange(questions([first, second]), 0.5)
    assert next(replies)[0] == first
    superlink.answer(second, trained, uploads=whole)
    time.sleep(0.5)  # as an aggregation might take

    ((who, reply),) = replies

    assert who == second
    assert reply.has_error() is not whole
    assert superlink.stored() == set()


def test_of_rounds_that_are_closed_superlink_keeps_nothing(superlink: Any, prompt: Prompt) -> None:
    """A client that is always a round late, and one that never takes its messages."""
    late, silent, good = (superlink.join() for _ in range(3))
    taken: list[Message] = []
    held: list[tuple[int, int]] = []

    def go_on() -> None:
        if taken:
            assert superlink.announce(trained(taken.pop()))() is False
        taken.append(superlink.take(late))
        superlink.answer(good, trained)

    sent: list[weakref.ref[Message]] = []
    for _ in range(50):
        messages = questions([late, silent, good])
        sent += map(weakref.ref, messages)
        grid = prompt(World(go_on))
        replies = grid.exchange(iter(messages), 0.03)
        del messages
        assert [node for node, _ in replies] == [good]
        held.append((len(superlink.stored()), superlink.messages()))
        assert superlink.waiting(silent) == 0

    assert set(held) == {(0, 0)}
    gc.collect()
    assert sum(ref() is not None for ref in sent) == 0


def test_an_exchange_that_is_closed_withdraws_what_is_open(superlink: Any, prompt: Prompt) -> None:
    quick, slow, announced = (superlink.join() for _ in range(3))
    world = World(
        lambda: superlink.answer(announced, trained, uploads=False),
        lambda: superlink.answer(quick, trained),
    )
    replies = prompt(world).exchange(questions([quick, slow, announced]), LONG)

    assert next(replies)[0] == quick
    replies.close()

    assert superlink.stored() == set()
    assert superlink.messages() == superlink.waiting(slow) == 0


def test_a_late_reply_is_among_those_of_a_later_exchange_that_wants_it(
    superlink: Any, prompt: Prompt
) -> None:
    late, good = superlink.join(), superlink.join()
    world = World(lambda: superlink.answer(good, trained))
    grid = prompt(world)
    assert len(list(grid.exchange(questions([late, good]), 0.1, keep_late=True))) == 1
    world._actions.append(lambda: superlink.answer(good, trained))
    assert len(list(grid.exchange(questions([good]), LONG))) == 1
    assert superlink.waiting(late) == 1, "it is still waited for"

    # In an exchange of its own it is waited for, in one of others it is not.
    world._actions.append(lambda: superlink.answer(good, trained))
    assert [n for n, _ in grid.exchange(questions([good]), LONG, keep_late=True)] == [good]
    superlink.answer(late, trained)
    ((who, reply),) = grid.exchange([], LONG, keep_late=True)

    assert who == late
    assert np.array_equal(reply.content["arrays"]["weights"].numpy(), WEIGHTS * 3)
    assert superlink.stored() == set()


def test_a_query_is_waited_for_by_nobody_and_an_older_one_withdrawn(
    superlink: Any, prompt: Prompt
) -> None:
    node, gone = superlink.join(), superlink.join()
    superlink.sign_off(gone)
    grid = prompt(World())
    grid.ask(questions([node, gone]))
    assert [(n, r.has_error()) for n, r in grid.answers()] == [(gone, True)]

    grid.ask(questions([node]))
    assert superlink.waiting(node) == 1
    superlink.answer(node, trained)
    assert [(n, r.has_error()) for n, r in grid.answers()] == [(node, False)]
    assert list(grid.answers()) == []

    grid.ask(questions([node]))
    grid.close()
    assert superlink.messages() == 0


def test_the_wish_to_stop_is_heard_while_waiting(superlink: Any, prompt: Prompt) -> None:
    node = superlink.join()

    with pytest.raises(RunStopped):
        list(prompt(lambda: True).exchange(questions([node]), LONG))
    with pytest.raises(RunStopped):
        prompt(lambda: True).pause(LONG)


def test_nobody_is_asked_and_nobody_answers(superlink: Any, prompt: Prompt) -> None:
    assert list(prompt(lambda: True).exchange([], LONG)) == []
