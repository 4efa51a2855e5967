"""Rounds that fit, and a run that goes on on another computer; the engine is the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import results
from clock import Clock
from deadline import Deadline
from pictures import write_parquet
from study import START_SECONDS, STOP_SECONDS, RoundGate, Slice, Study, slices
from workers import Setting

pytestmark = pytest.mark.processes

FOR_LONG = 600.0


def test_the_first_round_includes_the_start_of_the_program() -> None:
    clock = Clock()
    fits = 40 + START_SECONDS + STOP_SECONDS
    assert RoundGate(Deadline(fits + 1, clock), 40).open([], 0)
    assert not RoundGate(Deadline(fits - 1, clock), 40).open([], 0)
    assert RoundGate(Deadline(fits - 1, clock), 40).open([40 / 1.05], 1)


def test_rounds_that_were_seen_count_for_more_than_what_was_expected() -> None:
    gate = RoundGate(Deadline(100, Clock()), 500)
    assert not gate.open([], 0)
    assert gate.open([900, 60, 58, 62], 1)
    assert gate.seconds([900, 60, 58, 62]) == pytest.approx(63)


def test_a_round_is_given_up_just_before_the_end() -> None:
    clock = Clock()
    gate = RoundGate(Deadline(10, clock), 1)
    assert not gate.expired()
    clock.now += 10 - STOP_SECONDS + 0.1
    assert gate.expired()


def test_the_study_is_table_three_and_then_tuned() -> None:
    chosen = slices(small=False)
    assert [each.key for each in chosen] == [
        "mobilenet_v3_small", "mobilenet_v2", "mobilenet_v1", "mobilenet_v3_large",
        "mobilenet_v2-tuned",
    ]  # fmt: skip
    for each in chosen:
        experiment = each.experiment()
        assert (experiment.rounds, experiment.local_epochs) == (20, 20)
        assert experiment.data.train_samples is None, "all of it"
        assert each.original.profile == "legacy-pair"
    assert chosen[-1].experiment().augmentation == "flip-crop"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_parquet(folder)
    return folder


def test_a_run_goes_on_on_another_computer(tmp_path: Path, source: Path) -> None:
    (each,) = slices(small=True)
    here = Study(tmp_path / "here" / "study", source)
    gate = RoundGate(Deadline(FOR_LONG), 1.0, most=1)
    summary = here.go_on(each, Setting(0), gate)
    assert (summary.status, len(summary.rounds)) == ("interrupted", 1)

    (tmp_path / "back").mkdir()
    results.export(tmp_path / "here", tmp_path / "back")
    results.keep(tmp_path / "back", tmp_path / "there")
    moved = tmp_path / "moved"  # its data is elsewhere, too
    source.rename(moved)
    (tmp_path / "here").rename(tmp_path / "gone")
    there = Study(tmp_path / "there" / "study", moved)
    summary = there.go_on(each, Setting(0), RoundGate(Deadline(FOR_LONG), 1.0))
    assert summary.status == "finished"
    assert [record.round for record in summary.rounds] == [1, 2]
    assert summary.run == here_run(tmp_path / "gone")


def here_run(place: Path) -> str:
    (run,) = (place / "study" / "runs").iterdir()
    return run.name


def test_a_round_that_takes_too_long_is_given_up(tmp_path: Path, source: Path) -> None:
    (small,) = slices(small=True)
    long = small.original.model_copy(update={"local_epochs": 20_000})
    each = Slice(long, scale=0.001)
    study = Study(tmp_path, source)
    summary = study.go_on(each, Setting(1), RoundGate(Deadline(STOP_SECONDS + 8.0), 0.1))
    assert (summary.status, summary.rounds) == ("interrupted", [])
