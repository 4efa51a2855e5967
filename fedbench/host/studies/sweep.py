"""Runs a sweep: finished runs are skipped, runs that were interrupted or failed go on.

`runs/sweeps/<name>/` has `sweep.json` (which run is of which point), and the table as it stands,
`table.md` and `table.csv`. An `Engine` makes the runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.config import Experiment
from fedbench.config.units import format_duration
from fedbench.engines.engine import Engine, EngineName
from fedbench.errors import ConfigError, DataError, FedbenchError, RunError, RunInterrupted
from fedbench.host.data.prepare import Prepared
from fedbench.host.say import Say
from fedbench.host.studies import sweep_table
from fedbench.host.studies.sweep_grid import Point, Study, federation, identity
from fedbench.host.studies.sweep_table import Outcome, SweepRow
from fedbench.records import Summary, replace_text
from fedbench.records.files import read_object
from fedbench.records.runs import Run, RunStore

Prepare = Callable[[Experiment], Prepared]
Follow = Callable[[Run], Summary]


@dataclass(frozen=True)
class PlannedRun:
    """A point, its identity, and the images that the client with most of them trains on."""

    point: Point
    id: str
    samples: int

    def work(self, rounds: int) -> int:
        """Return the images that this client trains on in so many rounds."""
        return rounds * self.point.experiment.local_epochs * self.samples


class SweepFile:
    """`sweep.json`: the run of each point, or why there is none. Runs may have been deleted."""

    def __init__(self, path: Path, store: RunStore) -> None:
        self._path = path
        self._store = store
        self._points = read_object(path) if path.exists() else {}

    def note(self, task: PlannedRun, run: Run | None, failure: str | None = None) -> None:
        """Write down a point's run, or why it failed."""
        self._points[task.id] = {
            "point": str(task.point),
            "run": run and run.id,
            "failure": failure,
        }
        replace_text(self._path, json.dumps(self._points, indent=2) + "\n")

    def run(self, task: PlannedRun) -> Run | None:
        """Return the run of a point, finished or not, or None."""
        name = self._points.get(task.id, {}).get("run")
        run = Run(self._store.path / name) if name else None
        return run if run and (run.path / "run.json").exists() else None

    def failure(self, task: PlannedRun) -> str | None:
        """Return why a point failed last, or None."""
        failure: str | None = self._points.get(task.id, {}).get("failure")
        return failure


