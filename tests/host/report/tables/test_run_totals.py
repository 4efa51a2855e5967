from __future__ import annotations

from pathlib import Path

import pytest
from energies import with_energy
from hypothesis import given
from hypothesis import strategies as st

from fedbench.host.report.tables.run_totals import (
    RunTotals,
    Straggler,
    accuracy_table,
    joules,
    run_joules,
    run_table,
)
from fedbench.records import ClientRound, by_client, summarise
from fedbench.records.clock import Dilation

SUMMARY = summarise(Path(__file__).parents[3] / "golden" / "runs" / "20260102-030405-digits")
JOULES = st.none() | st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))
NOTHING = SUMMARY.model_copy(update={"run": "b", "rounds": []})


def test_the_slowest_is_judged_by_the_rounds_that_it_worked_in() -> None:
    """legacy-pc failed in the second round; in the first it worked 20 s, workstation 3.25 s."""
    totals = RunTotals.of(SUMMARY.model_copy(update={"dilation": Dilation(2.0)}))
    assert (totals.slowest, totals.factor) == ("legacy-pc", 20 / 3.25)
    assert (totals.wall_seconds, totals.emulated_seconds) == (35.0, 17.5)
    assert (totals.sent, totals.received) == (45_425_000, 72_674_000)
    assert totals.overhead_seconds == 1.125


def test_a_run_without_rounds_has_no_numbers() -> None:
    totals = RunTotals.of(NOTHING)
    assert (totals.rounds, totals.accuracy, totals.slowest, totals.factor, totals.sent) == (
        0,
        None,
        None,
        None,
        None,
    )


def test_runs_stand_side_by_side() -> None:
    header, rows = run_table([SUMMARY, NOTHING])
    assert "kJ" not in header, "nobody knows the watts of either"
    assert rows == [
        [
            SUMMARY.run, "digits", "heterogeneous", "finished", "2", "0.5000", "1.5000",
            "35.0", "1", "35.0", "1.12", "legacy-pc", "45.4", "72.7",
        ],
        [
            "b", "digits", "heterogeneous", "finished", "0", "-", "-",
            "35.0", "1", "35.0", "-", "-", "-", "-",
        ],
    ]  # fmt: skip
    header, rows = accuracy_table([NOTHING, SUMMARY])
    assert header == ("round", "b", SUMMARY.run)
    assert rows == [("1", "-", "0.2500"), ("2", "-", "0.5000")]


def test_emulated_seconds_stand_beside_a_run_that_has_none_as_a_dash() -> None:
    """And nowhere, where no run has any."""
    in_process = SUMMARY.model_copy(update={"run": "b", "emulates": False})
    header, rows = run_table([SUMMARY.model_copy(update={"dilation": Dilation(2.0)}), in_process])
    columns = [header.index(title) for title in ("total wall s", "dilation", "total emulated s")]
    assert [[row[n] for n in columns] for row in rows] == [
        ["35.0", "2", "17.5"],
        ["35.0", "-", "-"],
    ]
    header, rows = run_table([in_process, in_process])
    assert not {"dilation", "total emulated s", "kJ"} & {*header}
    assert [len(row) for row in rows] == [len(header)] * 2


def test_who_works_alone_lets_nobody_wait() -> None:
    alone = ClientRound(client="a", device="laptop", epoch_seconds=[2.0])
    record = SUMMARY.rounds[0].model_copy(update={"clients": [alone]})
    assert Straggler.of(record) == Straggler("a", 1.0, None)


def test_the_slowest_is_one_of_those_that_worked() -> None:
    assert Straggler.among({"a": 2.0, "b": 0.0, "c": 6.0}) == Straggler("c", 3.0, 4.0)
    assert Straggler.among({"a": 0.0}) is None


@given(st.lists(st.dictionaries(st.sampled_from("abc"), JOULES), max_size=6))
def test_the_energy_of_a_run_is_that_of_its_rounds_and_of_its_devices(
    rounds: list[dict[str, tuple[float, float] | None]],
) -> None:
    summary = with_energy(SUMMARY, rounds)
    parts = [joules(record.clients) for record in summary.rounds]
    devices = [joules(clients) for clients in by_client(summary.rounds).values()]

    for whole in (parts, devices):
        known = [part for part in whole if part is not None]
        assert run_joules(summary) == (pytest.approx(sum(known)) if known else None)
