"""What is said is what is heard: built by one model, parsed by the same."""

from __future__ import annotations

import json
import math

import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedbench.config import Experiment, available, load_experiment
from fedbench.learning.pace import Speed
from fedbench.records.rounds import EpochRecord, TrainWork
from fedbench.wire import (
    WORK,
    Announcement,
    ClientTask,
    Ending,
    EvaluateReply,
    Offer,
    first_problem,
    work_record,
)


def task(experiment: Experiment, pace: Speed | None = None) -> ClientTask:
    return ClientTask(
        run="r1",
        round=3,
        classes=10,
        data="digits-1",
        pace=pace,
        experiment=experiment.model_dump_json(),
    )


@pytest.mark.parametrize("name", available("experiment"))
@pytest.mark.parametrize("pace", [None, Speed(80.0, 120.0)])
def test_any_experiment_travels_whole_in_a_record_of_flowers(name: str, pace: Speed | None) -> None:
    experiment = load_experiment(name)

    record = ConfigRecord(task(experiment, pace).record())
    heard = ClientTask.of(record)

    assert heard.experiment == experiment
    assert heard.pace == pace
    assert (heard.run, heard.round, heard.classes, heard.data) == ("r1", 3, 10, "digits-1")
    assert isinstance(record["experiment"], str), "one value"


def test_a_task_of_keys_that_nobody_knows_is_refused() -> None:
    record = task(load_experiment("digits")).record()
    unknown = json.dumps(json.loads(record["experiment"]) | {"learning_rat": 1})

    for other in (record | {"speed": 1}, record | {"round": 0}, record | {"experiment": unknown}):
        with pytest.raises(ValidationError):
            ClientTask.of(other)


@given(
    loss=st.floats(allow_nan=True),
    seconds=st.lists(st.floats(1e-3, 1e5), max_size=4),
    samples=st.integers(0, 10**6),
)
def test_a_clients_work_arrives_as_it_was(loss: float, seconds: list[float], samples: int) -> None:
    epochs = [
        EpochRecord(seconds=s, cpu_seconds=s / 2, throttled_seconds=0.0, steal_seconds=0.0)
        for s in seconds
    ]
    work = TrainWork(samples=samples, epoch_seconds=seconds, epochs=epochs, local_loss=loss)

    heard = TrainWork.model_validate_json(work_record(work)[WORK])

    assert heard.local_loss == loss or math.isnan(loss)
    assert math.isnan(heard.local_loss or 0.0) == math.isnan(loss)
    assert heard.model_copy(update={"local_loss": None}) == work.model_copy(
        update={"local_loss": None}
    )


def test_a_work_without_sense_is_told_in_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        EvaluateReply.model_validate({"test_samples": -1, "evaluate_seconds": "x"})

    assert first_problem(caught.value) == (
        "evaluate_seconds: Input should be a valid number, unable to parse string as a number"
    )


@pytest.mark.parametrize("name", ["", "Laptop", "-a", "a b", "a" * 42, "a_b", "../a"])
def test_a_name_that_is_no_hosts_is_refused(name: str) -> None:
    for names in ({"client": name, "device": "laptop"}, {"client": "laptop", "device": name}):
        with pytest.raises(ValidationError, match="expected lower-case letters"):
            Announcement(**names, instance="i", metrics_port=9101)


def test_an_ending_says_why() -> None:
    killed = Ending(exit_code=-9, killed_for_memory=True, memory_limit=300 * 2**20)

    assert Ending.model_validate_json(killed.model_dump_json()) == killed
    assert killed.reason("pc") == "killed for memory: its limit is 300 MiB (device pc)"


def test_what_there_is_to_join_is_what_the_server_told() -> None:
    """Its event has more than that."""
    experiment = load_experiment("digits")
    event = {"event": "started", "experiment": experiment.model_dump(mode="json"), "data": "d"}

    offer = Offer.model_validate(event)

    assert Offer.model_validate_json(offer.model_dump_json()).experiment == experiment
