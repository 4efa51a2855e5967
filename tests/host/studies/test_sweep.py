"""The loop over a sweep's points; runs are real folders that a fake engine fills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_engine import GOLDEN, FakeEngine

from fedbench.config import Experiment, load_devices, load_experiment, load_profile
from fedbench.errors import ConfigError, DataError, DockerError, RunError, RunInterrupted
from fedbench.host.data.prepare import Prepared
from fedbench.host.studies.grid import Point, Study, Sweep, points
from fedbench.host.studies.sweep import PlannedRun, Sweeping, seconds_left
from fedbench.records import summarise, write_summary
from fedbench.records.runs import Run, RunStore

EVENTS = (GOLDEN / "events.jsonl").read_text().splitlines(keepends=True)
PROFILE = load_profile("heterogeneous")


def end(run: Run, event: str, **facts: str) -> None:
    """Says in the run's events that it ended otherwise, and before its second round."""
    line = json.dumps({"time": "2026-01-02T03:04:40.000+00:00", "event": event} | facts) + "\n"
    (run.path / "events.jsonl").write_text("".join([*EVENTS[:-1], line]))
    rounds = run.path / "rounds.jsonl"
    rounds.write_text(rounds.read_text().splitlines(keepends=True)[0])
    write_summary(run.path)


def interrupted(run: Run) -> None:
    run.request_stop()
    end(run, "stopped")
    raise RunInterrupted(f"run {run.id} stopped", "make run RESUME=…")


def failed(run: Run) -> None:
    end(run, "error", reason="out of memory")
    raise RunError(f"run {run.id} failed: out of memory")


def study(**keys: Any) -> Study:
    """Three points, of 1, 2 and 3 rounds."""
    values = {"name": "mine", "profile": "heterogeneous", "experiment": "digits"}
    sweep = Sweep.model_validate(values | {"grid": {"rounds": [1, 2, 3]}} | keys)
    found = points(sweep, load_experiment("digits"), Path("mine.yaml"))
    return Study(sweep, PROFILE, load_devices(PROFILE), found)


def prepare(experiment: Experiment) -> Prepared:
    key = f"digits-{experiment.data.partition.name}-s{experiment.seed}"
    return Prepared(key, ("0", "1"), {"laptop": 10, "legacy-pc": 20}, 5)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def engine(store: RunStore) -> FakeEngine:
    return FakeEngine(store)


def sweeping(store: RunStore, said: list[str] | None = None, **keys: Any) -> Sweeping:
    """The sweep as another process finds it."""
    return Sweeping(study(**keys), store, prepare, (said if said is not None else []).append)


def run(engine: FakeEngine, said: list[str] | None = None, **keys: Any) -> Sweeping:
    mine = sweeping(engine.store, said, **keys)
    mine.run(engine, None, lambda run: engine.follow(run, lambda: None))
    return mine


def counts(mine: Sweeping) -> list[str]:
    return [f"{len(row.runs)}/{row.wanted}" for row in mine.rows()]


def test_every_point_is_run_once(engine: FakeEngine) -> None:
    said: list[str] = []
    mine = run(engine, said)
    assert engine.calls == [f"create rounds={number} seed=0" for number in (1, 2, 3)]
    assert (mine.pending(), mine.failures(), counts(mine)) == ([], [], ["1/1"] * 3)
    assert said == [
        "run 1/3 (rounds=1, seed=0), no estimate before a run has ended",
        # 31.5 s took two rounds of as many images as the rest has rounds of.
        "run 2/3 (rounds=2, seed=0), about 1 min 19 s left",
        "run 3/3 (rounds=3, seed=0), about 0 min 47 s left",
    ]


def test_what_is_finished_is_skipped(engine: FakeEngine) -> None:
    run(engine)
    engine.calls.clear()
    said: list[str] = []
    mine = run(engine, said)
    mine.announce()
    assert engine.calls == []
    assert said == ["sweep mine: 3 runs, 3 of them finished"]


