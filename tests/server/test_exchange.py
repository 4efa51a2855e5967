from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from clock import Clock

from fedbench.server.exchange import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_the_stopwatch_counts_the_consumer_and_not_the_items(clock: Clock) -> None:
    def items() -> Iterator[Any]:
        for seconds in (10.0, 20.0):
            clock.now += seconds
            yield seconds
        clock.now += 40.0

    watch = Stopwatch(items())
    for _ in watch:
        clock.now += 1.5
    clock.now += 0.25

    assert watch.consumer_seconds() == 3.25
    assert watch.last_seconds() == 1.75


def test_without_items_all_of_it_is_the_end(clock: Clock) -> None:
    watch = Stopwatch(iter(()))
    assert list(watch) == []
    clock.now += 2

    assert watch.consumer_seconds() == watch.last_seconds() == 2
