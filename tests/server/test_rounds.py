from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, RecordDict

from fedbench.config import Experiment
from fedbench.learning.pace import Speed
from fedbench.records import ClientRound, RoundRecord
from fedbench.records.facts import EmulatedDevices, RunFacts
from fedbench.server.directory import Directory, Member
from fedbench.server.exchange import Exchange, RunStopped
from fedbench.server.rounds import SAY_SECONDS, WAIT_POLL_SECONDS, Rounds
from fedbench.server.strategy import FlatFedAvg, select
from fedbench.telemetry.timing import Timing
from fedbench.wire import ClientTask

Answer = Callable[[Message], Message] | None
LAPTOP, PC = Member(1, "laptop", "laptop"), Member(2, "pc", "legacy-pc")
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

    def connected(self) -> list[Member]:
        return list(self.members)

    def member(self, node_id: int) -> Member:
        return {member.node_id: member for member in (LAPTOP, PC)}[node_id]

    def explained(self, node_id: int, reply: Message) -> Message:
        if reply.has_error() and node_id in self.lost:
            reply.error = Error(code=3, reason=self.lost[node_id])
        return reply

    def pause(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()

    def exchange(
        self, messages: Iterable[Message], timeout: float
    ) -> Iterator[tuple[int, Message]]:
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            self.asked.append((kind, node))
            self.tasks[kind, node] = ClientTask.of(message.content["task"])
            if answer := self.answers[kind, node]:
                yield node, answer(message)

    def say(self, event: str, **facts: Any) -> None:
        self.said.append((event, facts))

    def events(self) -> list[str]:
        return [event for event, _ in self.said]

    def rounds(self, expected: int = 2, **experiment: Any) -> Rounds:
        chosen = Experiment.model_validate({"name": "test"} | experiment)
        facts = RunFacts(
            run="r1", experiment="test", profile="p", created="2026-01-02T03:04:05+00:00",
            clients=expected, classes=10, data="digits-1", emulation=EmulatedDevices(pace=PACE),
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


def evaluated(**told: Any) -> Answer:
    return answering(EVALUATE | told)


def failed(message: Message) -> Message:
    return Message(Error(code=2, reason="out of memory"), reply_to=message)


def one_round(world: World, number: int = 1, **experiment: Any) -> tuple[list[float], RoundRecord]:
    rounds = world.rounds(**experiment)
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
    chosen = select(["laptop", "pc"], 0.5, 3, 4)
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
        (trained([0, 1], samples=0), "samples: it trained on none"),
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
        (answering(TRAIN), "its model is nothing, expected float32 [2]"),
        (
            lambda message: Message(RecordDict(), reply_to=message),
            "it does not say what was done",
        ),
    ],
)
def test_a_reply_that_is_not_valid_is_an_error_of_its_client(
    answer: Answer, reason: str, world: World
) -> None:
    world.answers[MessageType.TRAIN, 2] = answer

    weights, record = one_round(world)

    assert weights == [1, 0]
    assert record.clients[1] == ClientRound(
        client="pc", device="legacy-pc", error=f"train: its reply is not valid: {reason}"
    )
    assert (MessageType.EVALUATE, 2) not in world.asked
    assert ("failed", {
        "round": 1, "client": "pc", "reason": f"its reply is not valid: {reason}",
    }) in world.said  # fmt: skip


def test_an_evaluation_that_is_not_valid_is_an_error_too(world: World) -> None:
    world.answers[MessageType.EVALUATE, 2] = evaluated(confusion=[1, -1])

    weights, record = one_round(world)

    assert weights == [0.75, 0.25]
    assert record.clients[1].error == (
        "evaluate: its reply is not valid: confusion.1: Input should be greater than or equal to 0"
    )
    assert record.server_accuracy == 0.5, "of the other alone"


def test_a_failed_client_is_recorded_left_out_of_the_mean_and_not_waited_for_again(
    world: World,
) -> None:
    world.answers[MessageType.TRAIN, 2] = failed

    weights, record = one_round(world)

    assert weights == [1, 0]
    assert record.server_accuracy == 0.5
    assert record.clients[1] == ClientRound(
        client="pc", device="legacy-pc", error="train: out of memory"
    )
    assert (MessageType.EVALUATE, 2) not in world.asked
    assert ("failed", {"round": 1, "client": "pc", "reason": "out of memory"}) in world.said


def test_the_record_and_the_event_say_why_a_client_is_gone(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = failed
    world.lost[2] = "killed for memory"

    _, record = one_round(world)

    assert record.clients[1].error == "train: killed for memory"
    assert ("failed", {"round": 1, "client": "pc", "reason": "killed for memory"}) in world.said


def test_a_late_client_is_recorded_as_late(world: World) -> None:
    world.answers[MessageType.TRAIN, 2] = None

    weights, record = one_round(world)

    assert weights == [1, 0]
    assert record.clients[1].error == "train: no answer before the round's timeout"
    assert (MessageType.EVALUATE, 2) not in world.asked


def test_a_client_that_fails_to_evaluate_has_trained_all_the_same(world: World) -> None:
    world.answers[MessageType.EVALUATE, 1] = failed
    world.answers[MessageType.EVALUATE, 2] = None

    weights, record = one_round(world)

    assert weights == [0.75, 0.25]
    assert [client.error for client in record.clients] == [
        "evaluate: out of memory",
        "evaluate: no answer before the round's timeout",
    ]
    assert [client.samples for client in record.clients] == [30, 10]
    assert record.server_accuracy is None
    assert record.server_loss is None
    assert record.server_epoch_seconds is None


def test_the_model_stays_as_it_was_when_nobody_trained(world: World) -> None:
    world.answers[MessageType.TRAIN, 1] = failed
    world.answers[MessageType.TRAIN, 2] = None

    weights, record = one_round(world)

    assert weights == [7, 7]
    assert all(client.error for client in record.clients)
    assert record.overhead_seconds == record.duration_seconds


def test_a_noop_round_has_no_figures_of_learning(world: World) -> None:
    noop = {"cpu_seconds": 0.1, "throttled_seconds": 0.0, "peak_memory_bytes": 5}
    for node in (1, 2):
        world.answers[MessageType.TRAIN, node] = answering(noop | {"samples": 1}, [7, 7])
        world.answers[MessageType.EVALUATE, node] = answering({"test_samples": 1})

    _, record = one_round(world)

    assert record.server_accuracy is None
    assert record.server_epoch_seconds is None
    assert record.clients[0] == ClientRound(
        client="laptop", device="laptop", samples=1, cpu_seconds=0.1, throttled_seconds=0.0,
        peak_memory_bytes=5,
    )  # fmt: skip


def test_the_first_round_waits_for_all_later_ones_for_anybody(world: World) -> None:
    world.members = [LAPTOP]
    world.at[20.0] = lambda: world.members.append(PC)
    _, record = one_round(world, 1)
    assert len(record.clients) == 2
    assert world.now == 20.0

    world.members = [PC]
    _, record = one_round(world, 2)
    assert [client.client for client in record.clients] == ["pc"]
    assert world.now == 20.0


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
