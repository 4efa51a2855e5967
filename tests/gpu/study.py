"""A slice of the study: the paper's 20 rounds of 20 local epochs, as far as the time goes.

The runs are the product's, as `fedbench reproduce` makes them in one program. They stay in `study/`
of the results, and go on there: a round is begun only if it will be over in time.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from deadline import Deadline
from workers import SETTINGS, Setting, sharing

from fedbench.config import Experiment, load_profile
from fedbench.engines.in_process.engine import InProcessEngine, holders
from fedbench.errors import RunError, RunInterrupted
from fedbench.host.data.prepare import Prepared, prepare
from fedbench.host.plan.plan import client_devices
from fedbench.host.report.tables.paper import PaperRun
from fedbench.host.setup.places import Places
from fedbench.host.studies import reproduce
from fedbench.records import RoundRecord, Summary
from fedbench.records.runs import Run, RunStore

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 15.0  # until the processes of a run have imported torch and found the GPU
STOP_SECONDS = 4.0  # to end a round that takes longer than it should
TRIAL_SECONDS = 25.0
POLL_SECONDS = 0.05

Known = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Slice:
    """A run of the study, on a share `scale` of the data."""

    original: PaperRun
    tuned: bool = False
    scale: float = 1.0

    @property
    def key(self) -> str:
        """The run's name in records."""
        return f"{self.original.model}{'-tuned' if self.tuned else ''}"

    def experiment(self) -> Experiment:
        """Return what is run."""
        return reproduce.experiment(self.original, self.scale, None, 0, tuned=self.tuned)

    def trial(self) -> Experiment:
        """Return a short run, whose second round tells how fast the first one's successors are."""
        original = self.original.model_copy(update={"rounds": 2, "local_epochs": 1})
        scale = self.scale / 2 if self.scale < 1 else 0.2
        return reproduce.experiment(original, scale, None, 0, tuned=self.tuned)


def slices(*, small: bool) -> list[Slice]:
    """Return the runs in their order, the cheapest first; `small` stands in for all of them."""
    originals = {original.model: original for original in reproduce.choose("table3", None, [])}
    if small:
        short = originals["mobilenet_v3_small"].model_copy(update={"rounds": 2, "local_epochs": 1})
        return [Slice(short, scale=0.001)]
    names = ("mobilenet_v3_small", "mobilenet_v2", "mobilenet_v1", "mobilenet_v3_large")
    table = [Slice(originals[name]) for name in names]
    return [*table, Slice(originals["mobilenet_v2"], tuned=True)]


class RoundGate:
    """Says if another round fits into the time.

    `expected` is how long one takes in seconds, as long as none was seen; `most` bounds their
    number.
    """

    def __init__(self, deadline: Deadline, expected: float, most: int | None = None) -> None:
        self._deadline = deadline
        self._expected = expected
        self._most = most

    def seconds(self, durations: Sequence[float]) -> float:
        """Return how long the next round should take: as the median of the last three, and 5 %."""
        return 1.05 * median(durations[-3:]) if durations else self._expected

    def open(self, durations: Sequence[float], begun: int) -> bool:
        """Say if a round fits after rounds of these durations; `begun` of them were made now.

        The first one of a program includes its start.
        """
        if self._most is not None and begun >= self._most:
            return False
        start = 0.0 if begun else START_SECONDS
        return self.seconds(durations) + start < self._deadline.left() - STOP_SECONDS

    def expired(self) -> bool:
        """Say if a round must be given up."""
        return self._deadline.left() < STOP_SECONDS


class SlicedEngine(InProcessEngine):
    """The product's engine, which ends a run after the last round that fits into the time."""

    gate: RoundGate | None = None

    def start(self, run: Run) -> None:
        """Start the run, and what ends it."""
        super().start(run)
        if self.gate:
            arguments = (run, self.gate, len(run.rounds()))
            threading.Thread(target=self._end_in_time, args=arguments, daemon=True).start()

    def _end_in_time(self, run: Run, gate: RoundGate, before: int) -> None:
        seen = before
        while self._processes[run.id].poll() is None:
            durations = [record.duration_seconds for record in run.rounds()]
            full = len(durations) > seen and not gate.open(durations, len(durations) - before)
            if full or gate.expired():
                run.request_stop()
                return
            seen = len(durations)
            time.sleep(POLL_SECONDS)


