from __future__ import annotations

from clock import Clock
from deadline import Deadline


def test_it_counts_down_to_nothing() -> None:
    clock = Clock()
    deadline = Deadline(10, clock)
    assert deadline.left() == 10
    clock.now += 4
    assert deadline.left() == 6
    clock.now += 40
    assert deadline.left() == 0


def test_a_part_ends_earlier_and_never_later() -> None:
    clock = Clock()
    deadline = Deadline(10, clock)
    clock.now += 2
    assert deadline.part(3).left() == 3
    assert deadline.part(share=0.25).left() == 2
    assert deadline.part(5, share=0.25).left() == 2
    assert deadline.part(60).left() == 8
    short = deadline.part(3)
    clock.now += 4
    assert (short.left(), deadline.left()) == (0, 4)
