"""An engine whose runs are real folders that it fills with two rounds, without any training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from fedbench.config import Experiment, Profile, load_profile
from fedbench.errors import RunError
from fedbench.records import Summary, write_summary
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

GOLDEN = Path(__file__).parents[1] / "golden" / "runs" / "20260102-030405-digits"


def heterogeneous() -> Profile:
    return load_profile("heterogeneous")


@dataclass
class FakeEngine:
    """Notes what it is asked for in `calls`.

    `endings` says what becomes of a run, by the number of the follow that ends it; `refused` which
    creation fails, by the number of the call.
    """

    store: RunStore
    profile: Profile = field(default_factory=heterogeneous)
    inputs: RunInputs = field(default_factory=RunInputs)
    endings: dict[int, Callable[[Run], None]] = field(default_factory=dict)
    refused: dict[int, BaseException] = field(default_factory=dict)
    resumable: bool = True
    calls: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    followed: int = 0

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        self.calls.append(f"create rounds={experiment.rounds} seed={experiment.seed}")
        if error := self.refused.pop(len(self.calls), None):
            raise error
        return self.store.create(experiment, self.profile, self.inputs)

    def resume(self, name: str | None) -> Run:
        self.calls.append(f"resume {name}")
        if not self.resumable:
            raise RunError(f"run {name} belongs to another federation (x)")
        run = self.store.find(name)
        run.prepare_resume()
        return run

    def start(self, run: Run) -> None:
        self.started.append(run.id)

    def follow(self, run: Run, look: Callable[[], None]) -> Summary:
        assert run.id in self.started
        self.followed += 1
        for name in ("rounds.jsonl", "events.jsonl"):
            (run.path / name).unlink(missing_ok=True)
            shutil.copy(GOLDEN / name, run.path)
        if ending := self.endings.get(self.followed):
            ending(run)
        look()
        return write_summary(run.path)

    def stop(self, run: Run) -> None:
        run.request_stop()