def test_only_what_was_added_to_the_grid_is_run(engine: FakeEngine) -> None:
    run(engine)
    engine.calls.clear()
    mine = run(engine, seeds=2, grid={"rounds": [3, 4]})
    assert engine.calls == [
        "create rounds=4 seed=0",
        "create rounds=3 seed=1",
        "create rounds=4 seed=1",
    ]
    assert counts(mine) == ["2/2", "2/2"]


def test_the_table_is_written_after_each_run(engine: FakeEngine, store: RunStore) -> None:
    tables: list[str] = []
    folder = store.path / "sweeps" / "mine"
    look = {number: lambda _: tables.append((folder / "table.md").read_text()) for number in (2, 3)}
    engine.endings = look
    run(engine)
    tables.append((folder / "table.md").read_text())
    finished = [next(line for line in text.splitlines() if "finished" in line) for text in tables]
    assert [line.rpartition(". ")[2] for line in finished] == [
        f"{number} of 3 runs are finished." for number in (1, 2, 3)
    ]
    assert (folder / "table.csv").read_text().count("\nmine,") == 3
    assert store.all() == sorted(store.all(), key=lambda run: run.id), "the folder is no run"
    assert len(store.all()) == 3


def test_an_interrupted_sweep_goes_on_with_the_run_that_was_begun(engine: FakeEngine) -> None:
    engine.endings = {2: interrupted}
    with pytest.raises(RunInterrupted) as caught:
        run(engine)
    folder = engine.store.path / "sweeps" / "mine"
    assert caught.value.message == (
        f"sweep mine stopped with 1 of 3 runs finished; what there is of its table is in {folder}"
    )
    assert caught.value.hint.startswith("the same command goes on from there")
    begun = json.loads((folder / "sweep.json").read_text())
    name = next(entry["run"] for entry in begun.values() if "rounds=2" in entry["point"])

    engine.calls.clear()
    said: list[str] = []
    mine = run(engine, said)
    assert engine.calls == [f"resume {name}", "create rounds=3 seed=0"]
    assert f"going on with run {name} after round 1" in said
    assert counts(mine) == ["1/1"] * 3


def test_a_kill_loses_no_more_than_an_interrupt(engine: FakeEngine) -> None:
    def kill(run: Run) -> None:
        (run.path / "events.jsonl").write_text("".join(EVENTS[:-1]))
        raise MemoryError  # whatever ends the process here

    engine.endings = {1: kill}
    with pytest.raises(MemoryError):
        run(engine)
    engine.calls.clear()
    mine = run(engine)
    assert engine.calls[0].startswith("resume ")
    assert counts(mine) == ["1/1"] * 3


def test_a_ctrl_c_outside_a_run_is_an_interrupt_too(engine: FakeEngine) -> None:
    engine.refused = {2: KeyboardInterrupt()}
    with pytest.raises(RunInterrupted, match="sweep mine stopped with 1 of 3 runs finished"):
        run(engine)


def test_a_ctrl_c_amid_the_last_round_ends_the_sweep_after_it(engine: FakeEngine) -> None:
    engine.endings = {1: lambda run: run.request_stop()}
    with pytest.raises(RunInterrupted, match="sweep mine stopped with 1 of 3 runs finished"):
        run(engine)
    engine.calls.clear()
    run(engine)
    assert engine.calls == ["create rounds=2 seed=0", "create rounds=3 seed=0"]


def test_a_run_that_fails_does_not_keep_the_others_from_running(engine: FakeEngine) -> None:
    engine.endings = {1: failed}
    said: list[str] = []
    mine = run(engine, said)
    name = engine.store.all()[0].id
    why = f"run {name} failed: out of memory"
    assert mine.failures() == [f"rounds=1, seed=0: {why}"]
    assert f"failed: {why}" in said
    assert counts(mine) == ["0/1", "1/1", "1/1"]
    assert why in (mine.folder / "table.md").read_text()

    engine.calls.clear()
    mine = run(engine)
    assert engine.calls == [f"resume {name}"]
    assert (mine.failures(), counts(mine)) == ([], ["1/1"] * 3)


