from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.records import ClientRound, EpochRecord, RoundParts
from fedbench.records.rounds import EvaluateWork, TrainWork
from fedbench.records.verdict import Emulation
from fedbench.server.directory import Member
from fedbench.server.tally import Tally
from fedbench.wire import EvaluateReply

LAPTOP, PC = Member(1, "laptop", "laptop"), Member(2, "pc", "legacy-pc")
TRAIN = {
    "samples": 30,
    "epoch_seconds": [1.0],
    "cpu_seconds": 2.0,
    "throttled_seconds": 0.5,
    "peak_memory_bytes": 1000,
}
EVALUATE = {"test_samples": 20, "evaluate_seconds": 0.25, "peak_memory_bytes": 2000}
WIRE = {
    "bytes_sent": 10,
    "bytes_received": 200,
    "download_seconds": 0.5,
    "upload_seconds": 0.125,
    "serialise_seconds": 0.0625,
}
# What the server spent until the first reply, and for each of the others.
FIRST = Counter[str](pack=1.0, send=2.0, receive=4.0, unpack=8.0)  # type: ignore[arg-type]
LATER = Counter[str](receive=16.0, unpack=32.0)


def trained(*told: dict[str, Any]) -> TrainWork:
    return TrainWork.model_validate({key: value for some in told for key, value in some.items()})


def evaluated(*told: dict[str, Any]) -> EvaluateReply:
    values = {key: value for some in told for key, value in some.items()}
    return EvaluateReply.model_validate(values)


@pytest.fixture
def tally() -> Tally:
    return Tally([LAPTOP, PC])


def both(tally: Tally, first: dict[str, Any], second: dict[str, Any]) -> None:
    """The laptop answers, then the PC, with more figures of their own."""
    tally.add("laptop", trained(TRAIN, WIRE, first), FIRST)
    tally.add("pc", trained(TRAIN, WIRE, second), LATER)
    tally.add("laptop", evaluated(EVALUATE, WIRE, first), FIRST)
    tally.add("pc", evaluated(EVALUATE, WIRE, second), LATER)


def parts(tally: Tally) -> RoundParts:
    parts = tally.record(1, "", 300.0, 64.0, 0.75).parts
    assert parts is not None
    return parts


def test_the_parts_are_those_of_the_client_that_worked_longest(tally: Tally) -> None:
    both(tally, {"epoch_seconds": [99.0], "download_seconds": 3.0}, {"download_seconds": 5.0})

    assert parts(tally) == RoundParts(
        send=2 * 2.0 + 2 * 3.0,
        receive=2 * 4.0 + 0.125,
        serialise=2 * 1.0 + 2 * 8.0 + 2 * 0.0625,
        aggregate=0.75,
        wait=300 - 99.25 - 10 - 8.125 - 18.125 - 0.75,
    )


def test_of_equals_the_last_to_answer_counts(tally: Tally) -> None:
    both(tally, {"download_seconds": 3.0}, {"download_seconds": 5.0})

    assert parts(tally) == RoundParts(
        send=2 * 2.0 + 2 * 5.0,
        receive=2 * 16.0 + 0.125,
        serialise=2 * 1.0 + 2 * 32.0 + 2 * 0.0625,
        aggregate=0.75,
        wait=300 - 1.25 - 14 - 32.125 - 66.125 - 0.75,
    )


def test_what_nobody_measures_is_unknown(tally: Tally) -> None:
    for client in ("laptop", "pc"):
        tally.add(client, trained(TRAIN), FIRST)
        tally.add(client, evaluated(EVALUATE), FIRST)

    record = tally.record(1, "", 300.0, 64.0, 0.75)

    assert record.parts == RoundParts(aggregate=0.75)
    for client in record.clients:
        assert client.bytes_sent is client.bytes_received is None
        assert client.download_seconds is client.upload_seconds is client.serialise_seconds is None


def test_parts_are_unknown_of_a_client_that_did_not_evaluate(tally: Tally) -> None:
    tally.add("laptop", trained(TRAIN, WIRE), FIRST)
    tally.failed("laptop", "evaluate", "no", "error", LATER)

    assert parts(tally) == RoundParts(aggregate=0.75)


def test_what_each_epoch_had_is_recorded_and_held_against_the_target() -> None:
    emulation = Emulation(dilation=2.0, targets={LAPTOP.client: 16.0}, shares={LAPTOP.client: 0.5})
    tally = Tally([LAPTOP, PC], emulation)
    records = [
        EpochRecord(
            seconds=seconds,
            cpu_seconds=seconds / 2,
            throttled_seconds=throttled,
            steal_seconds=steal,
            due_seconds=8.0,
        )
        for seconds, throttled, steal in ((8.0, 0.0, 0.0), (10.0, 0.5, 1.0))
    ]
    epochs = {"samples": 64, "epoch_seconds": [8.0, 10.0], "epochs": records}
    both(tally, epochs, {})
    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients
    assert laptop.epochs == records
    assert laptop.epochs[1].share == 0.5
    assert laptop.emulated_epoch_seconds == [4.0, 5.0]
    assert (laptop.dilation, laptop.target_epoch_seconds) == (2.0, 4.0)
    assert laptop.emulation_error == pytest.approx(0.125)
    assert laptop.not_held
    assert (pc.dilation, pc.target_epoch_seconds, pc.not_held) == (1.0, None, None), "a real one"


