"""`runs/<id>/`: what a run was asked, what happened in it, and how it ended."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from fedbench.config import Experiment, Profile
from fedbench.config.model_names import is_user_model
from fedbench.errors import ConfigError, DamagedFileError, RunError
from fedbench.learning import user_models
from fedbench.records import executing
from fedbench.records.events import read_events
from fedbench.records.facts import RunFacts, RunInputs
from fedbench.records.files import (
    UNREADABLE,
    read_object,
    read_record,
    read_whole,
    reason,
    replace_text,
)
from fedbench.records.lines import skim_lines, warn_once
from fedbench.records.rounds import ROUNDS_FILE, RoundRecord, parse_round
from fedbench.records.summary import (
    ENDINGS,
    SUMMARY_FILE,
    Summary,
    ending_of,
    summarise,
    write_summary,
)

Period = tuple[datetime, datetime]


class _AskedData(BaseModel, extra="allow"):
    name: str
    partition: str | dict[str, Any]


class _Asked(BaseModel, extra="allow"):
    """What every version wrote of an experiment."""

    model: str
    data: _AskedData
    rounds: int
    local_epochs: int
    batch_size: int


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Whatever reads a file of it raises DamagedFileError where that cannot be read.
    """

    path: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name

    def experiment(self) -> Experiment:
        """Return what was run."""
        return read_record(self.path / "experiment.json", Experiment)

    def profile(self) -> Profile:
        """Return the federation it ran on."""
        return read_record(self.path / "profile.json", Profile)

    def asked(self) -> dict[str, Any]:
        """Return the same as it was written, for a run of an older version may have other keys."""
        return read_record(self.path / "experiment.json", _Asked).model_dump()

    def versions(self) -> dict[str, Any]:
        """Return software and hardware; nothing where they were not recorded."""
        path = self.path / "versions.json"
        return read_object(path) if path.exists() else {}

    def memory_limits(self) -> dict[str, int]:
        """Return bytes by client; nothing in a run without containers."""
        path = self.path / "compose.yaml"
        if not path.exists():
            return {}
        try:
            services = yaml.safe_load(read_whole(path))["services"].items()
            clients = {name: s for name, s in services if "FEDBENCH_CLIENT" in _variables(s)}
            return {name: int(service["mem_limit"]) for name, service in clients.items()}
        except (*UNREADABLE, AttributeError, yaml.YAMLError) as error:
            raise DamagedFileError(path, f"is damaged: {reason(error)}") from None

    def facts(self) -> RunFacts:
        """Return what the host told the server of the run."""
        return RunFacts.read(self.path)

    def events(self) -> list[dict[str, Any]]:
        """Return what happened so far, oldest first; damaged lines are skipped."""
        return read_events(self.path)

    def rounds(self) -> list[RoundRecord]:
        """Return the complete rounds so far; damaged lines are skipped, as of who only looks."""
        return skim_lines(self.path / ROUNDS_FILE, parse_round)

    def summary(self) -> Summary:
        """Return how the run ended, or how it stands."""
        if self.has_ended():
            # What is damaged is made anew of the records.
            with suppress(DamagedFileError):
                return read_record(self.path / SUMMARY_FILE, Summary)
        return summarise(self.path)

    @property
    def emulates(self) -> bool:
        """True where its seconds are of any device: those of a run in one program are not."""
        return self.facts().emulates

    def state(self) -> str:
        """Return `running` while nothing says that it ended, else how it ended."""
        return self.summary().status if self.has_ended() else "running"

    def has_ended(self) -> bool:
        """Say whether it has a summary: going on takes that away."""
        return (self.path / SUMMARY_FILE).exists()

    def is_executing(self) -> bool:
        """Say whether a server executes it, or will as soon as it is back."""
        return executing.is_executing(self.path)

    def periods(self) -> list[Period]:
        """Return when it was active: from when it was made, or went on, to its end.

        Where its server died without a word, that is when its summary was written, or, where it
        went on later, its last event before. While nothing says that it ended, it goes on.
        """
        begin: datetime | None = self.facts().created_at
        last, periods = None, []
        for event in self.events():
            now = datetime.fromisoformat(event["time"])
            if event["event"] == "started" and last:  # it goes on
                if begin:
                    periods.append((begin, last))
                begin = now
            elif event["event"] in ENDINGS:
                periods.append((begin or now, now))
                begin = None
            last = now
        return [*periods, (begin, self._seen_end())] if begin else periods

    def _seen_end(self) -> datetime:
        with suppress(FileNotFoundError):
            return datetime.fromtimestamp((self.path / SUMMARY_FILE).stat().st_mtime, UTC)
        return datetime.max.replace(tzinfo=UTC)

    def request_stop(self) -> None:
        """Ask the server to end the run; it does so within a second or so."""
        (self.path / "stop").touch()

    def stop_requested(self) -> bool:
        """Say whether that was asked for, however the run ended."""
        return (self.path / "stop").exists()

    def prepare_resume(self) -> None:
        """Make an ended run ready to go on after its last complete round.

        Raises:
            RunError: it is finished already.
        """
        if self._status() == "finished":
            raise RunError(f"run {self.id} is finished", "start a new one with `make run`")
        # The mark of a server goes first: that server may start at this moment.
        for name in (executing.EXECUTING_FILE, "stop", SUMMARY_FILE):
            (self.path / name).unlink(missing_ok=True)

    def _status(self) -> str:
        """Return how it ended, even where its rounds are damaged: who goes on repairs them."""
        with suppress(DamagedFileError):
            return self.summary().status
        return ending_of(self.events())[0]


