from __future__ import annotations

from collections import Counter
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Error, Message, MessageType, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedbench.records import ClientRound, EpochRecord, RoundParts
from fedbench.records.verdict import Emulation
from fedbench.server.directory import Directory, Member
from fedbench.server.tally import Tally, _mean

LAPTOP, PC = Member(1, "laptop", "laptop"), Member(2, "pc", "legacy-pc")
TRAIN = {
    "num-examples": 30,
    "epoch-seconds": [1.0],
    "cpu-seconds": 2.0,
    "throttled-seconds": 0.5,
    "peak-memory-bytes": 1000,
}
EVALUATE = {"num-examples": 20, "evaluate-seconds": 0.25, "peak-memory-bytes": 2000}
WIRE = {
    "bytes-sent": 10,
    "bytes-received": 200,
    "download-seconds": 0.5,
    "upload-seconds": 0.125,
    "serialise-seconds": 0.0625,
}
# What the server spent until the first reply, and for each of the others.
FIRST = Counter[str](pack=1.0, send=2.0, receive=4.0, unpack=8.0)  # type: ignore[arg-type]
LATER = Counter[str](receive=16.0, unpack=32.0)


class People:
    def member(self, node_id: int) -> Member:
        return {member.node_id: member for member in (LAPTOP, PC)}[node_id]


def reply(node: int, *figures: dict[str, Any]) -> Message:
    metrics = {key: value for some in figures for key, value in some.items()}
    message = Message(RecordDict(), node, MessageType.TRAIN)
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


@pytest.fixture
def tally() -> Tally:
    return Tally([LAPTOP, PC], cast("Directory", People()))


def both(tally: Tally, first: dict[str, Any], second: dict[str, Any]) -> None:
    """The laptop answers, then the PC, with more figures of their own."""
    tally.trained(1, reply(1, TRAIN, WIRE, first), FIRST)
    tally.trained(2, reply(2, TRAIN, WIRE, second), LATER)
    tally.evaluated(1, reply(1, EVALUATE, WIRE, first), FIRST)
    tally.evaluated(2, reply(2, EVALUATE, WIRE, second), LATER)


def parts(tally: Tally) -> RoundParts:
    parts = tally.record(1, "", 300.0, 64.0, 0.75).parts
    assert parts is not None
    return parts


def test_the_parts_are_those_of_the_client_that_worked_longest(tally: Tally) -> None:
    both(tally, {"epoch-seconds": [99.0], "download-seconds": 3.0}, {"download-seconds": 5.0})

    assert parts(tally) == RoundParts(
        send=2 * 2.0 + 2 * 3.0,
        receive=2 * 4.0 + 0.125,
        serialise=2 * 1.0 + 2 * 8.0 + 2 * 0.0625,
        aggregate=0.75,
        wait=300 - 99.25 - 10 - 8.125 - 18.125 - 0.75,
    )


def test_of_equals_the_last_to_answer_counts(tally: Tally) -> None:
    both(tally, {"download-seconds": 3.0}, {"download-seconds": 5.0})

    assert parts(tally) == RoundParts(
        send=2 * 2.0 + 2 * 5.0,
        receive=2 * 16.0 + 0.125,
        serialise=2 * 1.0 + 2 * 32.0 + 2 * 0.0625,
        aggregate=0.75,
        wait=300 - 1.25 - 14 - 32.125 - 66.125 - 0.75,
    )


def test_what_nobody_measures_is_unknown(tally: Tally) -> None:
    for node in (1, 2):
        tally.trained(node, reply(node, TRAIN), FIRST)
        tally.evaluated(node, reply(node, EVALUATE), FIRST)

    record = tally.record(1, "", 300.0, 64.0, 0.75)

    assert record.parts == RoundParts(aggregate=0.75)
    for client in record.clients:
        assert client.bytes_sent is client.bytes_received is None
        assert client.download_seconds is client.upload_seconds is client.serialise_seconds is None


def test_parts_are_unknown_of_a_client_that_did_not_evaluate(tally: Tally) -> None:
    tally.trained(1, reply(1, TRAIN, WIRE), FIRST)
    question = Message(RecordDict(), 1, MessageType.EVALUATE)
    tally.evaluated(1, Message(Error(code=2, reason="no"), reply_to=question), LATER)

    assert parts(tally) == RoundParts(aggregate=0.75)


