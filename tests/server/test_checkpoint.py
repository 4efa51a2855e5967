import errno
import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedbench.errors import DamagedFileError
from fedbench.records import ClientRound, RoundRecord, read_lines
from fedbench.records.rounds import ROUNDS_FILE
from fedbench.server.checkpoint import CHECKPOINT, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        started_at="2026-11-23T12:00:00.000+00:00",
        server_accuracy=0.1 * number,
        server_loss=2.0,
        server_epoch_seconds=0.25,
        duration_seconds=3.5,
        overhead_seconds=0.5,
        aggregate_seconds=0.01,
        clients=[ClientRound(client="laptop", device="laptop", epoch_seconds=[1.25, 1.5])],
    )


def weights(value: float) -> np.ndarray:
    return np.full(5, value, np.float32)


def recorded(folder: RunFolder) -> list[RoundRecord]:
    return [RoundRecord.model_validate(line) for line in read_lines(folder.path / "rounds.jsonl")]


def test_a_new_run_starts_at_the_beginning(folder: RunFolder) -> None:
    assert folder.resume() is None


def test_a_run_goes_on_after_its_last_round(folder: RunFolder) -> None:
    folder.add_round(record(1), weights(1))
    folder.add_round(record(2), weights(2))

    resumed = folder.resume()

    assert resumed is not None
    assert resumed.round == 2
    assert resumed.weights.dtype == np.float32
    assert np.array_equal(resumed.weights, weights(2))
    assert recorded(folder) == [record(1), record(2)]


def test_the_momentum_is_kept_with_the_model_where_there_is_one(folder: RunFolder) -> None:
    folder.add_round(record(1), weights(1))
    resumed = folder.resume()
    assert resumed is not None
    assert resumed.velocity is None

    folder.add_round(record(2), weights(2), weights(-3))

    resumed = folder.resume()
    assert resumed is not None
    assert resumed.velocity is not None
    assert np.array_equal(resumed.velocity, weights(-3))
    assert np.array_equal(resumed.weights, weights(2))


def test_a_record_without_its_checkpoint_is_dropped(folder: RunFolder) -> None:
    folder.add_round(record(1), weights(1))
    checkpoint = (folder.path / "checkpoint.safetensors").read_bytes()
    folder.add_round(record(2), weights(2))
    (folder.path / "checkpoint.safetensors").write_bytes(checkpoint)

    resumed = folder.resume()

    assert resumed is not None
    assert resumed.round == 1
    assert recorded(folder) == [record(1)]


def test_records_without_any_checkpoint_are_refused_and_kept(folder: RunFolder) -> None:
    folder.add_round(record(1), weights(1))
    (folder.path / CHECKPOINT).unlink()

    with pytest.raises(DamagedFileError, match="is missing, but rounds were recorded"):
        folder.resume()
    assert recorded(folder) == [record(1)]


def test_half_a_record_is_dropped(folder: RunFolder) -> None:
    folder.add_round(record(1), weights(1))
    with (folder.path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 2, "started_at": "2026')

    resumed = folder.resume()

    assert resumed is not None
    assert resumed.round == 1
    folder.add_round(record(2), weights(2))
    assert recorded(folder) == [record(1), record(2)]


def test_a_checkpoint_that_was_not_finished_leaves_the_one_before(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add_round(record(1), weights(1))

    def disk_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="no space"):
        folder.add_round(record(2), weights(2))
    monkeypatch.undo()

    assert {path.name for path in folder.path.iterdir()} == {CHECKPOINT, ROUNDS_FILE}
    resumed = folder.resume()
    assert resumed is not None
    assert resumed.round == 1
    assert np.array_equal(resumed.weights, weights(1))
    assert recorded(folder) == [record(1)]


def test_nothing_temporary_is_left(folder: RunFolder) -> None:
    folder.add_round(record(1), weights(1))
    folder.resume()

    assert {path.name for path in folder.path.iterdir()} == {
        "checkpoint.safetensors",
        "rounds.jsonl",
    }
    assert list(load_file(folder.path / "checkpoint.safetensors")) == ["weights"]


def test_events_are_lines_with_their_time(folder: RunFolder) -> None:
    folder.event("round", round=1, clients=["laptop"])
    folder.event("finished")

    first, second = map(json.loads, (folder.path / "events.jsonl").read_text().splitlines())
    assert datetime.fromisoformat(first.pop("time")) <= datetime.fromisoformat(second.pop("time"))
    assert first == {"event": "round", "round": 1, "clients": ["laptop"]}
    assert second == {"event": "finished"}


def test_a_stop_file_is_the_wish_to_stop(folder: RunFolder) -> None:
    assert not folder.stop_requested()
    (folder.path / "stop").touch()
    assert folder.stop_requested()