def _variables(service: dict[str, Any]) -> dict[str, Any]:
    variables: dict[str, Any] = service.get("environment") or {}
    return variables


@dataclass(frozen=True)
class RunStore:
    """All runs, in one folder."""

    path: Path

    def create(self, experiment: Experiment, profile: Profile, inputs: RunInputs) -> Run:
        """Make a new run's folder, with all that goes into it.

        Raises:
            ConfigError: the file of its initial weights is missing.
        """
        now = datetime.now(UTC)
        initial = _initial_weights(experiment)
        self.path.mkdir(parents=True, exist_ok=True)
        run = Run(_new_folder(self.path, f"{now:%Y%m%d-%H%M%S}-{experiment.name}"))
        if initial:
            shutil.copyfile(initial, run.path / "initial.safetensors")
        if is_user_model(experiment.model):
            _keep_models(run)
        replace_text(run.path / "experiment.json", experiment.model_dump_json(indent=2) + "\n")
        replace_text(run.path / "profile.json", profile.model_dump_json(indent=2) + "\n")
        facts = RunFacts(
            **inputs.model_dump(exclude_unset=True),
            run=run.id,
            experiment=experiment.name,
            profile=profile.name,
            created=now.isoformat(timespec="milliseconds"),
        )
        facts.write(run.path)
        return run

    def all(self) -> list[Run]:
        """Return all runs, oldest first."""
        return [Run(path.parent) for path in sorted(self.path.glob("*/run.json"))]

    def of(self, project: str) -> list[Run]:
        """Return those on containers of that compose project, oldest first.

        A damaged run is left out, for nobody can tell, and warned of.
        """
        runs = []
        for run in self.all():
            with _warned(run):
                if run.facts().project == project:
                    runs.append(run)
        return runs

    def end(self, project: str) -> None:
        """Write the summaries that are missing: nothing runs on that project's containers.

        A damaged run stays without one, and is warned of.
        """
        for run in self.of(project):
            if run.is_executing():
                with _warned(run):
                    executing.fail(run.path, "the federation was taken down, or brought up anew")
            elif not run.has_ended():
                with _warned(run):
                    write_summary(run.path)

    def find(self, name: str | None) -> Run:
        """Return the run of that id, or the newest.

        Raises:
            RunError: there is none.
        """
        runs = {run.id: run for run in self.all()}
        if name in runs:
            return runs[name]
        if name is None and runs:
            return list(runs.values())[-1]
        if name is None:
            raise RunError(f"no runs in {self.path}", "start one with `make up` or `make run`")
        close = difflib.get_close_matches(name, runs, n=3, cutoff=0.3) or list(runs)[-3:]
        hint = f"did you mean {' or '.join(close)}?" if close else "there are no runs yet"
        raise RunError(f"no run {name!r} in {self.path}", hint)


@contextmanager
def _warned(run: Run) -> Iterator[None]:
    """Warn of what is damaged in one run: it is no matter of the others."""
    try:
        yield
    except DamagedFileError as error:
        warn_once(f"run {run.id} is left out: {error.message}")
    except OSError as error:
        warn_once(f"run {run.id} is left out: {error}")


def _keep_models(run: Run) -> None:
    """Copy the user's own modules into the run: they are part of what was run."""
    (run.path / "models").mkdir()
    for path in user_models.FOLDER.glob("*.py"):
        shutil.copyfile(path, run.path / "models" / path.name)


def _new_folder(parent: Path, name: str) -> Path:
    # Two runs may start in one second.
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RunError(f"{parent}: no free folder name for {name}")


def _initial_weights(experiment: Experiment) -> Path | None:
    if experiment.initial_weights is None:
        return None
    path = Path(experiment.initial_weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"experiment {experiment.name}: initial_weights: no such file: {path}",
            "give a .safetensors file, such as runs/<id>/model.safetensors",
        )
    return path
