from __future__ import annotations

from typing import Any

import pytest

from fedbench.config import Experiment
from fedbench.learning.pace import Speed
from fedbench.records.deadline import (
    ALLOWANCE_SECONDS,
    LONGEST_SECONDS,
    SECONDS_PER_MEGABYTE,
    SLOWEST,
    UNKNOWN_SECONDS,
    Deadlines,
)
from fedbench.records.rounds import EvaluateWork, TrainWork
from fedbench.records.verdict import Emulation

# Of a run that is slowed by 5: speeds are those in wall seconds.
EMULATION = Emulation(
    dilation=5.0,
    targets={"pc": 10.0, "laptop": 100.0, "twin": 100.0},
    pace={"pc": Speed(2.0, 2.0), "laptop": Speed(20.0, 20.0), "twin": Speed(20.0, 20.0)},
    computers={"laptop": "laptops", "twin": "laptops"},
)
ALLOWANCE = 5 * (ALLOWANCE_SECONDS + 10 * SECONDS_PER_MEGABYTE)  # of a model of 10 MB


def deadlines(emulation: Emulation = EMULATION, alone: bool = True, **settings: Any) -> Deadlines:
    experiment = Experiment.model_validate({"name": "e", "local_epochs": 3} | settings)
    return Deadlines(experiment, emulation, alone=alone)


def test_the_slowest_of_those_that_were_chosen_sets_the_time() -> None:
    times = deadlines()

    assert times.training([("pc", 100), ("laptop", 100)], 10) == 5 * 3 * 50 + ALLOWANCE
    # Two on one computer are each half as fast.
    assert times.training([("laptop", 100)], 10) == 5 * 3 * 10 + ALLOWANCE


def test_the_factor_and_the_seconds_that_an_experiment_asks_for_count() -> None:
    times = deadlines(deadline_factor=2, local_seconds=1000)

    assert times.training([("pc", 100)], 10) == 2 * (1000 + 50) + ALLOWANCE


def test_a_time_that_was_set_is_in_seconds_of_the_device() -> None:
    times = deadlines(round_timeout_seconds=60)

    assert times.training([("pc", 100)], 10) == times.evaluation(["pc"], 10) == 300
    assert times.training([("board", 100)], 10) == 60, "nothing slows a real one"
    assert times.training([("board", 100), ("pc", 100)], 10) == 300


def test_a_device_of_unknown_speed_has_an_hour_at_first_and_then_what_it_showed() -> None:
    times = deadlines()
    real = ALLOWANCE / 5
    assert times.training([("board", 100)], 10) == UNKNOWN_SECONDS
    assert times.training([("board", 100_000)], 10) == LONGEST_SECONDS
    assert times.training([("board", 10_000)], 10) == 10_000 * 3 / SLOWEST
    # It was silent: as long as it could have another time, it may not.
    times.learn("other", TrainWork(epoch_seconds=[20.0, 20.0]))
    assert times.training([("board", 100)], 10) == 5 * 40 + real

    times.learn("board", TrainWork(epoch_seconds=[100.0, 100.0]))
    times.learn("board", TrainWork(epoch_seconds=[1.0, 1.0]))
    assert times.training([("board", 100)], 10) == 5 * 200 + real
    assert times.training([("newcomer", 100)], 10) == UNKNOWN_SECONDS


def test_an_evaluation_has_what_others_took() -> None:
    times = deadlines()
    assert times.evaluation(["pc", "board"], 10) == 5 * UNKNOWN_SECONDS
    times.learn("laptop", EvaluateWork(evaluate_seconds=30.0))

    assert times.evaluation(["pc"], 10) == 5 * 30 + ALLOWANCE
    assert times.evaluation(["board"], 10) == 5 * 30 + ALLOWANCE / 5


def test_a_task_without_training_goes_by_what_it_took() -> None:
    times = deadlines(task="noop")
    assert times.training([("pc", 1)], 10) == 5 * UNKNOWN_SECONDS
    times.learn("pc", TrainWork())

    assert times.training([("pc", 1)], 10) == ALLOWANCE


@pytest.mark.parametrize("clients", [[], [("pc", 100)]])
def test_in_one_program_clients_may_take_turns_for_hours(clients: list[tuple[str, int]]) -> None:
    times = deadlines(Emulation(), alone=False)

    assert times.training(clients, 10) == LONGEST_SECONDS
    assert times.evaluation([name for name, _ in clients], 10) == LONGEST_SECONDS
