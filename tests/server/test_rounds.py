from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common.constant import ErrorCode
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import Experiment
from fedbench.learning.pace import Speed
from fedbench.records import ClientRound, RoundRecord
from fedbench.records.facts import EmulatedDevices, RunFacts
from fedbench.server.directory import Directory, Member
from fedbench.server.exchange import Exchange, RunStopped
from fedbench.server.registry import HUNG_UP
from fedbench.server.rounds import (
    RETURN_SECONDS,
    SAY_SECONDS,
    WAIT_POLL_SECONDS,
    Rounds,
    TooFewTrainedError,
)
from fedbench.server.strategy import FlatFedAvg, select
from fedbench.telemetry.timing import Timing
from fedbench.wire import SIGNED_OFF, ClientTask, Ending

Answer = Callable[[Message], Message] | None
LAPTOP, PC = Member(1, "laptop", "laptop", 30), Member(2, "pc", "legacy-pc", 30)
MEMBERS = {1: LAPTOP, 2: PC}
WEIGHTS = np.array([0, 1], np.float32)
TRAIN = {
    "epoch_seconds": [1.5, 1.0],
    "samples": 30,
    "local_loss": 0.5,
    "local_accuracy": 0.75,
    "cpu_seconds": 2.0,
    "throttled_seconds": 0.5,
    "bytes_sent": 10,
    "bytes_received": 200,
    "download_seconds": 0.25,
    "upload_seconds": 64.0,
    "serialise_seconds": 0.125,
    "peak_memory_bytes": 1000,
}
EVALUATE = {
    "test_samples": 20,
    "evaluate_seconds": 0.25,
    "server_loss": 1.0,
    "server_accuracy": 0.5,
    "bytes_sent": 100,
    "bytes_received": 50,
    "download_seconds": 0.5,
    "evaluate_download_seconds": 0.5,
    "upload_seconds": 1.0,
    "serialise_seconds": 0.25,
    "peak_memory_bytes": 2000,
}
PACE = {"laptop": Speed(80.0, 120.0)}