class SweepRuns:
    """The runs of one sweep, over all of its points.

    Raises:
        DataError: the data of a point cannot be used; nothing was started.
    """

    def __init__(
        self,
        study: Study,
        store: RunStore,
        prepare: Prepare,
        say: Say,
        engine: EngineName = "containers",
    ) -> None:
        self.study = study
        # Runs in one program say nothing of any device: a table has runs of one engine only.
        self.name = study.sweep.name + ("" if engine == "containers" else f"-{engine}")
        self.folder = store.path / "sweeps" / self.name
        self._say = say
        self._tasks = _tasks(study, prepare)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = SweepFile(self.folder / "sweep.json", store)

    def finished(self, task: PlannedRun) -> Summary | None:
        """Return the summary of a point's run, or None if it is not finished."""
        run = self._file.run(task)
        summary = run.summary() if run else None
        return summary if summary and summary.status == "finished" else None

    def pending(self) -> list[PlannedRun]:
        """List the points that are still to be run."""
        return [task for task in self._tasks if not self.finished(task)]

    def rows(self) -> list[SweepRow]:
        """Return the rows of the table as it stands."""
        return sweep_table.rows(self._outcome(task) for task in self._tasks)

    def write(self) -> None:
        """Write the table as it stands."""
        rows = self.rows()
        replace_text(self.folder / "table.md", sweep_table.sweep_markdown(self.study.sweep, rows))
        replace_text(self.folder / "table.csv", sweep_table.sweeps_csv({self.name: rows}))

    def announce(self) -> None:
        """Say how many runs there are, and how long they take."""
        total, pending = len(self._tasks), len(self.pending())
        left = f"; {self._left()}" if pending else ""
        self._say(f"sweep {self.name}: {total} runs, {total - pending} of them finished{left}")

    def run(self, engine: Engine, source: Path | None, follow: Follow) -> None:
        """Run all pending points, and write the table after each.

        A point that fails is noted, and the others go on.

        Raises:
            RunInterrupted: the user pressed Ctrl-C.
            RunError: another run is in progress.
            HostError: the federation is out of reach.
        """
        for number, task in enumerate(self._tasks, 1):
            if self.finished(task):
                continue
            self._say(f"run {number}/{len(self._tasks)} ({task.point}), {self._left()}")
            try:
                self._run(task, engine, source, follow)
            except (KeyboardInterrupt, RunInterrupted):
                raise self._interrupted() from None
            finally:
                self.write()

    def failures(self) -> list[str]:
        """List the points that failed, and why."""
        return [failure for row in self.rows() for failure in row.failures]

    def _run(self, task: PlannedRun, engine: Engine, source: Path | None, follow: Follow) -> None:
        with engine.alone():
            try:
                run = self._open(task, engine, source)
            except (ConfigError, DataError) as error:
                self._failed(task, None, error)
                return
            self._file.note(task, run)
            engine.start(run)
        try:
            follow(run)
        except RunError as error:
            self._failed(task, run, error)
        if run.stop_requested():  # a Ctrl-C amid the last round lets the run finish
            raise self._interrupted()

    def _open(self, task: PlannedRun, engine: Engine, source: Path | None) -> Run:
        """Return the run that was begun, or else a new one."""
        begun = self._file.run(task)
        if begun is None:
            return engine.create(task.point.experiment, source)
        try:
            run = engine.resume(begun.id)
        except RunError as error:
            run = engine.create(task.point.experiment, source)
            self._say(f"{error.message}: it starts anew")
        else:
            self._say(f"going on with run {run.id} after round {len(run.rounds())}")
        return run

    def _failed(self, task: PlannedRun, run: Run | None, error: FedbenchError) -> None:
        self._file.note(task, run, error.message)
        self._say(f"failed: {error.message}")

    def _interrupted(self) -> RunInterrupted:
        done = len(self._tasks) - len(self.pending())
        return RunInterrupted(
            f"sweep {self.name} stopped with {done} of {len(self._tasks)} runs finished; "
            f"what there is of its table is in {self.folder}",
            "the same command goes on from there; `make down` takes the federation down",
        )

    def _outcome(self, task: PlannedRun) -> Outcome:
        summary = self.finished(task)
        return Outcome(task.point, summary, None if summary else self._file.failure(task))

    def _left(self) -> str:
        done = [(task, summary) for task in self._tasks if (summary := self.finished(task))]
        left = [(task, self._rounds_left(task)) for task in self.pending()]
        seconds = seconds_left(done, left)
        return (
            "no estimate before a run has ended"
            if seconds is None
            else (f"about {format_duration(seconds)} left")
        )

    def _rounds_left(self, task: PlannedRun) -> int:
        run = self._file.run(task)
        return task.point.experiment.rounds - (len(run.rounds()) if run else 0)


def seconds_left(
    done: Sequence[tuple[PlannedRun, Summary]], left: Sequence[tuple[PlannedRun, int]]
) -> float | None:
    """Estimate wall seconds of so many rounds of each task from the tasks that are done.

    A model without a finished task is taken to be as fast as the mean of the others. None where
    no task is done.
    """
    paces: dict[str | None, list[tuple[float, int]]] = {}
    for task, summary in done:
        seconds = sum(record.duration_seconds for record in summary.rounds)
        for model in (task.point.experiment.model, None):
            paces.setdefault(model, []).append((seconds, task.work(len(summary.rounds))))
    if not paces:
        return None
    pace = {
        model: sum(seconds for seconds, _ in pairs) / sum(work for _, work in pairs)
        for model, pairs in paces.items()
    }
    return sum(
        task.work(rounds) * pace.get(task.point.experiment.model, pace[None])
        for task, rounds in left
    )


def _tasks(study: Study, prepare: Prepare) -> list[PlannedRun]:
    """Prepare the data of the points, once where several have the same."""
    known: dict[str, Prepared] = {}
    where: Mapping[str, Any] = federation(study.profile, study.devices)
    tasks = []
    for point in study.points:
        wanted = point.experiment.data.model_dump_json() + str(point.experiment.seed)
        if wanted not in known:
            known[wanted] = prepare(point.experiment)
        data = known[wanted]
        id_ = identity(point.experiment, data.key, where)
        tasks.append(PlannedRun(point, id_, max(data.samples.values())))
    return tasks