def test_what_each_epoch_had_is_recorded_and_held_against_the_target() -> None:
    emulation = Emulation(2.0, {LAPTOP.client: 16.0}, {LAPTOP.client: 0.5})
    tally = Tally([LAPTOP, PC], cast("Directory", People()), emulation)
    epochs = {
        "num-examples": 64,
        "epoch-seconds": [8.0, 10.0],
        "epoch-cpu-seconds": [4.0, 5.0],
        "epoch-throttled-seconds": [0.0, 0.5],
        "epoch-steal-seconds": [0.0, 1.0],
        "epoch-due-seconds": [8.0, 8.0],
    }
    both(tally, epochs, {})
    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients
    assert laptop.epochs[1] == EpochRecord(
        seconds=10.0, cpu_seconds=5.0, throttled_seconds=0.5, steal_seconds=1.0
    )
    assert laptop.epochs[1].share == 0.5
    assert laptop.emulated_epoch_seconds == [4.0, 5.0]
    assert (laptop.dilation, laptop.target_epoch_seconds) == (2.0, 4.0)
    assert laptop.emulation_error == pytest.approx(0.125)
    assert laptop.not_held
    assert (pc.dilation, pc.target_epoch_seconds, pc.not_held) == (1.0, None, None), "a real one"


def test_energy_is_of_the_device_in_its_own_seconds() -> None:
    """A real device that joined is of a kind that the host knows, and nothing slows it."""
    watts = {"laptop": [10.0, 60.0], "legacy-pc": [40.0, 100.0]}
    emulation = Emulation(2.0, {LAPTOP.client: 16.0}, {LAPTOP.client: 0.5}, watts)
    tally = Tally([LAPTOP, PC], cast("Directory", People()), emulation)
    both(tally, {"epoch-seconds": [99.75]}, {"epoch-seconds": [49.75]})

    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients

    assert (laptop.energy_idle_joules, laptop.energy_busy_joules) == (10 * 100, 60 * 50)
    assert (pc.energy_idle_joules, pc.energy_busy_joules) == (40 * 250, 100 * 50)


def test_busy_seconds_of_which_a_client_had_a_part_are_so_much_less_of_its_own(
    tally: Tally,
) -> None:
    """It says so of its training and of its evaluation; one of an older version of neither."""
    trained = {"epoch-seconds": [8.0, 4.0], "busy-share": 0.5}
    tally.trained(1, reply(1, TRAIN, trained), FIRST)
    tally.trained(2, reply(2, TRAIN), LATER)
    evaluated = {"evaluate-seconds": 2.0, "busy-share": 1.0}
    tally.evaluated(1, reply(1, EVALUATE, evaluated), FIRST)
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


def test_the_download_before_the_evaluation_is_known_by_itself(tally: Tally) -> None:
    both(tally, {"download-seconds": 3.0}, {})

    laptop, pc = tally.record(1, "", 300.0, 64.0, 0.75).clients
    assert (laptop.download_seconds, laptop.evaluate_download_seconds) == (6.0, 3.0)
    assert (pc.download_seconds, pc.evaluate_download_seconds) == (1.0, 0.5)


def test_nobody_has_no_parts() -> None:
    tally = Tally([], cast("Directory", People()))

    assert parts(tally) == RoundParts(aggregate=0.75)


@given(st.lists(st.tuples(st.none() | st.floats(0, 1), st.integers(1, 10_000)), max_size=8))
def test_the_mean_is_weighted_over_those_that_reported(
    reports: list[tuple[float | None, int]],
) -> None:
    clients = [
        ClientRound(client=str(number), device="laptop", server_accuracy=value)
        for number, (value, _) in enumerate(reports)
    ]
    weights = {str(number): weight for number, (_, weight) in enumerate(reports)}
    known = [(value, weight) for value, weight in reports if value is not None]

    result = _mean(clients, weights, "server_accuracy")

    if known:
        expected = np.average([v for v, _ in known], weights=[w for _, w in known])
        assert result == pytest.approx(expected)
    else:
        assert result is None