class Study:
    """Runs of the study in the folder `place`, with CIFAR-10 from `source`."""

    def __init__(self, place: Path, source: Path | None) -> None:
        self.places = Places(place)
        self.store = RunStore(self.places.runs)
        self._source = source

    def run_of(self, each: Slice) -> Run | None:
        """Return the run of a slice, where there is one already."""
        wanted = each.experiment().model_dump(mode="json")
        runs = [run for run in self.store.all() if run.asked() == wanted]
        return runs[-1] if runs else None

    def finished(self, each: Slice) -> bool:
        """Say if nothing of a slice is left to do."""
        run = self.run_of(each)
        return run is not None and run.summary().status == "finished"

    def prepare(self, each: Slice) -> None:
        """Decode and divide the data of a slice and its trial, where that was not done."""
        for experiment in (each.trial(), each.experiment()):
            self._prepared(each, experiment)

    def engine(self, each: Slice, setting: Setting) -> SlicedEngine:
        """Return what executes a slice."""
        profile = load_profile(each.original.profile)
        return SlicedEngine(self.places, profile, _say, setting.workers)

    def go_on(self, each: Slice, setting: Setting, gate: RoundGate) -> Summary:
        """Make the rounds of a slice that fit into the time; return how far it is.

        Raises:
            FedbenchError: the run failed.
        """
        engine = self.engine(each, setting)
        engine.gate = gate
        if run := self.run_of(each):
            self._move_here(run, each, setting)
        made = reproduce.Reproduction(lambda: engine, self.store, "in-process", _say)
        try:
            return made.run(each.original, each.experiment(), self._source)
        except RunInterrupted:
            stopped = self.run_of(each)
            if stopped is None:
                raise
            return stopped.summary()

    def trial(self, each: Slice, setting: Setting) -> float:
        """Return how many images all clients together train in a second, in a short run.

        Raises:
            FedbenchError: the run failed.
        """
        engine = self.engine(each, setting)
        run = engine.create(each.trial(), self._source)
        try:
            engine.start(run)
            last = engine.follow(run, lambda: None).rounds[-1]
        except RunError as error:
            log = (run.path / "engine.log").read_text(errors="replace")
            raise RunError(f"{error.message}: {log[-1000:]}") from error
        finally:
            shutil.rmtree(run.path)
        if errors := _errors([last]):
            raise RunError(f"{setting}: {errors[0]}")
        return sum(client.samples for client in last.clients) / last.duration_seconds

    def _move_here(self, run: Run, each: Slice, setting: Setting) -> None:
        """Let a run that began on another computer find the data of this one."""
        prepared = self._prepared(each, each.experiment())
        facts = run.facts()
        if facts.engine is None:
            raise RunError(f"run {run.id} was made in containers")
        root = self.places.in_process
        moved = [
            client.model_copy(update={"data": str((root / Path(client.data).name).absolute())})
            for client in facts.engine.clients
        ]
        engine = facts.engine.model_copy(update={"clients": moved, "workers": setting.workers})
        facts.model_copy(update={"data": prepared.key, "engine": engine}).write(run.path)

    def _prepared(self, each: Slice, experiment: Experiment) -> Prepared:
        copies = holders(experiment, client_devices(load_profile(each.original.profile)))
        root = self.places.in_process
        return prepare(experiment, copies, root, source=self._source, say=_say)


def measure(
    device: torch.device, deadline: Deadline, known: Known, *, small: bool
) -> Iterator[dict[str, object]]:
    """Go on with the study, and yield how far it came; `known` maps keys to earlier records."""
    with opened(small=small) as study:
        for each in slices(small=small):
            if study.finished(each):
                continue
            study.prepare(each)
            yield from _slice(study, each, deadline, known, small=small)
            if not study.finished(each):
                return  # what comes after it takes longer


