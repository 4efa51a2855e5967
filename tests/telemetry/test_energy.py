from __future__ import annotations

from fedbench.telemetry.energy import Energy, modelled


def test_a_device_draws_its_load_while_it_is_busy() -> None:
    energy = modelled(40, 130, busy=60, seconds=100)

    assert energy == Energy(idle=1600, busy=7800)
    assert energy.total == 9400


def test_a_clock_that_ran_short_takes_nothing_back() -> None:
    assert modelled(40, 130, busy=60, seconds=59.9) == Energy(idle=0, busy=7800)
