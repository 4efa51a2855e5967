"""What `fedbench top` shows of a recorded federation could be so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import plausible
import pytest
from record_top import DEVICES, DILATION, MODEL_BYTES
from recorded import top_answers

from fedbench.host.watch.top.snapshot import snapshot
from fedbench.host.watch.top.state import DeviceState, Snapshot

WATTS = {name: device["watts"] for name, device in DEVICES.items()}
SPEEDS = {name: device["samples"] / device["target"] for name, device in DEVICES.items()}


@pytest.fixture
def state() -> Snapshot:
    return snapshot(*top_answers())


def doubts(state: Snapshot) -> list[str]:
    assert state.run is not None
    assert state.run.round_seconds is not None
    over = state.run.round - 1
    return plausible.of_top(state, WATTS, SPEEDS, over * state.run.round_seconds * 1.1 / DILATION)


def test_all_that_is_shown_of_a_recorded_federation_is_plausible(state: Snapshot) -> None:
    assert doubts(state) == []


def test_what_adds_up_is_the_runs(state: Snapshot) -> None:
    """Four rounds are over, in each of which a model went either way."""
    assert state.run is not None
    rounds = state.run.round - 1
    for device in state.devices:
        assert device.sent.bytes == device.received.bytes == rounds * MODEL_BYTES
        assert device.joules is not None


def test_what_is_checked_is_there(state: Snapshot) -> None:
    """Else the first test could not fail."""
    assert {device.client for device in state.devices} == WATTS.keys()
    for device in state.devices:
        checked = (device.watts, device.speed, device.cpu_use, device.throttled, device.memory_use)
        assert None not in checked


Change = Callable[[DeviceState], DeviceState]


def having(**figures: Any) -> Change:
    return lambda device: replace(device, **figures)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (having(watts=12_000.0), "W is 12000"),
        (having(watts=0.0), "W is 0"),
        (having(speed=5000.0), "samples/s"),
        (having(cpu_use=98.0), "CPU of quota"),
        (having(throttled=1.2), "throttled"),
        (having(accuracy=95.0), "accuracy"),
        (having(epoch=4.0), "epoch of epochs"),
        (having(memory_peak=2.0**50), "peak"),
        (having(busy_joules=1e6), "joules"),  # as since the container started, a day ago
    ],
)
def test_what_cannot_be_is_doubted(state: Snapshot, change: Change, doubt: str) -> None:
    first, *others = state.devices
    assert any(doubt in line for line in doubts(replace(state, devices=(change(first), *others))))