class World:
    """A directory and a grid in one: who is connected, what each answers, and the time."""

    def __init__(self, *members: Member) -> None:
        self.members = list(members)
        self.answers: dict[tuple[str, int], Answer] = {}
        self.asked: list[tuple[str, int]] = []
        self.tasks: dict[tuple[str, int], ClientTask] = {}
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.flower = None
        self.timing = Timing[str]()
        self.lost: dict[int, str] = {}
        self.now = 0.0
        self.at: dict[float, Callable[[], None]] = {}
        self.newcomers = False
        self.seconds: list[tuple[str, float]] = []  # what each kind of message was given
        self.closed: list[list[int]] = []  # nodes that were not waited for any more
        self.late: list[tuple[int, Message]] = []  # replies to the messages of earlier rounds
        self.ttl: set[float] = set()

    def connected(self) -> list[Member]:
        return list(self.members)

    def member(self, node_id: int) -> Member:
        known = MEMBERS | {member.node_id: member for member in self.members}
        return known[node_id]

    def explained(self, node_id: int, reply: Message) -> Message:
        if reply.has_error() and node_id in self.lost:
            code = ErrorCode.NODE_UNAVAILABLE
            reply.error = Error(code=code, reason=self.lost[node_id])
        return reply

    def pause(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()

    def exchange(
        self, messages: Iterable[Message], timeout: float, *, keep_late: bool = False
    ) -> Iterator[tuple[int, Message]]:
        messages = list(messages)
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            self.asked.append((kind, node))
            self.tasks[kind, node] = ClientTask.of(message.content["task"])
            self.seconds.append((kind, timeout))
            self.ttl.add(message.metadata.ttl)
        left = [message.metadata.dst_node_id for message in messages]
        try:
            while keep_late and self.late:
                yield self.late.pop()
            for message in messages:
                kind, node = message.metadata.message_type, message.metadata.dst_node_id
                if answer := self.answers[kind, node]:
                    left.remove(node)
                    yield node, answer(message)
        finally:
            self.closed.append(left)

    def say(self, event: str, **facts: Any) -> None:
        self.said.append((event, facts))

    def events(self) -> list[str]:
        return [event for event, _ in self.said]

    def rounds(self, expected: int = 2, pace: dict[str, Speed] = PACE, **experiment: Any) -> Rounds:
        chosen = Experiment.model_validate({"name": "test"} | experiment)
        facts = RunFacts(
            run="r1", experiment="test", profile="p", created="2026-01-02T03:04:05+00:00",
            clients=expected, classes=10, data="digits-1", emulation=EmulatedDevices(pace=pace),
        )  # fmt: skip
        return Rounds(
            chosen,
            facts,
            cast("Exchange", self),
            cast("Directory", self),
            self.say,
            clock=lambda: self.now,
        )


def answering(told: dict[str, Any], weights: list[float] | None = None) -> Answer:
    def answer(message: Message) -> Message:
        content = RecordDict({"work": ConfigRecord({"work": json.dumps(told)})})
        if weights:
            content["arrays"] = ArrayRecord({"weights": Array(np.array(weights, np.float32))})
        return Message(content, reply_to=message)

    return answer


def trained(weights: list[float], **told: Any) -> Answer:
    return answering(TRAIN | told, weights)


def with_records(**records: Any) -> Answer:
    """A good reply to a train message, but for some records."""

    def answer(message: Message) -> Message:
        content = RecordDict(
            {
                "work": ConfigRecord({"work": json.dumps(TRAIN)}),
                "arrays": ArrayRecord({"weights": Array(WEIGHTS)}),
            }
        )
        return Message(RecordDict(dict(content) | records), reply_to=message)

    return answer


def sending(weights: Any) -> Answer:
    return with_records(arrays=ArrayRecord({"weights": Array(np.asarray(weights))}))


def bytes_of(data: bytes, stype: str = "numpy.ndarray") -> Answer:
    """An array that says of itself that it is as it should be."""
    return with_records(arrays=ArrayRecord({"weights": Array("float32", (2,), stype, data)}))


def claiming(header: dict[str, Any]) -> Answer:
    """Eight bytes under a header that says otherwise."""
    stream = BytesIO()
    said = {"descr": "<f4", "fortran_order": False, "shape": (2,)} | header
    np.lib.format.write_array_header_1_0(stream, said)
    return bytes_of(stream.getvalue() + WEIGHTS.tobytes())


def evaluated(**told: Any) -> Answer:
    return answering(EVALUATE | told)


def failed(message: Message) -> Message:
    return Message(Error(code=2, reason="no room"), reply_to=message)


def one_round(world: World, number: int = 1, **experiment: Any) -> tuple[list[float], RoundRecord]:
    return play(world.rounds(**experiment), number)


def play(rounds: Rounds, number: int) -> tuple[list[float], RoundRecord]:
    start = ArrayRecord({"weights": Array(np.array([7, 7], np.float32))})
    arrays, record = rounds.run(FlatFedAvg(rounds.choose), number, start)
    return arrays["weights"].numpy().tolist(), record


@pytest.fixture
def world() -> World:
    """Two clients of which all goes well."""
    world = World(LAPTOP, PC)
    world.answers = {
        (MessageType.TRAIN, 1): trained([1, 0], samples=30),
        (MessageType.TRAIN, 2): trained([0, 1], samples=10),
        (MessageType.EVALUATE, 1): evaluated(server_accuracy=0.5, server_loss=1.0, test_samples=30),
        (MessageType.EVALUATE, 2): evaluated(server_accuracy=0.9, server_loss=2.0, test_samples=10),
    }
    return world


def test_a_round_trains_averages_evaluates_and_records(world: World) -> None:
    weights, record = one_round(world)

    assert weights == [0.75, 0.25]
    assert record.round == 1
    assert record.server_accuracy == pytest.approx(0.6)
    assert record.server_loss == pytest.approx(1.25)
    assert record.server_epoch_seconds == 0.25
    assert record.clients[0] == ClientRound(
        client="laptop",
        device="laptop",
        epoch_seconds=[1.5, 1.0],
        evaluate_seconds=0.25,
        samples=30,
        local_accuracy=0.75,
        local_loss=0.5,
        server_accuracy=0.5,
        server_loss=1.0,
        bytes_sent=110,
        bytes_received=250,
        download_seconds=0.75,
        evaluate_download_seconds=0.5,
        upload_seconds=1.0,  # of the evaluation's reply: the one before is the model's
        serialise_seconds=0.375,
        cpu_seconds=2.0,
        throttled_seconds=0.5,
        peak_memory_bytes=2000,
    )
    assert [client.client for client in record.clients] == ["laptop", "pc"]
    assert world.events() == ["round", "trained", "trained", "evaluated", "evaluated"]
    assert world.said[1][1] == {
        "round": 1, "client": "laptop", "seconds": 2.5, "loss": 0.5, "accuracy": 0.75,
    }  # fmt: skip


def test_overhead_is_what_the_slowest_client_does_not_explain(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = trained([0, 1], epoch_seconds=[10.0, 11.0])

    _, record = one_round(world)

    assert record.overhead_seconds == pytest.approx(record.duration_seconds - 21.25)


def test_the_parts_add_up_to_the_overhead(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = trained([0, 1], epoch_seconds=[10.0, 11.0])
    world.answers[MessageType.EVALUATE, 1] = evaluated(upload_seconds=32.0)

    _, record = one_round(world)

    assert record.parts is not None
    parts = record.parts.model_dump()
    assert parts["send"] == 0.75, "of the one that trained longest"
    assert parts["receive"] == 1.0
    assert parts["serialise"] == 0.375
    assert 0 < parts["aggregate"] <= record.aggregate_seconds
    assert sum(parts.values()) == pytest.approx(record.overhead_seconds)


def test_only_the_sampled_clients_are_asked(world: World) -> None:
    chosen = select(["laptop", "pc"], 0.5, 3, 4).clients
    node = {"laptop": 1, "pc": 2}[chosen[0]]

    _, record = one_round(world, 4, fraction=0.5, seed=3)

    assert world.asked == [(MessageType.TRAIN, node), (MessageType.EVALUATE, node)]
    assert [client.client for client in record.clients] == chosen


def test_each_client_is_told_its_own_pace_and_the_whole_experiment(world: World) -> None:
    one_round(world, 3, learning_rate=0.5, rounds=4)

    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        assert world.tasks[kind, 1].pace == PACE["laptop"]
        assert world.tasks[kind, 2].pace is None, "a real device"
        task = world.tasks[kind, 2]
        assert (task.run, task.round, task.classes, task.data) == ("r1", 3, 10, "digits-1")
        expected = {"name": "test", "learning_rate": 0.5, "rounds": 4}
        assert task.experiment == Experiment.model_validate(expected)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (trained([0, 1], samples=-3), "samples: Input should be greater than or equal to 0"),
        (trained([0, 1], samples=0), "samples: 0, expected 1 to 30, as it said that it has"),
        (trained([0, 1], samples=31), "samples: 31, expected 1 to 30, as it said that it has"),
        (trained([0, 1], samples=1.0), "samples: Input should be a valid integer"),
        (trained([0, 1], samples=True), "samples: Input should be a valid integer"),
        (trained([0, 1], samples="9"), "samples: Input should be a valid integer"),
        (trained([0, 1], samples=None), "samples: Input should be a valid integer"),
        (trained([0, 1], samples=10**400), "samples: "),
        (trained([0, 1], epoch_seconds=[]), "epoch_seconds: it does not say"),
        (trained([0, 1], epoch_seconds=[1e300]), "epoch_seconds: 1e+300, expected no more than"),
        (trained([0, 1], local_loss=None), "local_loss: it does not say"),
        (trained([0, 1], local_accuracy=math.nan), "local_accuracy: nan, expected no more than"),
        (trained([0, 1], local_accuracy=1.5), "local_accuracy: 1.5, expected 0 to 1"),
        (trained([0, 1], bytes_sent=-1), "bytes_sent: Input should be greater than or equal to 0"),
        (trained([0, 1], bytes_sent=10**300), "bytes_sent: 10000000000000000000"),
        (trained([0, 1], cpu_seconds=math.inf), "cpu_seconds: Input should be a finite number"),
        (trained([0, 1], weight=9), "weight: Extra inputs are not permitted"),
        (trained([0, 1], epoch_seconds="soon"), "epoch_seconds: Input should be a valid array"),
        (
            trained([0, 1], epoch_seconds=[math.nan]),
            "epoch_seconds.0: Input should be a finite number",
        ),
        (
            trained([0, 1], epochs=[{"seconds": 1.0, "cpu_seconds": 1.0, "steal_seconds": 0.0}]),
            "epochs.0.throttled_seconds: Field required",
        ),
        (trained([0, 1, 2]), "its model is float32 [3], expected float32 [2]"),
        (sending(np.float32([1])), "its model is float32 [1], expected float32 [2]"),
        (sending(np.float32(1)), "its model is float32 [], expected float32 [2]"),
        (sending(np.float32([[0], [1]])), "its model is float32 [2, 1], expected float32 [2]"),
        (sending(np.float64([0, 1])), "its model is float64 [2], expected float32 [2]"),
        (sending(np.int32([0, 1])), "its model is int32 [2], expected float32 [2]"),
        (sending(np.array([0, 1], ">f4")), "its model is >f4 [2], expected float32 [2]"),
        (trained([0, math.nan]), "1 of its model's 2 numbers are NaN or infinite"),
        (trained([math.inf, -math.inf]), "2 of its model's 2 numbers are NaN or infinite"),
        (
            claiming({"shape": (2**40,)}),
            "its array's header promises 4398046511104 bytes, and 8 came",
        ),
        (claiming({"shape": (-1,)}), "its array is float32 [-1], row by row; expected numbers"),
        (claiming({"shape": (1,)}), "its array's header promises 4 bytes, and 8 came"),
        (claiming({"descr": "|O"}), "its array is object [2], row by row; expected numbers"),
        (claiming({"descr": "<f8", "shape": (1,)}), "its model is float64 [1], expected float32"),
        (claiming({"fortran_order": True, "shape": (2, 1)}), "its array is float32 [2, 1], column"),
        (bytes_of(b""), "its array is no npy"),
        (bytes_of(pickle.dumps([0, 1])), "its array is no npy"),
        (bytes_of(b"\x93NUMPY\x01\x00\x08\x00((((((((" + bytes(8)), "its array is no npy"),
        (bytes_of(b"\x93NUMPY\x03\x00" + bytes(80)), "its array is no npy"),
        (bytes_of(bytes(8), "pickle"), "its array is serialised as 'pickle', expected"),
        (answering(TRAIN), "its records are work; expected arrays, work"),
        (with_records(more=ConfigRecord()), "its records are arrays, more, work; expected arrays"),
        (
            with_records(arrays=ConfigRecord({"weights": 1})),
            "arrays is a ConfigRecord, expected an",
        ),
        (with_records(arrays=ArrayRecord()), "its values in arrays are none; expected weights"),
        (
            with_records(arrays=ArrayRecord({"bias": Array(WEIGHTS)})),
            "its values in arrays are bias; expected weights",
        ),
        (
            with_records(arrays=ArrayRecord({"bias": Array(WEIGHTS), "weights": Array(WEIGHTS)})),
            "its values in arrays are bias, weights; expected weights",
        ),
        (with_records(work=MetricRecord({"work": 1})), "work is a MetricRecord, expected a Config"),
        (with_records(work=ConfigRecord({"work": 1})), "Input should be an object"),
        (with_records(work=ConfigRecord({"work": "[" * 10**5})), "Invalid JSON"),
        (
            with_records(work=ConfigRecord({"work": json.dumps(TRAIN), "and": 1})),
            "its values in work are and, work; expected work",
        ),
        (
            lambda message: Message(RecordDict(), reply_to=message),
            "its records are none; expected arrays, work",
        ),
    ],
)
def test_a_reply_that_is_not_valid_is_an_error_of_its_client(
    answer: Answer, reason: str, world: World
) -> None:
    world.answers[MessageType.TRAIN, 2] = answer

    weights, record = one_round(world)

    assert weights == [1, 0]
    error = record.clients[1].error
    assert record.clients[1] == ClientRound(
        client="pc", device="legacy-pc", error=error, missing="refused"
    )
    assert error is not None
    assert error.startswith(f"train: refused update: {reason}")
    assert len(error) < 2100
    assert (MessageType.EVALUATE, 2) not in world.asked
    reason = error.removeprefix("train: ")
    told = {"round": 1, "client": "pc", "reason": reason, "missing": "refused"}
    assert ("failed", told) in world.said
    assert RoundRecord.model_validate_json(record.model_dump_json()) == record


def test_a_loss_that_is_no_number_is_none_and_the_update_counts(world: World) -> None:
    """A model that diverges, or half precision that overflows, has such a loss.

    The record has no NaN, which JSON has not, and the mean is that of those that have a number.
    """
    world.answers[MessageType.TRAIN, 1] = trained([1, 0], local_loss=math.nan)
    world.answers[MessageType.EVALUATE, 1] = evaluated(server_loss=math.inf, test_samples=30)
    world.answers[MessageType.EVALUATE, 2] = evaluated(server_loss=2.0, test_samples=10)

    weights, record = one_round(world)

    assert weights == [0.75, 0.25]
    assert [client.local_loss for client in record.clients] == [None, 0.5]
    assert [client.server_loss for client in record.clients] == [None, 2.0]
    assert record.server_loss == 2.0
    assert [client.error for client in record.clients] == [None, None]


def test_a_client_of_unknown_size_may_train_on_any_number(world: World) -> None:
    world.members[1] = MEMBERS[2] = replace(PC, samples=None)
    try:
        world.answers[MessageType.TRAIN, 2] = trained([0, 1], samples=10_000)

        _, record = one_round(world)
    finally:
        MEMBERS[2] = PC

    assert record.clients[1].samples == 10_000


numbers = st.integers() | st.floats() | st.sampled_from([1, 1e15, 1e38, 5e-324, 1e308, 2**70])
epoch_says = st.fixed_dictionaries(
    {
        "seconds": numbers,
        "cpu_seconds": numbers,
        "throttled_seconds": numbers,
        "steal_seconds": numbers,
        "share": numbers,
    }
)
client_says = (
    st.sampled_from([None, True, "soon", {}, []]) | numbers | st.lists(numbers, max_size=3)
)


@given(
    st.dictionaries(st.sampled_from([*TRAIN, "x"]), client_says, max_size=3),
    st.lists(epoch_says, max_size=2),
    st.dictionaries(st.sampled_from([*EVALUATE, "confusion", "x"]), client_says, max_size=3),
)
def test_whatever_a_client_says_the_record_reads_back(
    trained_says: dict[str, Any], epochs: list[dict[str, float]], evaluated_says: dict[str, Any]
) -> None:
    world = World(LAPTOP, PC)
    for node in (1, 2):
        world.answers[MessageType.TRAIN, node] = trained([1, 0])
        world.answers[MessageType.EVALUATE, node] = evaluated()
    world.answers[MessageType.TRAIN, 2] = trained([1, 0], epochs=epochs, **trained_says)
    world.answers[MessageType.EVALUATE, 2] = evaluated(**evaluated_says)

    weights, record = one_round(world)

    assert weights == [1, 0]
    assert record.clients[0].error is None
    line = record.model_dump_json()
    json.loads(line, parse_constant=pytest.fail)
    assert RoundRecord.model_validate_json(line) == record


def test_an_evaluation_that_is_not_valid_is_an_error_too(world: World) -> None:
    world.answers[MessageType.EVALUATE, 2] = evaluated(confusion=[1, -1])

    weights, record = one_round(world)

    assert weights == [0.75, 0.25]
    assert record.clients[1].error == (
        "evaluate: refused reply: confusion.1: Input should be greater than or equal to 0"
    )
    assert record.server_accuracy == 0.5, "of the other alone"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"confusion": [1] * 4}, "confusion: 4 cells with 4 images, expected 100 with 20"),
        ({"confusion": [1] * 100}, "confusion: 100 cells with 100 images, expected 100 with 20"),
        ({"server_accuracy": -0.5}, "server_accuracy: -0.5, expected 0 to 1"),
        ({"server_accuracy": None}, "server_accuracy: it does not say"),
        ({"server_loss": None}, "server_loss: it does not say"),
        ({"evaluate_seconds": None}, "evaluate_seconds: it does not say"),
        ({"test_samples": 10**30}, "test_samples: 10000000000000000000"),
    ],
)
def test_figures_of_an_evaluation_are_checked(
    said: dict[str, Any], reason: str, world: World
) -> None:
    world.answers[MessageType.EVALUATE, 2] = evaluated(**said)

    _, record = one_round(world)

    error = record.clients[1].error
    assert error is not None
    assert error.startswith(f"evaluate: refused reply: {reason}")
    assert record.server_loss == 1.0, "of the other alone"


