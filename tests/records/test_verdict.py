from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.records import ClientRound, EpochRecord
from fedbench.records.facts import EmulatedDevices, RunInputs
from fedbench.records.verdict import REAL, TOLERANCE, Emulation

LAPTOP = Emulation(dilation=2.0, targets={"laptop": 100.0}, shares={"laptop": 0.8})


def epoch(
    seconds: float,
    cpu: float = 0.0,
    throttled: float = 0.0,
    steal: float = 0.0,
    due: float | None = None,
) -> EpochRecord:
    return EpochRecord(
        seconds=seconds,
        cpu_seconds=cpu,
        throttled_seconds=throttled,
        steal_seconds=steal,
        due_seconds=due,
    )


@given(
    st.lists(st.floats(0.1, 1000), min_size=1, max_size=9),
    st.integers(1, 50_000),
    st.floats(1, 2000),
    st.floats(1, 20),
)
def test_held_is_within_the_tolerance_of_the_target(
    seconds: list[float], samples: int, speed: float, dilation: float
) -> None:
    emulation = Emulation(dilation=dilation, targets={"a": speed})
    fields = emulation.verdict("a", samples, [epoch(s) for s in seconds])
    assert fields["target_epoch_seconds"] == pytest.approx(samples / speed)
    wall = samples / speed * dilation
    middle = sorted(s / wall - 1 for s in seconds)[len(seconds) // 2]
    if len(seconds) % 2:
        assert fields["emulation_error"] == pytest.approx(middle)
    assert ("not_held" in fields) == (abs(fields["emulation_error"]) > TOLERANCE)


def test_a_real_device_has_no_target() -> None:
    assert REAL.verdict("phone", 100, [epoch(3)]) == {}
    assert LAPTOP.verdict("visitor", 100, [epoch(3)]) == {}


def test_a_client_knows_best_what_was_due() -> None:
    """Others on its computer may have finished in between."""
    epochs = [epoch(6, due=6.0), epoch(3, due=3.0)]
    fields = LAPTOP.verdict("laptop", 100, epochs)
    assert fields["emulation_error"] == 0
    assert fields["target_epoch_seconds"] == 2.25


def test_nothing_slows_a_real_device() -> None:
    assert [LAPTOP.dilation_of(client) for client in ("laptop", "visitor")] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (
            epoch(4, cpu=2.4, steal=1.5),
            "+100% off its target: it had 0.60 CPUs, 0.80 were planned; "
            "the hypervisor took 38% of its time: the host is too busy",
        ),
        (
            epoch(4, cpu=2.4, throttled=1.0, steal=0.5),  # half of what it took was lost
            "+100% off its target: it had 0.60 CPUs, 0.80 were planned; "
            "its quota held it back for 0.25 CPU s in each second",
        ),
        (
            epoch(1, cpu=0.95),
            "-50% off its target: it had 0.95 CPUs, 0.80 were planned; "
            "nothing held it back to its pace",
        ),
        (
            epoch(4, cpu=3.2, throttled=1.0),
            "+100% off its target: it had 0.80 CPUs, 0.80 were planned; "
            "its quota held it back for 0.25 CPU s in each second",
        ),
        (
            epoch(4, cpu=2.4),
            "+100% off its target: it had 0.60 CPUs, 0.80 were planned; "
            "nothing held it back: the host is too slow or too busy",
        ),
    ],
)
def test_what_did_not_hold_is_told_with_its_cause(one: EpochRecord, reason: str) -> None:
    assert LAPTOP.verdict("laptop", 100, [one])["not_held"] == reason


@given(
    seconds=st.floats(0, 1e5), part=st.floats(0, 1), evaluated=st.floats(0, 1),
    dilation=st.floats(1, 20),
)  # fmt: skip
def test_idle_and_busy_seconds_are_those_of_the_round(
    seconds: float, part: float, evaluated: float, dilation: float
) -> None:
    """At one watt either way a device draws as many joules as the round has emulated seconds."""
    busy = seconds * part
    client = ClientRound(
        client="a", device="laptop", dilation=dilation,
        epoch_seconds=[busy * (1 - evaluated)], evaluate_seconds=busy * evaluated,
    )  # fmt: skip
    (drawn,) = Emulation(watts={"laptop": (1, 1)}).with_energy([client], seconds)

    assert drawn.energy_idle_joules == pytest.approx((seconds - busy) / dilation, abs=1e-6)
    assert drawn.energy_busy_joules == pytest.approx(busy / dilation)
    assert drawn.energy_joules == pytest.approx(seconds / dilation)


def test_a_client_is_not_busy_for_longer_than_its_round_took() -> None:
    """Two clocks may differ by a little."""
    client = ClientRound(client="laptop", device="laptop", epoch_seconds=[60.0])
    (drawn,) = Emulation(watts={"laptop": (40, 130)}).with_energy([client], 59.9)

    assert drawn.energy_idle_joules == 0
    assert drawn.energy_busy_joules == pytest.approx(130 * 59.9)


def test_nobody_knows_the_energy_of_a_device_without_watts_or_without_an_answer() -> None:
    emulation = Emulation(dilation=2.0, watts={"laptop": (10, 60)})
    pc = ClientRound(client="pc", device="legacy-pc", epoch_seconds=[1])
    lost = ClientRound(client="laptop", device="laptop", error="train: out of memory")

    assert emulation.with_energy([pc, lost], 10) == [pc, lost]
    assert (pc.energy_joules, lost.energy_joules) == (None, None)


def test_a_computer_is_idle_once_for_those_of_its_clients_that_answered() -> None:
    """A real device that joined has a computer of its own."""
    emulation = Emulation(
        dilation=2.0,
        watts={"pc": (40, 100)},
        computers={"one": "one", "two": "one", "three": "one"},
    )
    figures = {"device": "pc", "epoch_seconds": [60.0], "dilation": 2.0}
    one = ClientRound(client="one", busy_share_seconds=40.0, **figures)
    two = ClientRound(client="two", busy_share_seconds=40.0, **figures)
    lost = ClientRound(client="three", device="pc", error="train: out of memory")
    joined = ClientRound(client="joined", device="pc", epoch_seconds=[60.0])

    *shared, nothing, alone = emulation.with_energy([one, two, lost, joined], 100)

    for client in shared:
        assert (client.energy_idle_joules, client.energy_busy_joules) == (
            20 * 20,
            20 * 30 + 60 * 20,
        )
    assert nothing.energy_joules is None
    assert alone.energy_joules == 40 * 40 + 100 * 60


def test_facts_of_an_older_run_are_those_of_real_devices() -> None:
    assert Emulation.of(RunInputs()) == REAL
    devices = EmulatedDevices(dilation=2.0, targets={"a": 1.0}, shares={"a": 0.5})
    assert Emulation.of(RunInputs(emulation=devices)) == Emulation(
        dilation=2.0, targets={"a": 1.0}, shares={"a": 0.5}
    )
    watts = {"laptop": (10.0, 60.0)}
    assert Emulation.of(RunInputs(watts=watts)) == Emulation(watts=watts)
    computers = {"a": "a", "b": "a"}
    devices = EmulatedDevices(computers=computers)
    assert Emulation.of(RunInputs(emulation=devices)) == Emulation(computers=computers)
