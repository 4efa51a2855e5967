"""What a run's folder says of a fault."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedbench.config import Experiment
from fedbench.host.chaos import signs
from fedbench.host.chaos.scenario import When

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROUNDS = Experiment(name="chaos", rounds=2)


def event(name: str, seconds: float = 0, **facts: Any) -> dict[str, Any]:
    return {"event": name, "time": (START + timedelta(seconds=seconds)).isoformat()} | facts


def begun(number: int, *clients: str) -> dict[str, Any]:
    return event("round", round=number, rounds=3, clients=list(clients))


def done(name: str, number: int, client: str) -> dict[str, Any]:
    return event(name, round=number, client=client)


def client(name: str, **facts: Any) -> dict[str, Any]:
    return {"client": name, "error": None} | facts


def record(folder: Path, *rounds: dict[str, Any]) -> bytes:
    content = "".join(f"{json.dumps(each)}\n" for each in rounds).encode()
    (folder / "rounds.jsonl").write_bytes(content)
    return content


def numbered(number: int, *clients: dict[str, Any]) -> dict[str, Any]:
    return {"round": number, "clients": clients or [client("a")]}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The folder of a run that finished."""
    record(tmp_path, numbered(1), numbered(2))
    for name in ("model", "checkpoint"):
        save_file({"weights": np.ones(3, np.float32)}, tmp_path / f"{name}.safetensors")
    return tmp_path


ROUND = [
    begun(2, "a", "b"),
    done("trained", 2, "a"),
    done("trained", 2, "b"),
    done("evaluated", 2, "b"),
    done("evaluated", 2, "a"),
    event("recorded", round=2, rounds=3),
]


@pytest.mark.parametrize(
    ("phase", "first"), [("training", 1), ("aggregating", 2), ("checkpoint", 5), ("between", 6)]
)
def test_a_phase_begins_with_what_the_run_says(phase: Any, first: int) -> None:
    when = When(round=2, phase=phase)
    told = [signs.began(ROUND[:number], when) for number in range(len(ROUND) + 1)]

    assert told == [number >= first for number in range(len(ROUND) + 1)]
    assert not signs.began(ROUND, When(round=3, phase=phase))


def test_it_is_known_when_the_run_first_says_something_of_the_victim() -> None:
    events = [
        event("failed", -1, round=1, client="a", reason="before"),
        event("trained", 1, round=2, client="a"),
        event("failed", 2, round=2, client="b", reason="another"),
        event("failed", 3, round=2, client="a", reason="it died"),
        event("failed", 4, round=2, client="a", reason="it died again"),
    ]

    found = signs.known(events, START, "a")

    assert found == signs.Sighting(at=START + timedelta(seconds=3), words="failed: it died")
    assert signs.known(events[:3], START, "a") is None


def test_what_no_event_told_is_known_when_it_is_recorded() -> None:
    events = [event("recorded", number, round=number, rounds=3) for number in (1, 2, 3)]
    missed = [signs.MissedRound(round=number, client="a", why="late") for number in (1, 3)]

    found = signs.recorded(events, START + timedelta(seconds=1.5), "a", missed)

    assert found == signs.Sighting(at=START + timedelta(seconds=3), words="recorded: late")
    assert signs.recorded(events, START, "b", missed) is None


def test_a_server_that_was_lost_is_known_by_a_run_that_starts_again() -> None:
    events = [event("started", -1, after_round=0), begun(2, "a"), event("started", 4)]

    found = signs.known(events, START, "server")

    assert found == signs.Sighting(at=START + timedelta(seconds=4), words="started")
    assert signs.known([event("started", 4)], START, "server") is None, "it only begins"
    revived = [event("revived", 1, service="prometheus"), event("revived", 2, service="server")]
    assert signs.known(revived, START, "server") == signs.Sighting(
        at=START + timedelta(seconds=2), words="revived"
    )


def test_who_missed_a_round_is_told_with_the_reason(tmp_path: Path) -> None:
    record(
        tmp_path,
        numbered(1, client("a"), client("b")),
        numbered(2, client("a"), client("b", error="train: it died", missing="crashed")),
        numbered(3, client("a", error="evaluate: late")),
    )

    found = signs.missed(tmp_path, ["a", "b"])

    assert [(one.round, one.client, one.why) for one in found] == [
        (2, "b", "crashed: train: it died"),
        (3, "a", "evaluate: late"),
        (3, "b", "it was not there"),
    ]


def test_rounds_begun_again_and_rounds_without_training_are_lost(tmp_path: Path) -> None:
    record(
        tmp_path,
        numbered(1, client("a", error="evaluate: it counts all the same")),
        numbered(2, client("a", error="train: no")),
        numbered(3, client("a", error="train: no"), client("b")),
    )

    assert signs.rounds_lost(tmp_path, [begun(1, "a"), begun(2, "a"), begun(3, "a")]) == 1
    assert signs.rounds_lost(tmp_path, [begun(1, "a"), begun(1, "a"), begun(1, "a")]) == 3


def test_a_run_that_finished_lost_nothing(whole: Path) -> None:
    before = (whole / "rounds.jsonl").read_bytes().splitlines(keepends=True)[0]

    assert signs.lost(whole, before, ROUNDS) == []
    assert signs.lost(whole, b"", None) == []


def test_a_run_that_recorded_nothing_lost_nothing(tmp_path: Path) -> None:
    assert signs.lost(tmp_path, b"", None) == []


def test_what_was_recorded_before_must_be_there_as_it_was(whole: Path) -> None:
    before = json.dumps(numbered(1, client("b"))).encode() + b"\n"

    assert signs.lost(whole, before, ROUNDS) == ["rounds that were recorded before are changed"]


def test_each_round_is_recorded_once(whole: Path) -> None:
    record(whole, numbered(1), numbered(1), numbered(2))
    assert signs.lost(whole, b"", None) == ["the recorded rounds are [1, 1, 2]"]

    record(whole, numbered(1))
    assert signs.lost(whole, b"", ROUNDS) == ["1 of 2 rounds are recorded"]


def test_rounds_that_cannot_be_read_are_lost(whole: Path) -> None:
    (whole / "rounds.jsonl").write_text('{"round": 1}\n{"rou')

    (problem,) = signs.lost(whole, b"", None)
    assert problem.startswith("rounds.jsonl cannot be read: ")


def test_a_model_has_to_be_there_and_be_numbers(whole: Path) -> None:
    save_file({"weights": np.array([1, np.nan, np.inf])}, whole / "model.safetensors")
    (whole / "checkpoint.safetensors").write_bytes(b"half of it")

    first, second = signs.lost(whole, b"", ROUNDS)

    assert first == "2 numbers in model.safetensors are NaN or infinite"
    assert second.startswith("checkpoint.safetensors cannot be read: ")


def test_a_round_below_its_minimum_has_no_checkpoint(tmp_path: Path) -> None:
    record(tmp_path, numbered(1) | {"below_minimum": True})
    assert signs.lost(tmp_path, b"", None) == []

    record(tmp_path, numbered(1))
    assert len(signs.lost(tmp_path, b"", None)) == 1


def test_a_run_without_training_has_no_model(whole: Path) -> None:
    (whole / "model.safetensors").unlink()

    assert signs.lost(whole, b"", ROUNDS.model_copy(update={"task": "noop"})) == []
    assert len(signs.lost(whole, b"", ROUNDS)) == 1
