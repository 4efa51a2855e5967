"""What was expected against what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from fedbench.host.chaos.scenario import Expectation, Scenario, When
from fedbench.host.chaos.signs import MissedRound
from fedbench.host.chaos.verdict import Seen, judged, skipped


def scenario(**expected: Any) -> Scenario:
    return Scenario(
        name="client-kill",
        description="a client is killed",
        fault="kill",
        who="client",
        when=When(round=2),
        expected=Expectation.model_validate(expected),
    )


def seen(**facts: Any) -> Seen:
    return Seen.model_validate({"run": "r", "victim": "a", "end": "finished"} | facts)


def missed(number: int, client: str = "a", why: str = "crashed: it died") -> MissedRound:
    return MissedRound(round=number, client=client, why=why)


KILLED = {"missing": "CRASHED", "within": "5s"}
KNOWN = {"known": "failed: it died", "detected_seconds": 1.25, "missed": [missed(2), missed(3)]}


def test_what_was_expected_is_ok_and_both_are_written_alike() -> None:
    row = judged(scenario(**KILLED), seen(**KNOWN))

    assert (row.ok, row.problems, row.data_lost, row.detected_seconds) == (True, [], False, 1.25)
    assert row.expected == "finished; it is missing: CRASHED; known within 5 s; no round lost"
    assert row.seen == (
        "finished; a is missing in rounds 2, 3 (crashed: it died); "
        "known after 1.2 s (failed: it died); no round lost"
    )


@pytest.mark.parametrize(
    ("expected", "facts", "problem"),
    [
        ({}, {"end": "failed", "error": "why"}, "the run failed: why"),
        ({}, {"end": "was not over after 150 s"}, "the run was not over after 150 s"),
        ({"end": "failed"}, {}, "the run finished"),
        (
            {"end": "failed", "says": "full"},
            {"end": "failed", "error": "no"},
            "its error does not say 'full': no",
        ),
        (
            {"end": "failed", "resumes": True},
            {"end": "failed", "resumed": "failed: no"},
            "after RESUME it failed: no",
        ),
        (KILLED, {**KNOWN, "missed": []}, "a missed no round"),
        (
            KILLED,
            {**KNOWN, "missed": [missed(2, why="network")]},
            "a is missing for another reason than 'CRASHED': network",
        ),
        (KILLED, {**KNOWN, "missed": [missed(1), missed(2)]}, "a missed round 1: crashed: it died"),
        (
            KILLED,
            {**KNOWN, "missed": [missed(2), missed(3, "b", "late")]},
            "b missed round 3: late",
        ),
        ({}, {"missed": [missed(2)]}, "a missed round 2: crashed: it died"),
        (KILLED, {**KNOWN, "detected_seconds": None}, "nobody said what had happened"),
        (KILLED, {**KNOWN, "detected_seconds": 5.5}, "known after 5.5 s, expected 5 s at most"),
        ({"rounds_lost": 1}, {"rounds_lost": 2}, "2 rounds were lost, expected 1 at most"),
        ({}, {"lost": ["the model is gone"]}, "the model is gone"),
        ({}, {"unmade": "no such container"}, "the fault was not made: no such container"),
    ],
)
def test_what_was_not_expected_is_named(
    expected: dict[str, Any], facts: dict[str, Any], problem: str
) -> None:
    row = judged(scenario(**expected), seen(**facts))

    assert (row.ok, row.problems) == (False, [problem])


def test_a_failure_that_was_expected_is_ok() -> None:
    row = judged(
        scenario(end="failed", says="is full", resumes=True, rounds_lost=1),
        seen(end="failed", error="the disk is full", resumed="finished", rounds_lost=1),
    )

    assert row.ok
    assert row.expected == (
        "failed: is full; RESUME finishes it; nobody is missing; at most 1 round lost"
    )
    assert row.seen == (
        "failed: the disk is full; after RESUME finished; nobody is missing; 1 round lost"
    )


def test_of_a_whole_federation_everyone_may_be_missing() -> None:
    down = {"fault": "down", "who": "federation", "expected": Expectation(end="failed")}

    row = judged(
        scenario().model_copy(update=down), seen(end="failed", missed=[missed(2), missed(2, "b")])
    )

    assert row.ok, row.problems


def test_what_is_lost_is_data_lost() -> None:
    assert judged(scenario(), seen(lost=["gone"])).data_lost


def test_what_cannot_be_tried_is_skipped_with_the_reason() -> None:
    row = skipped(scenario(), "no such kernel")

    assert (row.ok, row.seen) == (None, "skipped: no such kernel")