def test_a_failed_client_is_recorded_left_out_of_the_mean_and_not_waited_for_again(
    world: World,
) -> None:
    world.answers[MessageType.TRAIN, 2] = failed

    weights, record = one_round(world)

    assert weights == [1, 0]
    assert record.server_accuracy == 0.5
    assert record.clients[1] == ClientRound(
        client="pc", device="legacy-pc", error="train: no room", missing="error"
    )
    assert (MessageType.EVALUATE, 2) not in world.asked
    told = {"round": 1, "client": "pc", "reason": "no room", "missing": "error"}
    assert ("failed", told) in world.said


CLIENT_RAISED, LOST = ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.NODE_UNAVAILABLE


@pytest.mark.parametrize(
    ("code", "reason", "missing"),
    [
        (LOST, Ending(exit_code=-9, killed_for_memory=True, memory_limit=2**20).reason("pc"),
         "out_of_memory"),
        (LOST, Ending(exit_code=-9, killed_for_memory=False, memory_limit=None).reason("pc"),
         "crashed"),
        (LOST, HUNG_UP, "crashed"),
        (LOST, SIGNED_OFF, "left"),
        (LOST, "nothing was heard from it for 12 s", "network"),
        (LOST, "its reply did not arrive whole", "network"),
        (CLIENT_RAISED, "MemoryError: ", "out_of_memory"),
        (CLIENT_RAISED, "OutOfMemoryError: CUDA out of memory", "out_of_memory"),
        (CLIENT_RAISED, "refused update: 6 objects came, expected 7", "refused"),
        (CLIENT_RAISED, "ValueError: killed for memory", "error"),
        (ErrorCode.CLIENT_APP_CRASHED, "exit code 1", "crashed"),
        (ErrorCode.MESSAGE_UNAVAILABLE, "expired", "timed_out"),
        (ErrorCode.UNKNOWN, "whatever", "error"),
    ],
)  # fmt: skip
def test_the_record_and_the_event_say_why_a_client_is_missing(
    code: int, reason: str, missing: str, world: World
) -> None:
    world.answers[MessageType.TRAIN, 2] = lambda message: Message(
        Error(code=code, reason=reason), reply_to=message
    )

    _, record = one_round(world)

    assert (record.clients[1].error, record.clients[1].missing) == (f"train: {reason}", missing)
    told = {"round": 1, "client": "pc", "reason": reason, "missing": missing}
    assert ("failed", told) in world.said
    assert [client.client for client in record.missing] == ["pc"]


