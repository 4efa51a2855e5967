"""What comes back from a GPU, is kept, and goes there again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import results

H100 = {"gpu": "NVIDIA H100"}
MIB = 2**20


def record(key: str, value: float = 1.0, gpu: str = "NVIDIA H100") -> dict[str, object]:
    return {"key": key, "value": value, "machine": {"gpu": gpu}}


def a_run(home: Path, name: str, rounds: int, status: str, mebibytes: float = 0.1) -> Path:
    """Make a run's folder, with weights that do not compress."""
    run = home / "study" / "runs" / name
    run.mkdir(parents=True, exist_ok=True)
    (run / "rounds.jsonl").write_text("".join(f'{{"round": {n + 1}}}\n' for n in range(rounds)))
    (run / "summary.json").write_text(json.dumps({"status": status}))
    (run / "run.json").write_text("{}")
    weights = np.random.default_rng(0).bytes(int(mebibytes * MIB))
    for file in (
        "checkpoint.safetensors",
        *(["model.safetensors"] if status == "finished" else []),
    ):
        (run / file).write_bytes(weights)
    return run


def names(home: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in (home / "study" / "runs").glob("*/*")}


def test_records_outlive_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "speed.jsonl"
    results.append(file, record("a"))
    with file.open("a") as lines:
        lines.write('{"key": "b", "val')
    assert results.read(file) == [record("a")]
    assert results.read(tmp_path / "truth.jsonl") == []


def test_only_what_this_kind_of_gpu_gave_is_known(tmp_path: Path) -> None:
    results.append(tmp_path / "speed.jsonl", record("a", 1.0))
    results.append(tmp_path / "speed.jsonl", record("a", 2.0))
    results.append(tmp_path / "speed.jsonl", record("b", gpu="NVIDIA H200"))
    assert results.known(tmp_path, "speed", "NVIDIA H100") == {"a": record("a", 2.0)}


def test_results_that_come_back_twice_are_kept_once(tmp_path: Path) -> None:
    back, home = tmp_path / "back", tmp_path / "home"
    back.mkdir()
    results.append(back / "speed.jsonl", record("a"))
    results.keep(back, home)
    results.append(back / "speed.jsonl", record("b"))
    results.keep(back, home)
    assert results.read(home / "speed.jsonl") == [record("a"), record("b")]


def test_a_run_travels_and_is_taken_over_where_it_is_further(tmp_path: Path) -> None:
    there, here, back = (tmp_path / name for name in ("there", "here", "back"))
    back.mkdir()
    a_run(there, "small", 3, "interrupted")
    results.export(there, back)
    results.keep(back, here)
    assert results.read(here / "study/runs/small/rounds.jsonl")[-1] == {"round": 3}
    assert "small/checkpoint.safetensors" in names(here)

    a_run(here, "small", 5, "interrupted")
    results.keep(back, here)
    assert len(results.read(here / "study/runs/small/rounds.jsonl")) == 5, "it is further here"


def test_what_is_packed_is_what_the_next_session_goes_on_from(tmp_path: Path) -> None:
    home, packed, there = (tmp_path / name for name in ("home", "packed", "there"))
    a_run(home, "done", 20, "finished")
    a_run(home, "begun", 3, "interrupted")
    results.append(home / "truth.jsonl", record("a"))
    results.pack(home, packed)
    results.keep(packed, there)
    assert results.read(there / "truth.jsonl") == [record("a")]
    weights = {name for name in names(there) if name.endswith(".safetensors")}
    assert weights == {"begun/checkpoint.safetensors"}
    assert results.read(there / "study/runs/done/summary.json")[-1] == {"status": "finished"}


def test_large_weights_come_back_in_pieces(tmp_path: Path) -> None:
    home, back, here = (tmp_path / name for name in ("home", "back", "here"))
    back.mkdir()
    a_run(home, "begun", 1, "interrupted", mebibytes=17)
    a_run(home, "old", 20, "finished", mebibytes=12)
    a_run(home, "done", 20, "finished", mebibytes=6)
    results.export(home, back, models=28 * MIB)
    pieces = sorted(back.iterdir())
    assert [piece.name for piece in pieces] == ["study.tar.gz.1", "study.tar.gz.2"]
    assert all(piece.stat().st_size < 16 * MIB for piece in pieces)
    results.keep(back, here)
    weights = {name for name in names(here) if name.endswith(".safetensors")}
    assert weights == {"begun/checkpoint.safetensors"}, "12 MiB more are too many"

    results.export(home, back, models=30 * MIB)
    results.keep(back, tmp_path / "again")
    assert "old/model.safetensors" in names(tmp_path / "again")


def test_without_a_run_there_is_no_archive(tmp_path: Path) -> None:
    results.export(tmp_path / "home", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["keep", "pack"])
def test_it_is_a_command(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.append(tmp_path / "tests.jsonl", record("a"))
    target = tmp_path / "target"
    monkeypatch.setattr("sys.argv", ["results.py", command, str(tmp_path), str(target)])
    results.main()
    assert results.read(target / "tests.jsonl") == [record("a")]