@pytest.mark.parametrize("error", [ConfigError("no client 'x'"), DataError("too few images")])
def test_a_point_that_cannot_become_a_run_fails_alone(error: Exception, engine: FakeEngine) -> None:
    engine.refused = {2: error}
    mine = run(engine)
    assert mine.failures() == [f"rounds=2, seed=0: {error}"]
    assert counts(mine) == ["1/1", "0/1", "1/1"]


@pytest.mark.parametrize("error", [DockerError("no server"), RunError("run x is in progress")])
def test_what_every_point_would_meet_ends_the_sweep(error: Exception, engine: FakeEngine) -> None:
    engine.refused = {2: error}
    with pytest.raises(type(error), match=str(error)):
        run(engine)
    assert len(engine.calls) == 2
    mine = sweeping(engine.store)
    assert (mine.failures(), counts(mine)) == ([], ["1/1", "0/1", "0/1"])
    assert "1 of 3 runs are finished" in (mine.folder / "table.md").read_text()


def test_a_run_that_cannot_go_on_starts_anew(engine: FakeEngine) -> None:
    engine.endings = {3: interrupted}
    with pytest.raises(RunInterrupted):
        run(engine)
    engine.resumable = False
    said: list[str] = []
    mine = run(engine, said)
    assert engine.calls[-1] == "create rounds=3 seed=0"
    assert said[-1].endswith("belongs to another federation (x): it starts anew")
    assert counts(mine) == ["1/1"] * 3


def test_a_run_whose_folder_was_deleted_is_run_again(engine: FakeEngine) -> None:
    run(engine)
    shutil.rmtree(engine.store.all()[1].path)
    engine.calls.clear()
    run(engine)
    assert engine.calls == ["create rounds=2 seed=0"]


def test_data_that_several_points_have_are_prepared_once(store: RunStore) -> None:
    prepared: list[tuple[str, int]] = []

    def count(experiment: Experiment) -> Prepared:
        prepared.append((experiment.data.partition.name, experiment.seed))
        return prepare(experiment)

    grid = {"rounds": [1, 2], "data.partition": ["iid", "replicated"]}
    Sweeping(study(grid=grid, seeds=2), store, count, lambda _: None)
    assert prepared == [("iid", 0), ("replicated", 0), ("iid", 1), ("replicated", 1)]


def test_data_that_cannot_be_had_start_nothing(store: RunStore) -> None:
    def refuse(experiment: Experiment) -> Prepared:
        raise DataError("no such folder")

    with pytest.raises(DataError):
        Sweeping(study(), store, refuse, lambda _: None)
    assert not store.path.exists()


# -- seconds_left


def task(model: str, epochs: int, samples: int) -> PlannedRun:
    experiment = load_experiment("digits", [f"model={model}", f"local_epochs={epochs}"])
    return PlannedRun(Point({}, experiment), "id", samples)


V1, V2 = "mobilenet_v1", "mobilenet_v2"
DONE = summarise(GOLDEN)  # two rounds, 31.5 s


@pytest.mark.parametrize(
    ("done", "left", "seconds"),
    [
        ([], [(task(V2, 1, 10), 2)], None),
        ([task(V2, 1, 10)], [], 0.0),
        ([task(V2, 1, 10)], [(task(V2, 1, 10), 2)], 31.5),
        ([task(V2, 1, 10)], [(task(V2, 3, 20), 1), (task(V2, 1, 10), 1)], 31.5 * 3.5),
        ([task(V2, 1, 10), task(V1, 1, 30)], [(task(V2, 1, 10), 2)], 31.5),
        ([task(V2, 1, 10), task(V1, 1, 30)], [(task("mobilenet_v3_small", 1, 10), 4)], 31.5),
    ],
)
def test_what_is_left_is_estimated_from_what_is_done(
    done: Sequence[PlannedRun], left: list[tuple[PlannedRun, int]], seconds: float | None
) -> None:
    assert seconds_left([(task, DONE) for task in done], left) == pytest.approx(seconds)
