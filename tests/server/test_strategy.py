from __future__ import annotations

import math
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from hypothesis import given
from hypothesis import strategies as st

from fedbench.learning.flat import Running
from fedbench.server.averaging import Momentum
from fedbench.server.strategy import FlatFedAvg, select, staleness_weight

PARAMETERS = 6
clients = st.lists(
    st.tuples(
        st.lists(st.floats(-100, 100, width=32), min_size=PARAMETERS, max_size=PARAMETERS),
        st.integers(1, 60_000),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture
def strategy() -> FlatFedAvg:
    return FlatFedAvg(lambda server_round: [11, 22])


def flat_running() -> Running:
    return Running(np.array([], np.int64), np.array([], np.int64))


def reply(weights: Any, samples: float) -> Message:
    question = Message(RecordDict(), 11, MessageType.TRAIN)
    arrays = ArrayRecord({"weights": Array(np.asarray(weights, np.float32))})
    metrics = MetricRecord({"num-examples": samples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=question)


def mean(strategy: FlatFedAvg, replies: Iterator[Message]) -> np.ndarray:
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert arrays is not None
    assert metrics is None
    assert list(arrays) == ["weights"]
    weights: np.ndarray = arrays["weights"].numpy()
    return weights


@given(clients)
def test_the_mean_is_weighted_by_the_number_of_images(
    answers: list[tuple[list[float], int]],
) -> None:
    strategy = FlatFedAvg(lambda server_round: [])

    result = mean(strategy, (reply(*answer) for answer in answers))

    models = np.array([model for model, _ in answers], np.float64)
    samples = [samples for _, samples in answers]
    expected = np.average(models, axis=0, weights=samples)
    assert result.dtype == np.float32
    # n_k in float32 and one rounding for each client, relative to the largest number.
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def test_weights_are_n_k_over_n(strategy: FlatFedAvg) -> None:
    result = mean(strategy, iter([reply([1, 0], 300), reply([0, 1], 100)]))

    assert result.tolist() == [0.75, 0.25]


def test_of_all_models_two_are_held_at_once(strategy: FlatFedAvg) -> None:
    given: list[weakref.ref[Message]] = []

    def replies() -> Iterator[Message]:
        for number in range(1, 5):
            alive = sum(ref() is not None for ref in given)
            assert alive <= 1, "the sum and the reply before are enough"
            answer = reply([number] * 3, 1)
            given.append(weakref.ref(answer))
            yield answer
            del answer

    assert mean(strategy, replies()).tolist() == [2.5, 2.5, 2.5]


def test_memory_does_not_grow_with_the_number_of_clients(strategy: FlatFedAvg) -> None:
    weights = np.ones(250_000, np.float32)

    def peak(clients: int) -> int:
        tracemalloc.start()
        mean(strategy, (reply(weights * n, 1) for n in range(clients)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(3), peak(30)

    assert few > 2 * weights.nbytes
    assert many < few + weights.nbytes / 10


def test_the_models_of_the_clients_are_left_alone(strategy: FlatFedAvg) -> None:
    answer = reply([1, 2], 10)

    mean(strategy, iter([answer, reply([3, 4], 30)]))

    assert answer.content["arrays"]["weights"].numpy().tolist() == [1, 2]


def test_without_a_reply_there_is_no_new_model(strategy: FlatFedAvg) -> None:
    assert strategy.aggregate_train(1, iter([])) == (None, None)


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
def test_each_chosen_client_gets_the_model_and_the_round(strategy: FlatFedAvg, kind: str) -> None:
    arrays = ArrayRecord({"weights": Array(np.ones(2, np.float32))})
    configure = (
        strategy.configure_train if kind == MessageType.TRAIN else strategy.configure_evaluate
    )

    messages = list(configure(3, arrays, ConfigRecord({"run": "r"}), grid=None))

    assert [message.metadata.dst_node_id for message in messages] == [11, 22]
    assert {message.metadata.message_type for message in messages} == {kind}
    for message in messages:
        assert message.content["arrays"] == arrays
        assert dict(message.content["config"]) == {"run": "r", "server-round": 3}


def test_clients_may_report_different_figures(strategy: FlatFedAvg) -> None:
    question = Message(RecordDict(), 11, MessageType.EVALUATE)
    replies = [
        Message(RecordDict({"metrics": MetricRecord(figures)}), reply_to=question)
        for figures in ({"num-examples": 1, "bytes-sent": 5}, {"num-examples": 1})
    ]

    assert strategy.aggregate_evaluate(1, replies) is None


names = st.lists(st.text("abcdefgh-0123456789", min_size=1), unique=True)
fractions = st.floats(0, 1, exclude_min=True)


@given(names, fractions, st.integers(0), st.integers(1))
def test_max_of_c_times_k_and_one_clients_are_chosen(
    clients: list[str], fraction: float, seed: int, server_round: int
) -> None:
    chosen, wanted = select(clients, fraction, seed, server_round)

    assert wanted == len(chosen)
    assert len(chosen) == (max(int(fraction * len(clients)), 1) if clients else 0)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(clients)


@given(names, fractions, st.integers(0), st.integers(1), st.randoms())
def test_the_order_in_which_clients_came_does_not_matter(
    clients: list[str], fraction: float, seed: int, server_round: int, random: Random
) -> None:
    shuffled = list(clients)
    random.shuffle(shuffled)

    assert select(shuffled, fraction, seed, server_round) == select(
        clients, fraction, seed, server_round
    )


def test_everybody_takes_part_when_the_fraction_is_one() -> None:
    assert select({"c": 1, "a": 2, "b": 3}, 1.0, 7, 1).clients == ["a", "b", "c"]


def test_rounds_and_seeds_choose_differently() -> None:
    clients = [f"client-{number}" for number in range(20)]
    by_round = {tuple(select(clients, 0.2, 0, number).clients) for number in range(1, 11)}
    by_seed = {tuple(select(clients, 0.2, seed, 1).clients) for seed in range(10)}
    by_attempt = {tuple(select(clients, 0.2, 0, 1, attempt=n).clients) for n in range(10)}

    assert len(by_round) == len(by_seed) == len(by_attempt) == 10


@given(names, fractions, st.floats(0, 3), st.integers(0))
def test_over_selection_invites_more_than_are_wanted(
    clients: list[str], fraction: float, over: float, seed: int
) -> None:
    invited, wanted = select(clients, fraction, seed, 1, over=over)

    assert wanted == select(clients, fraction, seed, 1).wanted
    assert len(invited) == min(math.ceil(wanted * (1 + over)), len(clients))
    assert len(set(invited)) == len(invited)
    assert set(invited) <= set(clients)


def test_of_those_that_are_too_many_nobody_is_preferred_by_name() -> None:
    clients = [f"client-{number}" for number in range(10)]
    counts = Counter(select(clients, 0.5, 0, n, over=1.0).clients[0] for n in range(1, 1001))

    # Binomial, n = 1000, p = 0.1: the standard deviation is 9.5.
    assert all(60 < counts[client] < 140 for client in clients)


def test_a_late_update_counts_for_less() -> None:
    assert [staleness_weight(rounds) for rounds in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])


def test_of_too_few_updates_there_is_no_mean() -> None:
    running = flat_running()
    strategy = FlatFedAvg(lambda _: [], momentum=Momentum(0.5, running), minimum=2)

    assert strategy.aggregate_train(1, iter([reply([1, 2], 1)])) == (None, None)
    assert strategy.velocity is None


def test_weights_need_not_be_whole_and_their_order_does_not_matter(strategy: FlatFedAvg) -> None:
    random = np.random.default_rng(0)
    answers = [(random.normal(size=64), float(w)) for w in random.uniform(0.1, 100, 8)]
    results = {
        mean(strategy, (reply(*answer) for answer in order)).tobytes()
        for order in (answers, answers[::-1], answers[3:] + answers[:3])
    }

    assert len(results) == 1
    expected = np.average([m for m, _ in answers], axis=0, weights=[w for _, w in answers])
    np.testing.assert_allclose(np.frombuffer(results.pop(), np.float32), expected, rtol=1e-5)


def test_in_the_long_run_everybody_is_chosen_as_often() -> None:
    clients = [f"client-{number}" for number in range(10)]
    counts = dict.fromkeys(clients, 0)
    for server_round in range(1, 1001):
        for name in select(clients, 0.3, 0, server_round).clients:
            counts[name] += 1

    # Binomial, n = 1000, p = 0.3: the standard deviation is 14.5.
    assert all(230 < count < 370 for count in counts.values())


def test_a_seed_chooses_the_same_on_every_machine_and_version() -> None:
    clients = [f"client-{number}" for number in range(10)]

    assert select(clients, 0.3, 42, 3).clients == ["client-3", "client-4", "client-8"]