def test_what_the_server_knows_of_a_lost_client_is_said(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = lambda message: Message(
        Error(code=LOST, reason="no heartbeat"), reply_to=message
    )
    world.lost[2] = "killed for memory: it has no limit"

    _, record = one_round(world)

    assert record.clients[1].error == "train: killed for memory: it has no limit"
    assert record.clients[1].missing == "out_of_memory"


def test_a_late_client_is_recorded_as_late(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = None

    weights, record = one_round(world)

    assert weights == [1, 0]
    assert record.clients[1].error == "train: no answer before the round's timeout"
    assert (record.clients[1].missing, record.clients[1].late) == ("timed_out", True)
    assert (MessageType.EVALUATE, 2) not in world.asked
    assert world.said[2] == (
        "failed",
        {
            "round": 1, "client": "pc", "reason": "no answer before the round's timeout",
            "missing": "timed_out",
        },
    )  # fmt: skip


def test_a_client_that_fails_to_evaluate_has_trained_all_the_same(world: World) -> None:
    world.answers[MessageType.EVALUATE, 1] = failed
    world.answers[MessageType.EVALUATE, 2] = None

    weights, record = one_round(world)

    assert weights == [0.75, 0.25]
    assert [client.error for client in record.clients] == [
        "evaluate: no room",
        "evaluate: no answer before the round's timeout",
    ]
    assert [client.samples for client in record.clients] == [30, 10]
    assert record.server_accuracy is None
    assert record.server_loss is None
    assert record.server_epoch_seconds is None


def test_a_round_in_which_nobody_trains_is_begun_anew_until_the_run_fails(world: World) -> None:
    world.answers[MessageType.TRAIN, 1] = failed
    world.answers[MessageType.TRAIN, 2] = None

    with pytest.raises(TooFewTrainedError) as caught:
        one_round(world)

    assert str(caught.value) == (
        "no client trained in round 1, begun 3 times: laptop: train: no room; "
        "pc: train: no answer before the round's timeout"
    )
    record = caught.value.record
    assert record.below_minimum
    assert record.trained == 0
    assert record.overhead_seconds == record.duration_seconds
    assert [c.missing for c in record.missing] == ["error", "timed_out"] * 3
    assert world.asked == [(MessageType.TRAIN, 1), (MessageType.TRAIN, 2)] * 3, "nobody evaluates"
    assert RoundRecord.model_validate_json(record.model_dump_json()) == record


def test_a_round_that_had_too_few_at_first_says_so_and_counts_once(world: World) -> None:
    tries = iter([failed, trained([0, 1], samples=10)])

    def answer(message: Message) -> Message:
        return cast("Any", next(tries))(message)

    world.answers[MessageType.TRAIN, 2] = answer

    weights, record = one_round(world, min_clients=2)

    assert weights == [0.75, 0.25], "nothing of the first attempt is in it"
    assert (record.round, record.below_minimum, record.trained) == (1, False, 2)
    (attempt,) = record.attempts
    assert [(c.client, c.error, c.missing) for c in attempt.clients] == [
        ("laptop", None, None), ("pc", "train: no room", "error"),
    ]  # fmt: skip
    assert world.events() == [
        "round", "trained", "failed", "below_minimum",
        "round", "trained", "trained", "evaluated", "evaluated",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "times"),
    [({"below_minimum": "stop"}, ""), ({"failing_rounds": 2}, ", begun 2 times")],
)
def test_a_run_may_stop_below_the_minimum(
    settings: dict[str, Any], times: str, world: World
) -> None:
    world.answers[MessageType.TRAIN, 2] = failed

    with pytest.raises(TooFewTrainedError) as caught:
        one_round(world, min_clients=2, **settings)

    assert str(caught.value) == (
        f"only 1 of at least 2 clients trained in round 1{times}: pc: train: no room"
    )


def test_a_round_waits_for_its_minimum_of_clients(world: World) -> None:
    rounds = world.rounds(min_clients=2)
    play(rounds, 1)
    world.members = [PC]
    world.at[20.0] = lambda: world.members.append(LAPTOP)

    play(rounds, 2)

    assert world.now == 20.0


def test_a_round_closes_when_as_many_as_are_wanted_have_trained(world: World) -> None:
    world.answers[MessageType.TRAIN, 1] = failed
    world.members = [replace(PC, node_id=n, client=f"pc-{n}") for n in (2, 3, 4)]
    for node in (3, 4):
        world.answers[MessageType.TRAIN, node] = trained([0, 1], samples=10)
        world.answers[MessageType.EVALUATE, node] = evaluated()

    for number in range(1, 9):
        world.closed, world.said = [], []
        _, record = one_round(
            world, number, fraction=0.34, over_selection=1.0, expected=3, rounds=9
        )

        by_missing = {client.missing: client for client in record.clients}
        assert by_missing.keys() == {None, "cancelled"}
        cancelled = by_missing["cancelled"]
        assert cancelled.error == "train: not waited for: enough others had answered"
        assert cancelled.late
        assert [len(nodes) for nodes in world.closed] == [1, 0]
        assert world.events() == ["round", "trained", "cancelled", "evaluated"]


def stale(world: World, **experiment: Any) -> Rounds:
    """Two rounds of which the PC has not done its part of the first."""
    answer, world.answers[MessageType.TRAIN, 2] = world.answers[MessageType.TRAIN, 2], None
    rounds = world.rounds(late_results="stale", **experiment)
    _, first = play(rounds, 1)
    assert [client.missing for client in first.clients] == [None, "timed_out"]
    world.answers[MessageType.TRAIN, 2] = answer
    world.asked.clear()
    return rounds


def question(node: int) -> Message:
    return Message(RecordDict(), node, MessageType.TRAIN)


def test_a_late_update_is_added_when_it_comes_and_counts_for_less(world: World) -> None:
    rounds = stale(world)
    _, second = play(rounds, 2)
    assert world.asked == [(MessageType.TRAIN, 1), (MessageType.EVALUATE, 1)], "it is busy"
    busy = second.clients[1]
    assert (busy.error, busy.missing) == ("train: still busy with round 1", "timed_out")

    world.late = [(2, trained([0, 1], samples=10)(question(2)))]
    weights, third = play(rounds, 3)

    weight = 10 / math.sqrt(1 + 2)
    assert weights == pytest.approx([30 / (30 + weight), weight / (30 + weight)])
    assert [(c.staleness, c.error) for c in third.clients] == [(0, None), (2, None)]
    assert third.clients[1].samples == 10
    assert (MessageType.EVALUATE, 2) in world.asked, "it has time again"

    world.asked.clear()
    play(rounds, 4)
    assert (MessageType.TRAIN, 2) in world.asked


def test_a_late_client_that_is_lost_may_be_asked_again(world: World) -> None:
    rounds = stale(world)
    world.late = [(2, failed(question(2)))]
    _, second = play(rounds, 2)
    assert second.clients[1].error == "train: no room"

    _, third = play(rounds, 3)
    assert third.clients[1].error is None


def test_the_end_of_a_late_node_is_no_failure_of_the_client_that_started_anew(
    world: World,
) -> None:
    rounds = stale(world)
    world.members = [LAPTOP, replace(PC, node_id=3)]
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        world.answers[kind, 3] = world.answers[kind, 2]
    world.late = [(2, failed(question(2)))]

    _, second = play(rounds, 2)

    assert [client.error for client in second.clients] == [None, None]


def test_a_late_update_is_dropped_by_default(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = None
    rounds = world.rounds()
    play(rounds, 1)
    world.late = [(2, trained([0, 1])(question(2)))]
    world.asked.clear()

    play(rounds, 2)

    assert world.late, "nobody looks for it"
    assert (MessageType.TRAIN, 2) in world.asked, "it begins the current round"


def test_the_time_of_a_round_follows_from_the_devices_and_from_earlier_rounds(
    world: World,
) -> None:
    pace = {"laptop": Speed(2.0, 3.0), "pc": Speed(0.5, 3.0)}
    rounds = world.rounds(pace=pace, local_epochs=4, deadline_factor=3)
    play(rounds, 1)
    play(rounds, 2)

    times = {kind: [t for k, t in world.seconds if k == kind] for kind in ("train", "evaluate")}
    # 30 images four times at 0.5 a second; a minute besides, and the way of 10^-6 of a model.
    assert times["train"] == pytest.approx([3 * 240 + 60] * 4, abs=0.01)
    assert times["evaluate"] == pytest.approx([3600] * 2 + [3 * 0.25 + 60] * 2, abs=0.01)
    assert min(world.ttl) > 43_200


def test_the_time_of_a_round_may_be_set(world: World) -> None:
    one_round(world, round_timeout_seconds=7.5)

    assert {seconds for _, seconds in world.seconds} == {7.5}


def test_a_noop_round_has_no_figures_of_learning(world: World) -> None:
    noop = {"cpu_seconds": 0.1, "throttled_seconds": 0.0, "peak_memory_bytes": 5}
    for node in (1, 2):
        world.answers[MessageType.TRAIN, node] = answering(noop | {"samples": 1}, [7, 7])
        world.answers[MessageType.EVALUATE, node] = answering({"test_samples": 1})

    _, record = one_round(world, task="noop")

    assert record.server_accuracy is None
    assert record.server_epoch_seconds is None
    assert record.clients[0] == ClientRound(
        client="laptop", device="laptop", samples=1, cpu_seconds=0.1, throttled_seconds=0.0,
        peak_memory_bytes=5,
    )  # fmt: skip


@pytest.mark.parametrize("first", [1, 2])
def test_the_first_round_waits_for_all_later_ones_for_anybody(first: int, world: World) -> None:
    """The first of those that are run: one that goes on after a stop has the same clients."""
    world.members = [LAPTOP]
    world.at[20.0] = lambda: world.members.append(PC)
    rounds = world.rounds()
    _, record = play(rounds, first)
    assert len(record.clients) == 2
    assert world.now == 20.0

    world.members = [PC]
    _, record = play(rounds, first + 1)
    assert [client.client for client in record.clients] == ["pc"]
    assert world.now == 20.0


def test_a_client_that_has_just_come_is_given_a_moment(world: World) -> None:
    world.members, world.newcomers = [LAPTOP], True

    def says_who_it_is() -> None:
        world.members, world.newcomers = [LAPTOP, PC], False

    world.at[0.1] = says_who_it_is

    assert world.rounds().wait(1) == [LAPTOP, PC]
    assert world.now == pytest.approx(0.1, abs=0.051)
    assert world.said == []


def test_waiting_is_told_now_and_then(world: World) -> None:
    world.members = [LAPTOP]
    world.at[3 * SAY_SECONDS - 1] = lambda: world.members.append(PC)

    assert world.rounds().wait(2) == [LAPTOP, PC]
    assert world.said == [("waiting", {"connected": ["laptop"], "needed": 2})] * 3


def test_after_the_waiting_time_it_goes_on_with_those_that_came(world: World) -> None:
    world.members = [LAPTOP]

    assert world.rounds(wait_for_clients_seconds=5).wait(2) == [LAPTOP]
    assert world.now == pytest.approx(5, abs=WAIT_POLL_SECONDS)
    assert world.said[-1] == ("incomplete", {"connected": ["laptop"], "needed": 2})


@pytest.mark.parametrize(("number", "seconds"), [(1, 500.0), (3, RETURN_SECONDS)])
def test_a_run_that_goes_on_waits_for_its_clients_but_not_as_long_as_a_new_one(
    world: World, number: int, seconds: float
) -> None:
    world.members = [LAPTOP]
    rounds = world.rounds(wait_for_clients_seconds=500)
    play(rounds, number)

    assert ("incomplete", {"connected": ["laptop"], "needed": 2}) in world.said
    assert world.now == pytest.approx(seconds, abs=WAIT_POLL_SECONDS)


def test_when_nobody_came_it_says_so_and_waits_again() -> None:
    world = World()
    world.at[12.0] = lambda: world.members.append(PC)

    assert world.rounds(wait_for_clients_seconds=5).wait(1) == [PC]
    assert world.events() == ["waiting", "nobody", "waiting", "nobody", "waiting"]
    assert world.now == 12.0


def test_the_shortest_waiting_time_still_looks_once(world: World) -> None:
    assert world.rounds(wait_for_clients_seconds=1e-9).wait(2) == [LAPTOP, PC]
    assert world.said == []


def test_the_wish_to_stop_ends_the_waiting() -> None:
    world = World()

    def stop() -> None:
        raise RunStopped

    world.at[3.0] = stop
    with pytest.raises(RunStopped):
        world.rounds().wait(1)
