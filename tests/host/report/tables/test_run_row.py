from __future__ import annotations

from pathlib import Path

from fedbench.host.report.tables.run_row import KeyFigures, accuracy_table, run_table
from fedbench.records import summarise
from fedbench.records.clock import Dilation

SUMMARY = summarise(Path(__file__).parents[3] / "golden" / "runs" / "20260102-030405-digits")
NOTHING = SUMMARY.model_copy(update={"run": "b", "rounds": []})


def test_the_slowest_is_judged_by_the_rounds_that_it_worked_in() -> None:
    """legacy-pc failed in the second round; in the first it worked 20 s, workstation 3.25 s."""
    key = KeyFigures.of(SUMMARY.model_copy(update={"dilation": Dilation(2.0)}))
    assert (key.slowest, key.factor) == ("legacy-pc", 20 / 3.25)
    assert (key.wall_seconds, key.emulated_seconds) == (35.0, 17.5)
    assert (key.sent, key.received) == (45_425_000, 72_674_000)
    assert key.overhead_seconds == 1.125


def test_a_run_without_rounds_has_no_figures() -> None:
    key = KeyFigures.of(NOTHING)
    assert (key.rounds, key.accuracy, key.slowest, key.factor, key.sent) == (
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
