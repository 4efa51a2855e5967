"""The grid in memory, with workers that answer when they are told to."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, cast

import pytest
from flwr.app import Message, MessageType, RecordDict

from fedbench.engines.in_process import grid as grid_module
from fedbench.engines.in_process.grid import MemoryGrid
from fedbench.engines.in_process.workers import Workers
from fedbench.flower.messages import identify

SHORT = 0.01


class Pool:
    """Workers of which each is busy until its client's answer is given."""

    def __init__(self) -> None:
        self.node_ids = [1, 2, 3, 4]
        self.futures: dict[int, list[Future[Message]]] = {node: [] for node in self.node_ids}

    def submit(self, message: Message) -> Future[Message]:
        future = Future[Message]()
        self.futures[message.metadata.dst_node_id].append(future)
        return future

    def answer(self, node: int) -> None:
        self.futures[node][-1].set_result(cast("Message", f"reply of {node}"))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(grid_module, "POLL_SECONDS", 0.001)
    identify(1)
    return Pool()


def grid(pool: Pool, *actions: tuple[int, ...]) -> MemoryGrid:
    """A grid; each time that it looks, the nodes of an action answer."""
    left = list(actions)

    def look() -> None:
        for node in left.pop(0) if left else ():
            pool.answer(node)

    return MemoryGrid(cast("Workers", pool), look=look)


def to(nodes: Iterable[int]) -> list[Message]:
    return [Message(RecordDict(), node, MessageType.TRAIN) for node in nodes]


def test_what_is_late_is_withdrawn_and_what_was_begun_is_dropped(pool: Pool) -> None:
    memory = grid(pool, (1, 4))
    replies: list[Any] = []
    for node, reply in memory.exchange(to([1, 2, 3, 4]), SHORT):
        replies.append((node, reply))
        if node == 1:
            assert pool.futures[2][-1].set_running_or_notify_cancel()

    assert replies == [(1, "reply of 1"), (4, "reply of 4")]
    assert [pool.futures[node][-1].cancelled() for node in (2, 3)] == [False, True]
    pool.answer(2)
    assert list(memory.exchange([], SHORT, keep_late=True)) == []


def test_an_exchange_that_is_closed_waits_for_nobody(pool: Pool) -> None:
    replies = grid(pool, (1,)).exchange(to([1, 2, 3]), 60)
    assert next(replies)[0] == 1
    replies.close()

    assert [pool.futures[node][-1].cancelled() for node in (2, 3)] == [True, True]


def test_a_late_reply_is_among_those_of_a_later_exchange_that_wants_it(pool: Pool) -> None:
    memory = grid(pool, (1,))
    assert [n for n, _ in memory.exchange(to([1, 2]), SHORT, keep_late=True)] == [1]
    pool.answer(2)
    assert list(memory.exchange([], SHORT)) == []
    memory._look = lambda: pool.answer(3)

    assert [n for n, _ in memory.exchange(to([3]), 60, keep_late=True)] == [3, 2]
    assert list(memory.exchange([], SHORT, keep_late=True)) == []


def test_queries_are_waited_for_by_nobody(pool: Pool) -> None:
    memory = grid(pool)
    memory.ask(to([1, 2]))
    assert list(memory.answers()) == []
    pool.answer(2)
    assert [n for n, _ in memory.answers()] == [2]

    memory.ask(to([1]))
    first, second = pool.futures[1]
    assert first.cancelled()
    assert not second.cancelled()
    pool.answer(1)
    assert [n for n, _ in memory.answers()] == [1]
