from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fedbench.server.timing import Stopwatch, Timing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_lap_has_what_was_measured_since_the_one_before(clock: Clock) -> None:
    timing = Timing()
    for seconds in (1.0, 2.0):
        with timing.measure("send"):
            clock.now += seconds
        clock.now += 16
    with timing.measure("receive"):
        clock.now += 0.5

    assert timing.lap() == {"send": 3.0, "receive": 0.5}
    assert timing.lap() == {}


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
