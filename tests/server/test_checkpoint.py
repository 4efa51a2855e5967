import errno
import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from damage import Flips, cuts, flips, refused, turn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fedbench.errors import DamagedFileError
from fedbench.records import ClientRound, RoundRecord, read_lines
from fedbench.records.rounds import ROUNDS_FILE
from fedbench.server.checkpoint import (
    CHECKPOINT,
    MOST_HEADER_BYTES,
    PREVIOUS,
    Checkpoint,
    RunFolder,
)


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


# -- damaged


@pytest.fixture
def two(folder: RunFolder) -> RunFolder:
    """A run after two rounds."""
    folder.add_round(record(1), weights(1), weights(-1))
    folder.add_round(record(2), weights(2), weights(-2))
    return folder


def resumes(folder: RunFolder) -> tuple[Checkpoint, list[str]]:
    """Go on, which leaves model and records that agree; return it, and what was told."""
    told: list[str] = []
    checkpoint = folder.resume(told.append)
    assert checkpoint is not None
    last = checkpoint.round
    assert np.array_equal(checkpoint.weights, weights(last))
    assert checkpoint.velocity is not None
    assert np.array_equal(checkpoint.velocity, weights(-last))
    assert recorded(folder) == [record(number) for number in range(1, last + 1)]
    return checkpoint, told


def restore(folder: RunFolder, kept: dict[str, bytes]) -> None:
    for name, content in kept.items():
        (folder.path / name).write_bytes(content)


def files(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_a_checkpoint_that_is_cut_off_gives_way_to_the_one_before(two: RunFolder) -> None:
    kept = files(two)
    for _ in cuts(two.path / CHECKPOINT):
        checkpoint, told = resumes(two)
        assert checkpoint.round == 1
        assert told[0].startswith(f"{two.path / CHECKPOINT} is damaged: ")
        assert told[0].endswith("; the run goes on after round 1")
        assert told[1:] == ["rounds [2] have no checkpoint, and are repeated"]
        (two.path / ROUNDS_FILE).write_bytes(kept[ROUNDS_FILE])


def test_without_the_one_before_it_is_refused_and_records_stay(two: RunFolder) -> None:
    (two.path / PREVIOUS).unlink()
    for _ in cuts(two.path / CHECKPOINT):
        assert refused(two.resume, CHECKPOINT)
        assert recorded(two) == [record(1), record(2)]


def test_a_crash_between_two_names_loses_nothing(two: RunFolder) -> None:
    """The newest has its predecessor's place already, and nobody its own."""
    (two.path / CHECKPOINT).replace(two.path / PREVIOUS)
    checkpoint, told = resumes(two)
    assert (checkpoint.round, told) == (2, [])


def test_a_crash_after_the_checkpoint_loses_no_record(two: RunFolder) -> None:
    path = two.path / ROUNDS_FILE
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    checkpoint, told = resumes(two)
    assert (checkpoint.round, told) == (2, [])


def test_records_that_are_cut_off_are_taken_from_the_checkpoints(two: RunFolder) -> None:
    for content in cuts(two.path / ROUNDS_FILE):
        checkpoint, told = resumes(two)
        assert checkpoint.round == 2
        half = not content.endswith(b"\n") and content
        repaired = f"{two.path / ROUNDS_FILE} was damaged and is repaired: nothing is lost"
        assert told == ([repaired] if half else [])


def test_records_that_nobody_has_any_more_are_told(two: RunFolder) -> None:
    two.add_round(record(3), weights(3), weights(-3))
    path = two.path / ROUNDS_FILE
    path.write_bytes(b"half\n" + path.read_bytes().split(b"\n", 1)[1])
    told: list[str] = []
    assert two.resume(told.append) is not None
    assert told == [f"{path} was damaged and is repaired: the records of rounds [1] are lost"]
    assert recorded(two) == [record(2), record(3)]


quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(bits=flips, name=st.sampled_from([CHECKPOINT, PREVIOUS, ROUNDS_FILE]))
def test_bits_that_turn_never_become_a_model(two: RunFolder, bits: Flips, name: str) -> None:
    kept = files(two)
    (two.path / name).write_bytes(turn(kept[name], bits))
    checkpoint = two.resume()
    assert checkpoint is not None
    assert np.array_equal(checkpoint.weights, weights(checkpoint.round))
    assert checkpoint.round == (1 if name == CHECKPOINT and damaged(two) else 2)
    restore(two, kept)


def damaged(folder: RunFolder) -> bool:
    return refused(lambda: Checkpoint.read(folder.path / CHECKPOINT), CHECKPOINT)


@quick
@given(content=st.binary(max_size=200), claim=st.none() | st.integers(0, 2**64 - 1))
def test_any_bytes_are_no_checkpoint(two: RunFolder, content: bytes, claim: int | None) -> None:
    kept = files(two)
    header = b"" if claim is None else claim.to_bytes(8, "little")
    (two.path / CHECKPOINT).write_bytes(header + content)
    assert damaged(two)
    restore(two, kept)


@pytest.mark.parametrize("size", [MOST_HEADER_BYTES + 1, 2**33, 2**64 - 1])
def test_a_header_that_claims_gigabytes_is_refused(folder: RunFolder, size: int) -> None:
    path = folder.path / CHECKPOINT
    with path.open("wb") as file:
        file.write(size.to_bytes(8, "little"))
        file.truncate(2**34)  # of which nothing is on the disk
    with pytest.raises(DamagedFileError, match=f"a header of {size} bytes"):
        Checkpoint.read(path)


def test_arrays_that_are_longer_than_the_file_are_refused(folder: RunFolder) -> None:
    shape = {"dtype": "F32", "shape": [2**34], "data_offsets": [0, 2**36]}
    header = json.dumps({"weights": shape, "__metadata__": {"round": "1"}}).encode()
    (folder.path / CHECKPOINT).write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    assert damaged(folder)


def test_a_checkpoint_of_an_older_version_has_no_checksum(folder: RunFolder) -> None:
    save_file({"weights": weights(7)}, folder.path / CHECKPOINT, {"round": "7"})
    resumed = folder.resume()
    assert resumed is not None
    assert (resumed.round, resumed.velocity) == (7, None)


def test_what_a_crash_left_aside_is_removed(two: RunFolder) -> None:
    (two.path / f"{CHECKPOINT}.4711.tmp").write_bytes(b"half")
    resumes(two)
    assert files(two).keys() == {CHECKPOINT, PREVIOUS, ROUNDS_FILE}
