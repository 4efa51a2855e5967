from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedbench.records import (
    ClientRound,
    EpochRecord,
    RoundRecord,
    read_lines,
    summarise,
    write_summary,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "runs" / "20260102-030405-digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two rounds; legacy-pc failed in the second."""
    return Path(shutil.copytree(GOLDEN, tmp_path / GOLDEN.name))


def event(second: int, name: str, **facts: Any) -> str:
    time = f"2026-01-02T03:04:{second:02}.000+00:00"
    needed = {"after_round": 0, "round": 1, "rounds": 2, "clients": []}
    return json.dumps({"time": time, "event": name} | needed | facts) + "\n"


def test_a_finished_run_is_summed_up(folder: Path) -> None:
    summary = summarise(folder)
    assert (summary.run, summary.experiment, summary.profile) == (
        "20260102-030405-digits",
        "digits",
        "heterogeneous",
    )
    assert (summary.status, summary.error) == ("finished", None)
    assert (summary.started_at, summary.total_seconds) == ("2026-01-02T03:04:05.000+00:00", 35.0)
    assert [record.round for record in summary.rounds] == [1, 2]
    laptop, legacy, _ = summary.rounds[1].clients
    assert (laptop.epoch_seconds, laptop.samples, laptop.error) == ([4.0, 3.75], 479, None)
    assert (legacy.epoch_seconds, legacy.samples) == ([], 0)
    assert legacy.error == "train: out of memory"
    assert summary.rounds[1].parts is None, "a record of a version that had none"


def test_a_run_in_one_program_emulates_nothing(folder: Path) -> None:
    facts = json.loads((folder / "run.json").read_text())
    assert summarise(folder).emulates
    (folder / "run.json").write_text(json.dumps({**facts, "engine": {}}))
    assert not summarise(folder).emulates


def test_a_summary_is_written_whole_and_read_back(folder: Path) -> None:
    summary = write_summary(folder)
    written = json.loads((folder / "summary.json").read_text())
    assert written == summary.model_dump()
    assert set(written) == {
        "run", "status", "experiment", "profile", "started_at", "total_seconds", "rounds", "error",
        "dilation", "rounds_not_held", "emulates",
    }  # fmt: skip
    assert {
        "server_accuracy",
        "server_loss",
        "duration_seconds",
        "overhead_seconds",
        "clients",
    } <= (written["rounds"][0].keys())
    assert {
        "client", "device", "epoch_seconds", "samples", "local_accuracy", "local_loss",
        "bytes_sent", "bytes_received", "cpu_seconds", "peak_memory_bytes",
    } <= written["rounds"][0]["clients"][0].keys()  # fmt: skip
    assert list(folder.glob("*.tmp")) == []


@pytest.mark.parametrize(
    ("events", "status", "error"),
    [
        ([], "failed", "the server never started it"),
        ([event(6, "started", after_round=0)], "failed", "the server died"),
        (
            [event(6, "started", after_round=0), event(7, "error", reason="ValueError: 3")],
            "failed",
            "ValueError: 3",
        ),
        ([event(6, "started", after_round=0), event(7, "stopped")], "interrupted", None),
        (
            [event(6, "started", after_round=0), event(7, "stopped"), event(8, "started")],
            "failed",
            "the server died",
        ),
        (
            [event(6, "started"), event(7, "error", reason="x"), event(8, "started"),
             event(9, "finished")],
            "finished",
            None,
        ),
    ],
)  # fmt: skip
def test_how_a_run_ended(folder: Path, events: list[str], status: str, error: str | None) -> None:
    (folder / "events.jsonl").write_text("".join(events))
    summary = summarise(folder)
    assert (summary.status, summary.error) == (status, error)
    seconds = json.loads(events[-1])["time"][17:19] if events else "05"
    went_on = sum('"started"' in line for line in events[1:])  # each a second after the end before
    assert summary.total_seconds == int(seconds) - 5 - went_on


def test_a_night_between_an_end_and_going_on_is_none_of_a_runs_time(folder: Path) -> None:
    night = (
        json.dumps({"time": "2026-01-03T03:04:05.000+00:00", "event": "started", "after_round": 2})
        + "\n"
    )
    after = json.dumps({"time": "2026-01-03T03:04:12.500+00:00", "event": "finished"}) + "\n"
    stopped = [event(6, "started"), event(25, "recorded"), event(26, "stopped"), night, after]
    (folder / "events.jsonl").write_text("".join(stopped))
    assert summarise(folder).total_seconds == 21 + 7.5


def test_a_run_without_records_has_a_summary(folder: Path) -> None:
    for name in ("events.jsonl", "rounds.jsonl"):
        (folder / name).unlink()
    summary = summarise(folder)
    assert (summary.status, summary.rounds, summary.total_seconds) == ("failed", [], 0.0)


def test_a_summary_counts_the_rounds_that_did_not_hold(folder: Path) -> None:
    record = summarise(folder).rounds[0]
    laptop, legacy, desk = record.clients
    clients = [
        laptop.model_copy(update={"emulation_error": 0.2, "not_held": "+20% off its target"}),
        legacy.model_copy(update={"emulation_error": 0.01}),
        desk,
    ]
    missed = record.model_copy(update={"clients": clients})
    with (folder / "rounds.jsonl").open("a") as file:
        file.write(missed.model_dump_json() + "\n")

    assert summarise(folder).rounds_not_held == {"laptop": 1, "legacy-pc": 0}


def test_a_round_is_read_back_as_it_was_written() -> None:
    epoch = EpochRecord(seconds=4.0, cpu_seconds=3.0, throttled_seconds=0.5, steal_seconds=0.25)
    client = ClientRound(
        client="laptop", device="laptop", epoch_seconds=[4.0], epochs=[epoch], dilation=2.5
    )
    written = json.loads(client.model_dump_json())

    assert written["emulated_epoch_seconds"] == [1.6]
    assert written["epochs"][0]["share"] == 0.75
    assert ClientRound.model_validate(written) == client


@pytest.mark.parametrize("keep", range(1, 12))
def test_half_a_line_is_left_for_later(folder: Path, keep: int) -> None:
    path = folder / "rounds.jsonl"
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + second[: len(second) * keep // 11])
    assert [record.round for record in summarise(folder).rounds] == [1]


def test_a_character_cut_in_two_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes('{"a": 1}\n{"error": "é'.encode()[:-1])
    assert list(read_lines(path)) == [{"a": 1}]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\u2029", "\r"])
def test_a_text_with_a_line_separator_stays_one_record(folder: Path, separator: str) -> None:
    record = summarise(folder).rounds[0]
    client = ClientRound(client="laptop", device="laptop", error=f"a{separator}b")
    broken = record.model_copy(update={"round": 3, "clients": [client]})
    with (folder / "rounds.jsonl").open("a", encoding="utf-8") as file:
        file.write(broken.model_dump_json() + "\n")
    assert summarise(folder).rounds[2].clients == [client]


def test_keys_of_a_later_version_are_ignored(folder: Path) -> None:
    line = (folder / "rounds.jsonl").read_text().splitlines()[0]
    record = json.loads(line) | {"watts": 12}
    assert RoundRecord.model_validate(record) == RoundRecord.model_validate_json(line)


def test_a_file_that_does_not_exist_yet_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "events.jsonl")) == []