def _slice(
    study: Study, each: Slice, deadline: Deadline, known: Known, *, small: bool
) -> Iterator[dict[str, object]]:
    """Go on with one run: try out how, then make the rounds that fit."""
    speeds: dict[Setting, float] = {}
    for setting in [Setting(0)] if small else SETTINGS:
        if setting.workers > 1 and any(tried.mps for tried in speeds):
            continue  # without MPS they would take turns
        key = f"trial-{each.key}-{setting}"
        tried = known.get(key)
        if tried is None and deadline.left() > TRIAL_SECONDS:
            tried = {"key": key, **_trial(study, each, setting)}
            yield tried
        if tried and "samples_per_second" in tried:
            speeds[setting] = float(tried["samples_per_second"])
    if not speeds:
        return
    setting = max(speeds, key=speeds.__getitem__)
    expected = _images(each) / speeds[setting]
    yield {
        "key": f"choice-{each.key}-{time.time():.0f}",
        "chosen": str(setting),
        "samples_per_second": {str(tried): speed for tried, speed in speeds.items()},
        "expected_round_seconds": expected,
    }
    with sharing(setting) as works:
        setting = setting if works else Setting(1)
        # Again after a stop that came too early; a small run stops once in any case, to go on.
        for most in (1, None) if small else (None, None):
            gate = RoundGate(deadline, expected, most)
            before = _durations(study.run_of(each))
            if not gate.open(before, 0):
                yield _too_long(each, gate.seconds(before), deadline, speeds[setting])
                return
            summary = study.go_on(each, setting, gate)
            yield _progress(each, summary, len(before), setting)
            if summary.status == "finished":
                return


def _trial(study: Study, each: Slice, setting: Setting) -> dict[str, Any]:
    """Try for a short while to share the GPU like that; say how fast it is, or why it fails."""
    began = time.monotonic()
    tried: dict[str, Any] = {"workers": setting.workers, "mps": setting.mps, "n": 1}
    try:
        with sharing(setting) as works:
            if works:
                tried["samples_per_second"] = study.trial(each, setting)
            else:
                tried["error"] = "MPS is not here, or does not start"
    except RunError as error:
        tried["error"] = error.message
    return tried | {"seconds": time.monotonic() - began}


def _images(each: Slice) -> int:
    experiment = each.experiment()
    clients = len(client_devices(load_profile(each.original.profile)))
    return clients * experiment.local_epochs * (experiment.data.train_samples or 50_000)


def _durations(run: Run | None) -> list[float]:
    return [float(record.duration_seconds) for record in run.rounds()] if run else []


def _progress(each: Slice, summary: Summary, before: int, setting: Setting) -> dict[str, object]:
    rounds = summary.rounds
    compared = reproduce.compare_with_paper(each.original, summary, each.scale, "in-process")
    return {
        "key": f"{each.key}-rounds-{before + 1}-to-{len(rounds)}-{summary.run}",
        "run": summary.run,
        "status": summary.status,
        "rounds": len(rounds),
        "of": each.original.rounds,
        "setting": str(setting),
        "round_seconds": [float(record.duration_seconds) for record in rounds[before:]],
        "errors": _errors(rounds[before:]),
        "server_accuracies": [record.server_accuracy for record in rounds],
        "against_the_paper": [row.model_dump() for row in compared],
        "n": len(rounds) - before,
    }


def _errors(rounds: Sequence[RoundRecord]) -> list[str]:
    return [client.error for record in rounds for client in record.clients if client.error]


def _too_long(each: Slice, seconds: float, deadline: Deadline, speed: float) -> dict[str, object]:
    return {
        "key": f"too-long-{each.key}-{time.time():.0f}",
        "next_round_seconds": seconds,
        "start_seconds": START_SECONDS,
        "left_seconds": deadline.left(),
        "samples_per_second": speed,
    }


@contextmanager
def opened(*, small: bool) -> Iterator[Study]:
    """Open the study of these results, with CIFAR-10 in the folder that DATA names.

    Without it, it is where the product looks for it. A small study takes pictures of its own.
    """
    home = Path(os.environ["GPU_RESULTS"])
    if not small:
        data = os.environ.get("DATA")
        yield Study(home / "study", Path(data).resolve() if data else None)
        return
    sys.path.append(str(ROOT / "tests" / "e2e"))
    from pictures import write_parquet  # noqa: PLC0415 (another folder's)

    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Path(folder))
        yield Study(home / "study", Path(folder))


def _say(line: str) -> None:
    print(f"study: {line}", flush=True)


def main() -> None:
    """Prepare the data of what comes next, while the GPU is at work on other things."""
    os.nice(19)
    with opened(small=False) as study:
        for each in slices(small=False):
            if not study.finished(each):
                study.prepare(each)
                return


if __name__ == "__main__":
    main()
