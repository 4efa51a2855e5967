from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedbench.learning.data import ImageSet
from fedbench.learning.pace import Pace, Speed
from fedbench.learning.train import train


class Clock:
    """Time that passes by sleeping and by working only."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(
    work=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=50),
    speed=st.floats(10, 1000),
)
def test_a_batch_never_ends_early_and_the_epoch_on_time_if_it_can(
    work: list[float], speed: float
) -> None:
    clock = Clock()
    pace = Pace(Speed(speed, speed), sleep=clock.sleep)
    latest = 0.0
    for number, seconds in enumerate(work, 1):
        clock.now += seconds
        latest = max(latest, clock.now)
        pace.wait(32 * number, clock.now)
        assert clock.now >= 32 * number / speed - 1e-9
    assert pace.due == pytest.approx(32 * len(work) / speed)
    if clock.now > pace.due + 1e-9:  # late, and then it did not wait after its last work
        assert clock.now == latest


def test_lost_time_is_caught_up() -> None:
    clock = Clock()
    pace = Pace(Speed(100, 100), sleep=clock.sleep)
    for number, seconds in enumerate([1.0, 0.1, 0.1, 0.1, 0.1], 1):
        clock.now += seconds
        pace.wait(32 * number, clock.now)
    assert clock.now == pytest.approx(1.6)


def test_an_epoch_owes_nothing_to_the_one_before() -> None:
    clock = Clock()
    pace = Pace(Speed(100, 100), sleep=clock.sleep)
    pace.wait(64, 5.0)
    pace.wait(32, 0.1)
    assert (pace.due, clock.now) == (pytest.approx(0.32), pytest.approx(0.22))


def test_clients_that_train_at_once_share_what_the_device_does_together() -> None:
    speed = Speed(single=222, together=291)
    assert [speed.of_each(n) for n in (1, 2, 3)] == [222, 145.5, 97]
    clock, active = Clock(), 2
    pace = Pace(speed, lambda: active, clock.sleep)
    pace.wait(291, 0)
    assert clock.now == pytest.approx(2)
    active = 1  # the other has finished
    pace.wait(291 + 222, clock.now)
    assert clock.now == pytest.approx(3)


def test_a_training_takes_the_time_of_the_device() -> None:
    images = ImageSet(
        torch.zeros(64, 32, 32, 3, dtype=torch.uint8), torch.arange(64) % 10, ("",) * 10
    )
    pace = Pace(Speed(200, 200))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))  # takes next to no time by itself
    epochs = train(
        model, images, epochs=2, batch_size=16, learning_rate=0.001,
        seed=0, on_batch=lambda progress: pace.wait(progress.samples, progress.seconds),
    )  # fmt: skip
    assert all(epoch.seconds >= 64 / 200 for epoch in epochs)
