"""The loop over a sweep's points; runs are real folders that a fake server fills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedbench.config import Experiment, load_devices, load_experiment, load_profile
from fedbench.errors import ConfigError, DataError, DockerError, RunError, RunInterrupted
from fedbench.host.data.prepare import Prepared
from fedbench.host.studies.grid import Point, Study, Sweep, points
from fedbench.host.studies.sweep import Sweeping, Task, seconds_left
from fedbench.records import Summary, summarise, write_summary
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
EVENTS = (GOLDEN / "events.jsonl").read_text().splitlines(keepends=True)
PROFILE = load_profile("heterogeneous")


@dataclass
class Server:
    """Makes runs, and fills their folders with two rounds as a server would; notes what it does.

    `endings` says what becomes of a run, by the number of the call that executes it.
    """

    store: RunStore
    endings: dict[int, Callable[[Run], None]] = field(default_factory=dict)
    resumable: bool = True
    calls: list[str] = field(default_factory=list)
    executed: int = 0
    refused: dict[int, Exception] = field(default_factory=dict)

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        self.calls.append(f"create rounds={experiment.rounds} seed={experiment.seed}")
        if error := self.refused.pop(len(self.calls), None):
            raise error
        return self.store.create(experiment, PROFILE, RunInputs())

    def resume(self, name: str | None) -> Run:
        self.calls.append(f"resume {name}")
        if not self.resumable:
            raise RunError(f"run {name} belongs to another federation (x)")
        run = self.store.find(name)
        run.prepare_resume()
        return run

    def execute(self, run: Run) -> Summary:
        self.executed += 1
        shutil.copy(GOLDEN / "rounds.jsonl", run.path)
        (run.path / "events.jsonl").write_text("".join(EVENTS))
        if ending := self.endings.get(self.executed):
            ending(run)
        return write_summary(run.path)


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
def server(store: RunStore) -> Server:
    return Server(store)


def sweeping(store: RunStore, said: list[str] | None = None, **keys: Any) -> Sweeping:
    """The sweep as another process finds it."""
    return Sweeping(study(**keys), store, prepare, (said if said is not None else []).append)


def run(server: Server, said: list[str] | None = None, **keys: Any) -> Sweeping:
    mine = sweeping(server.store, said, **keys)
    mine.run(server, None, server.execute)
    return mine


def counts(mine: Sweeping) -> list[str]:
    return [f"{len(row.runs)}/{row.wanted}" for row in mine.rows()]


def test_every_point_is_run_once(server: Server) -> None:
    said: list[str] = []
    mine = run(server, said)
    assert server.calls == [f"create rounds={number} seed=0" for number in (1, 2, 3)]
    assert (mine.pending(), mine.failures(), counts(mine)) == ([], [], ["1/1"] * 3)
    assert said == [
        "run 1/3 (rounds=1, seed=0), no estimate before a run has ended",
        # 31.5 s took two rounds of as many images as the rest has rounds of.
        "run 2/3 (rounds=2, seed=0), about 1 min 19 s left",
        "run 3/3 (rounds=3, seed=0), about 0 min 47 s left",
    ]


def test_what_is_finished_is_skipped(server: Server) -> None:
    run(server)
    server.calls.clear()
    said: list[str] = []
    mine = run(server, said)
    mine.announce()
    assert server.calls == []
    assert said == ["sweep mine: 3 runs, 3 of them finished"]


def test_only_what_was_added_to_the_grid_is_run(server: Server) -> None:
    run(server)
    server.calls.clear()
    mine = run(server, seeds=2, grid={"rounds": [3, 4]})
    assert server.calls == [
        "create rounds=4 seed=0",
        "create rounds=3 seed=1",
        "create rounds=4 seed=1",
    ]
    assert counts(mine) == ["2/2", "2/2"]


def test_the_table_is_written_after_each_run(server: Server, store: RunStore) -> None:
    tables: list[str] = []
    folder = store.path / "sweeps" / "mine"
    look = {number: lambda _: tables.append((folder / "table.md").read_text()) for number in (2, 3)}
    server.endings = look
    run(server)
    tables.append((folder / "table.md").read_text())
    finished = [next(line for line in text.splitlines() if "finished" in line) for text in tables]
    assert [line.rpartition(". ")[2] for line in finished] == [
        f"{number} of 3 runs are finished." for number in (1, 2, 3)
    ]
    assert (folder / "table.csv").read_text().count("\nmine,") == 3
    assert store.all() == sorted(store.all(), key=lambda run: run.id), "the folder is no run"
    assert len(store.all()) == 3


def test_an_interrupted_sweep_goes_on_with_the_run_that_was_begun(server: Server) -> None:
    server.endings = {2: interrupted}
    with pytest.raises(RunInterrupted) as caught:
        run(server)
    folder = server.store.path / "sweeps" / "mine"
    assert caught.value.message == (
        f"sweep mine stopped with 1 of 3 runs finished; what there is of its table is in {folder}"
    )
    assert caught.value.hint.startswith("the same command goes on from there")
    begun = json.loads((folder / "sweep.json").read_text())
    name = next(entry["run"] for entry in begun.values() if "rounds=2" in entry["point"])

    server.calls.clear()
    said: list[str] = []
    mine = run(server, said)
    assert server.calls == [f"resume {name}", "create rounds=3 seed=0"]
    assert f"going on with run {name} after round 1" in said
    assert counts(mine) == ["1/1"] * 3


def test_a_kill_loses_no_more_than_an_interrupt(server: Server) -> None:
    def kill(run: Run) -> None:
        (run.path / "events.jsonl").write_text("".join(EVENTS[:-1]))
        raise MemoryError  # whatever ends the process here

    server.endings = {1: kill}
    with pytest.raises(MemoryError):
        run(server)
    server.calls.clear()
    mine = run(server)
    assert server.calls[0].startswith("resume ")
    assert counts(mine) == ["1/1"] * 3


def test_a_ctrl_c_outside_a_run_is_an_interrupt_too(server: Server) -> None:
    server.refused = {2: KeyboardInterrupt()}  # type: ignore[dict-item]
    with pytest.raises(RunInterrupted, match="sweep mine stopped with 1 of 3 runs finished"):
        run(server)


def test_a_ctrl_c_amid_the_last_round_ends_the_sweep_after_it(server: Server) -> None:
    server.endings = {1: lambda run: run.request_stop()}
    with pytest.raises(RunInterrupted, match="sweep mine stopped with 1 of 3 runs finished"):
        run(server)
    server.calls.clear()
    run(server)
    assert server.calls == ["create rounds=2 seed=0", "create rounds=3 seed=0"]


def test_a_run_that_fails_does_not_keep_the_others_from_running(server: Server) -> None:
    server.endings = {1: failed}
    said: list[str] = []
    mine = run(server, said)
    name = server.store.all()[0].id
    why = f"run {name} failed: out of memory"
    assert mine.failures() == [f"rounds=1, seed=0: {why}"]
    assert f"failed: {why}" in said
    assert counts(mine) == ["0/1", "1/1", "1/1"]
    assert why in (mine.folder / "table.md").read_text()

    server.calls.clear()
    mine = run(server)
    assert server.calls == [f"resume {name}"]
    assert (mine.failures(), counts(mine)) == ([], ["1/1"] * 3)


@pytest.mark.parametrize("error", [ConfigError("no client 'x'"), DataError("too few images")])
def test_a_point_that_cannot_become_a_run_fails_alone(error: Exception, server: Server) -> None:
    server.refused = {2: error}
    mine = run(server)
    assert mine.failures() == [f"rounds=2, seed=0: {error}"]
    assert counts(mine) == ["1/1", "0/1", "1/1"]


@pytest.mark.parametrize("error", [DockerError("no server"), RunError("run x is in progress")])
def test_what_every_point_would_meet_ends_the_sweep(error: Exception, server: Server) -> None:
    server.refused = {2: error}
    with pytest.raises(type(error), match=str(error)):
        run(server)
    assert len(server.calls) == 2
    mine = sweeping(server.store)
    assert (mine.failures(), counts(mine)) == ([], ["1/1", "0/1", "0/1"])
    assert "1 of 3 runs are finished" in (mine.folder / "table.md").read_text()


def test_a_run_that_cannot_go_on_starts_anew(server: Server) -> None:
    server.endings = {3: interrupted}
    with pytest.raises(RunInterrupted):
        run(server)
    server.resumable = False
    said: list[str] = []
    mine = run(server, said)
    assert server.calls[-1] == "create rounds=3 seed=0"
    assert said[-1].endswith("belongs to another federation (x): it starts anew")
    assert counts(mine) == ["1/1"] * 3


def test_a_run_whose_folder_was_deleted_is_run_again(server: Server) -> None:
    run(server)
    shutil.rmtree(server.store.all()[1].path)
    server.calls.clear()
    run(server)
    assert server.calls == ["create rounds=2 seed=0"]


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


def task(model: str, epochs: int, samples: int) -> Task:
    experiment = load_experiment("digits", [f"model={model}", f"local_epochs={epochs}"])
    return Task(Point({}, experiment), "id", samples)


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
    done: Sequence[Task], left: list[tuple[Task, int]], seconds: float | None
) -> None:
    assert seconds_left([(task, DONE) for task in done], left) == pytest.approx(seconds)