def test_energy_is_of_the_device_in_its_own_seconds() -> None:
    """A real device that joined is of a kind that the host knows, and nothing slows it."""
    watts = {"laptop": (10.0, 60.0), "legacy-pc": (40.0, 100.0)}
    emulation = Emulation(
        dilation=2.0, targets={LAPTOP.client: 16.0}, shares={LAPTOP.client: 0.5}, watts=watts
    )
    tally = Tally([LAPTOP, PC], emulation)
    both(tally, {"epoch_seconds": [99.75]}, {"epoch_seconds": [49.75]})

    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients

    assert (laptop.energy_idle_joules, laptop.energy_busy_joules) == (10 * 100, 60 * 50)
    assert (pc.energy_idle_joules, pc.energy_busy_joules) == (40 * 250, 100 * 50)


def test_busy_seconds_of_which_a_client_had_a_part_are_so_much_less_of_its_own(
    tally: Tally,
) -> None:
    """It says so of its training and of its evaluation; one of an older version of neither."""
    told = {"epoch_seconds": [8.0, 4.0], "busy_share_seconds": 6.0}
    tally.add("laptop", trained(TRAIN, told), FIRST)
    tally.add("pc", trained(TRAIN), LATER)
    told = {"evaluate_seconds": 2.0, "busy_share_seconds": 2.0}
    tally.add("laptop", evaluated(EVALUATE, told), FIRST)
    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients

    assert (laptop.busy_seconds, laptop.busy_share_seconds) == (14, 8)
    assert pc.busy_share_seconds is None


def test_the_last_record_has_the_confusion_of_all_that_evaluated(tally: Tally) -> None:
    both(tally, {"confusion": [1, 2, 0, 4]}, {"confusion": [10, 0, 0, 5]})

    assert tally.record(1, "", 300.0, 64.0, 0.75).confusion is None
    assert tally.record(1, "", 300.0, 64.0, 0.75, last=True).confusion == [[11, 2], [0, 9]]


def test_a_run_that_evaluates_nothing_has_no_confusion(tally: Tally) -> None:
    both(tally, {}, {})

    assert tally.record(1, "", 300.0, 64.0, 0.75, last=True).confusion is None


def test_a_client_that_failed_has_what_it_did_before(tally: Tally) -> None:
    tally.add("laptop", trained(TRAIN, WIRE), FIRST)
    tally.failed("laptop", "evaluate", "out of memory", "out_of_memory", LATER)
    assert (tally.silent("train"), tally.silent("evaluate")) == (["pc"], [])
    tally.missed("pc", "train", "no answer before the round's timeout", "timed_out")
    assert tally.silent("train") == []

    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients

    assert (laptop.error, laptop.samples, laptop.bytes_sent) == ("evaluate: out of memory", 30, 10)
    assert (laptop.missing, laptop.late) == ("out_of_memory", False)
    assert laptop.upload_seconds is None, "it told that of an earlier reply"
    assert (pc.error, pc.late) == ("train: no answer before the round's timeout", True)
    assert pc.missing == "timed_out"


def test_an_update_that_comes_late_is_of_the_round_in_which_it_comes(tally: Tally) -> None:
    """Its training was not within the round: it explains nothing of the round's time."""
    tally.add("laptop", trained(TRAIN, WIRE), FIRST)
    tally.missed("pc", "train", "still busy with round 1", "timed_out")
    nas = Member(3, "nas", "very-old-pc")
    for late in (PC, nas):
        tally.add_late(late, trained(TRAIN, WIRE, {"epoch_seconds": [900.0]}), LATER, 2)
    assert tally.survivors() == [LAPTOP, PC, nas]
    for client in ("laptop", "pc", "nas"):
        tally.add(client, evaluated(EVALUATE), FIRST)

    record = tally.record(3, "", 300.0, 64.0, 0.75)

    assert [(c.client, c.staleness, c.error) for c in record.clients] == [
        ("laptop", 0, None), ("pc", 2, None), ("nas", 2, None),
    ]  # fmt: skip
    assert record.overhead_seconds == 300 - 1.25
    assert record.trained == 3


def test_the_record_has_every_field_that_a_client_tells() -> None:
    """Nothing is renamed on the way, and only what the means are made of stays behind."""
    told = {*TrainWork.model_fields, *EvaluateWork.model_fields}

    assert told <= ClientRound.model_fields.keys()
    assert EvaluateReply.model_fields.keys() - told == {"test_samples", "confusion"}


def test_nobody_has_no_parts() -> None:
    tally = Tally([])

    assert parts(tally) == RoundParts(aggregate=0.75)


@given(st.lists(st.tuples(st.none() | st.floats(0, 1), st.integers(1, 10_000)), max_size=8))
def test_the_mean_is_weighted_over_those_that_reported(
    reports: list[tuple[float | None, int]],
) -> None:
    tally = Tally([Member(number, str(number), "laptop") for number in range(len(reports))])
    for number, (value, weight) in enumerate(reports):
        reply = EvaluateReply(server_accuracy=value, test_samples=weight)
        tally.add(str(number), reply, FIRST)
    known = [(value, weight) for value, weight in reports if value is not None]

    result = tally.record(1, "", 300.0, 64.0, 0.75).server_accuracy

    if known:
        expected = np.average([v for v, _ in known], weights=[w for _, w in known])
        assert result == pytest.approx(expected)
    else:
        assert result is None
