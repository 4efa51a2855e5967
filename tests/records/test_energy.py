from __future__ import annotations

import pytest

from fedbench.records.energy import Draw, Energy

PC = Draw(40, 130)


def test_a_device_draws_its_load_while_it_is_busy() -> None:
    energy = PC.energy(idle=40, busy=60)

    assert energy == Energy(idle=1600, busy=7800)
    assert energy.total == 9400


def test_a_clock_that_ran_short_adds_nothing() -> None:
    assert PC.energy(idle=40, busy=60, share=60.1) == PC.energy(idle=40, busy=60)


def test_a_computer_is_idle_once_and_its_clients_share_what_work_adds() -> None:
    """Both are busy for 60 s, and for half of that together."""
    client = Draw.of(40, 130, clients=2)
    energy = client.energy(idle=40, busy=60, share=45)

    assert client == Draw(20, 110)
    assert energy == Energy(idle=20 * 40, busy=20 * 60 + 90 * 45)
    assert 2 * energy.total == 40 * 100 + 90 * 90


def test_watts_of_now_are_of_those_that_are_busy_now() -> None:
    client = Draw.of(40, 130, clients=3)

    assert [client.busy(active) * active for active in (1, 2, 3)] == pytest.approx(
        [active * 40 / 3 + 90 for active in (1, 2, 3)]
    )


def test_a_container_is_told_and_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Draw.of(45, 115, clients=2).environment().items():
        monkeypatch.setenv(name, value)

    assert Draw.from_environment() == Draw(22.5, 92.5)
