from __future__ import annotations

import csv
import io
from pathlib import Path

from fedbench.host.report.tables.tidy_csv import _named, csv_text
from fedbench.records import ClientRound, EpochRecord, RoundParts, RoundRecord, summarise

GOLDEN = Path(__file__).parents[3] / "golden" / "runs" / "20260102-030405-digits"
SUMMARY = summarise(GOLDEN)
# The number of the round has a column; the confusion matrix is in no line.
NOT_OF_A_CLIENT = {"round", "parts", "clients", "confusion"}


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_there_is_a_line_for_each_run_round_and_client() -> None:
    found = lines(csv_text([SUMMARY, SUMMARY.model_copy(update={"run": "b"})]))
    assert [(one["run"], one["round"], one["client"]) for one in found] == [
        (run, number, client)
        for run in (SUMMARY.run, "b")
        for number in "12"
        for client in ("laptop", "legacy-pc", "workstation")
    ]


def test_units_are_in_the_header() -> None:
    first, *_ = lines(csv_text([SUMMARY]))
    assert first["epoch_wall_seconds"] == "4.5 3.5"
    assert first["cpu_seconds"] == "4.0"
    assert first["throttled_cpu_seconds"] == "5.0"
    assert first["training_images"] == "479"
    assert first["round_duration_wall_seconds"] == "22.5"
    assert first["peak_memory_bytes"] == "475004928"
    assert first["target_epoch_emulated_seconds"] == "", "nothing was emulated"
    assert [name for name in first if name.endswith("_seconds")] == [
        name for name in first if name.endswith(("wall_seconds", "emulated_seconds", "cpu_seconds"))
    ]


def test_every_recorded_figure_is_in_a_column() -> None:
    (first, *_) = lines(csv_text([SUMMARY]))
    fields = {
        *ClientRound.model_fields.keys() - {"epochs"},
        *(f"epoch_{field}" for field in EpochRecord.model_fields),
        *(f"overhead_{field}_seconds" for field in RoundParts.model_fields),
        *(f"round_{field}" for field in RoundRecord.model_fields.keys() - NOT_OF_A_CLIENT),
    }
    assert {_named(field) for field in fields} <= first.keys()


def test_a_run_in_one_program_has_nothing_of_devices() -> None:
    """Its fields are empty beside a run that has it, and are not there without one."""
    in_process = SUMMARY.model_copy(update={"run": "b", "emulates": False})
    of_devices = {
        "dilation", "epoch_emulated_seconds", "epoch_due_wall_seconds",
        "target_epoch_emulated_seconds", "emulation_error_ratio", "not_held",
        "busy_share_wall_seconds", "energy_idle_joules", "energy_busy_joules",
    }  # fmt: skip
    everything = {*lines(csv_text([SUMMARY]))[0]}
    assert {*lines(csv_text([in_process]))[0]} == everything - of_devices
    first, *_, last = lines(csv_text([in_process, SUMMARY]))
    assert {*first} == everything
    assert {first[name] for name in of_devices} == {""}
    assert last["dilation"] == "1.0"


def test_no_rounds_are_no_lines() -> None:
    assert csv_text([SUMMARY.model_copy(update={"rounds": []})]).strip() == ""
