from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import pytest

from fedbench.config import load_experiment
from fedbench.host.studies.grid import Point, Sweep
from fedbench.host.studies.sweep_table import (
    Outcome,
    Spread,
    SweepRow,
    as_csv,
    report,
    rows,
    spread,
    table,
)
from fedbench.records import Summary, summarise
from fedbench.records.clock import Dilation

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
SWEEP = Sweep(
    name="mine",
    description="What it is for",
    profile="heterogeneous",
    experiment="digits",
    set={"batch_size": 8},
)


def summary(accuracy: float | None, dilation: float = 1.0) -> Summary:
    """Two rounds of 22.5 and 9 wall seconds."""
    found = summarise(GOLDEN)
    last = found.rounds[-1].model_copy(update={"server_accuracy": accuracy})
    update = {"rounds": [found.rounds[0], last], "dilation": Dilation(dilation)}
    return found.model_copy(update=update | {"rounds_not_held": {"laptop": 2, "legacy-pc": 1}})


def point(seed: int, partition: str = "iid") -> Point:
    experiment = load_experiment("digits", [f"seed={seed}", f"data.partition={partition}"])
    return Point({"data.partition": partition}, experiment)


@pytest.fixture
def found() -> list[SweepRow]:
    """Two of two runs are finished; one of three, one of them failed."""
    return rows(
        [
            Outcome(point(0), summary(0.5, 2.0)),
            Outcome(point(0, "replicated"), summary(0.25)),
            Outcome(point(1), summary(0.75, 2.0)),
            Outcome(point(1, "replicated"), failure="run x failed: out\nof memory"),
            Outcome(point(2, "replicated")),
        ]
    )


def test_runs_that_differ_by_the_seed_are_one_row(found: list[SweepRow]) -> None:
    assert [(row.settings, len(row.runs), row.wanted, row.not_held) for row in found] == [
        ({"data.partition": "iid"}, 2, 2, 6),
        ({"data.partition": "replicated"}, 1, 3, 3),
    ]
    both = found[0].accuracy
    assert both is not None
    assert (both.n, both.mean, both.lowest, both.highest) == (2, 0.625, 0.5, 0.75)
    assert both.deviation == pytest.approx(0.125 * 2**0.5)
    assert found[1].accuracy == Spread(n=1, mean=0.25, deviation=None, lowest=0.25, highest=0.25)


def test_seconds_are_those_of_the_rounds(found: list[SweepRow]) -> None:
    """The summary's own total has the time in which the run was interrupted, too."""
    seconds = [(row.wall_seconds, row.emulated_seconds) for row in found]
    assert [(wall and wall.mean, em and em.mean) for wall, em in seconds] == [
        (31.5, 15.75),
        (31.5, 31.5),
    ]


def test_a_run_that_diverged_leaves_no_mean_of_the_others() -> None:
    assert spread([0.5, None]) is None
    assert spread([]) is None


def test_the_table_has_mean_and_spread(found: list[SweepRow]) -> None:
    assert table(found) == (
        (
            "data.partition", "n", "server accuracy", "lowest to highest", "server loss",
            "emulated s", "wall s", "kJ", "not held",
        ),
        [
            (
                "iid", "2/2", "0.6250 ± 0.1768", "0.5000 to 0.7500", "1.5000 ± 0.0000",
                "15.8", "31.5", "-", "6",
            ),
            ("replicated", "1/3", "0.2500", "0.2500 to 0.2500", "1.5000", "31.5", "31.5", "-", "3"),
        ],
    )  # fmt: skip


def test_energy_is_the_mean_of_the_runs() -> None:
    drawn = [energetic(summary(0.5), joules) for joules in (1000.0, 3000.0)]
    found = rows([Outcome(point(seed), one) for seed, one in enumerate(drawn)])
    (row,) = table(found)[1]
    assert row[-2] == "2.00"
    (line,) = csv.DictReader(StringIO(as_csv({"mine": found})))
    assert (line["energy_joules_mean"], line["energy_joules_highest"]) == ("2000.0", "3000.0")


def energetic(found: Summary, joules: float) -> Summary:
    """The run, with a single client that was busy for so many joules."""
    drawn = {"energy_idle_joules": 0.0, "energy_busy_joules": joules}
    client = found.rounds[0].clients[0].model_copy(update=drawn)
    first = found.rounds[0].model_copy(update={"clients": [client]})
    return found.model_copy(update={"rounds": [first, *found.rounds[1:]]})


def test_what_has_not_run_yet_is_a_dash() -> None:
    (row,) = table(rows([Outcome(point(0))]))[1]
    assert row == ("iid", "0/1", "-", "-", "-", "-", "-", "-", "0")


def test_the_report_says_what_it_is_of_and_what_failed(found: list[SweepRow]) -> None:
    text = report(SWEEP, found)
    assert text.startswith(
        "# Sweep mine\n\nWhat it is for\n\nExperiment digits, batch_size=8 on profile "
        "heterogeneous. 3 of 5 runs are finished.\n\n| data.partition | n |"
    )
    assert text.endswith(
        "## Failures\n\n- data.partition=replicated, seed=1: run x failed: out of memory\n"
    )


def test_sweeps_of_other_keys_share_a_csv(found: list[SweepRow]) -> None:
    other = Point({"rounds": 3}, load_experiment("digits"))
    text = as_csv({"mine": found, "other": rows([Outcome(other)])})
    first, second, third = csv.DictReader(StringIO(text))
    assert list(first)[:5] == ["sweep", "data.partition", "rounds", "n", "wanted"]
    assert (first["sweep"], first["data.partition"], first["rounds"]) == ("mine", "iid", "")
    assert (first["accuracy_mean"], first["accuracy_highest"]) == ("0.625", "0.75")
    assert first["runs"] == f"{GOLDEN.name} {GOLDEN.name}"
    assert (second["n"], second["wanted"], second["accuracy_deviation"]) == ("1", "3", "")
    assert (third["sweep"], third["rounds"], third["accuracy_mean"]) == ("other", "3", "")
