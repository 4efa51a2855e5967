"""`chaos.json` as it grows, and the table of it in a document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedbench.errors import DamagedFileError
from fedbench.host.chaos import results
from fedbench.host.chaos.results import BEGIN, END, ChaosResults
from fedbench.host.chaos.verdict import ChaosRow

KEYS = {
    "scenario", "expected", "seen", "detected_seconds", "rounds_lost", "data_lost", "ok",
}  # fmt: skip


def row(name: str, *, ok: bool | None = True, seen: str = "finished") -> ChaosRow:
    return ChaosRow(
        scenario=name, description="a | b", expected="finished", seen=seen, ok=ok,
        detected_seconds=1.26, problems=[] if ok else ["late"],
    )  # fmt: skip


def test_each_row_is_on_disk_as_soon_as_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "chaos" / "chaos.json"
    recorded = ChaosResults(file, anew=True)

    recorded.add(row("one"))
    assert [line["scenario"] for line in json.loads(file.read_text())] == ["one"]
    recorded.add(row("two", ok=False))
    written = json.loads(file.read_text())

    assert [line["ok"] for line in written] == [True, False]
    assert all(line.keys() >= KEYS for line in written)
    assert results.read(file) == recorded.rows


def test_a_scenario_that_is_run_again_has_one_row(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    before = ChaosResults(file, anew=True)
    for name in ("one", "two"):
        before.add(row(name))

    ChaosResults(file, anew=False).add(row("one", seen="otherwise"))
    assert [(r.scenario, r.seen) for r in results.read(file)] == [
        ("one", "otherwise"), ("two", "finished"),
    ]  # fmt: skip

    ChaosResults(file, anew=True).add(row("three"))
    assert [r.scenario for r in results.read(file)] == ["three"]


@pytest.mark.parametrize("text", ["", "{}", '[{"scenario": 1}]'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "chaos.json"
    file.write_text(text)

    with pytest.raises(DamagedFileError, match=r"chaos\.json is damaged: "):
        results.read(file)


def test_the_table_takes_the_place_of_what_was_between_the_markers() -> None:
    rows = [row("one"), row("two", ok=False), row("three", ok=None, seen="skipped: no netem")]

    made = results.in_markers(f"above\n{BEGIN}\nold\n{END}\nbelow\n", rows)

    assert made.startswith(f"above\n{BEGIN}\n| scenario | what is done |")
    assert made.endswith(f"{END}\nbelow\n")
    assert "| one | a \\| b | finished | finished | 1.3 s | 0 | yes |" in made
    assert "| two | a \\| b | finished | finished; **late** | 1.3 s | 0 | **no** |" in made
    assert "skipped: no netem" in made
    assert "old" not in made
    assert results.in_markers(made, rows) == made


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_document_without_markers_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="chaos: begin"):
        results.in_markers(text, [])
