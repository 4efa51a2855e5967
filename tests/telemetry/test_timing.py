import time

import pytest
from clock import Clock

from fedbench.telemetry.timing import Timing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_lap_has_what_was_measured_since_the_one_before(clock: Clock) -> None:
    timing = Timing[str]()
    for seconds in (1.0, 2.0):
        with timing.measure("send"):
            clock.now += seconds
        clock.now += 16
    with timing.measure("receive"):
        clock.now += 0.5

    assert timing.lap() == {"send": 3.0, "receive": 0.5}
    assert timing.lap() == {}
