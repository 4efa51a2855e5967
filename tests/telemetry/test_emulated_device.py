from __future__ import annotations

import pytest

from fedbench.records.energy import Draw
from fedbench.telemetry.emulated_device import REAL_DEVICE, EmulatedDevice


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEDBENCH_DILATION", "FEDBENCH_WATTS"):
        monkeypatch.delenv(name, raising=False)


def test_the_plan_says_what_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBENCH_DILATION", "2.5")
    monkeypatch.setenv("FEDBENCH_WATTS", "2.8,13.8")

    assert EmulatedDevice.from_environment() == EmulatedDevice(2.5, Draw(2.8, 13.8))


def test_nothing_said_is_a_real_device() -> None:
    assert EmulatedDevice.from_environment() == REAL_DEVICE
