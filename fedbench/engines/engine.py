"""What executes a run: one interface, a folder for each engine behind it."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Protocol

from fedbench.config import Experiment
from fedbench.errors import RunError, RunInterrupted
from fedbench.host.say import Say
from fedbench.records import Summary, write_summary
from fedbench.records.runs import Run

EngineName = Literal["containers", "in-process"]
Look = Callable[[], None]
POLL_SECONDS = 0.2
STOP_SECONDS, STOP_POLL_SECONDS = 60.0, 0.05


class Engine(Protocol):
    """Executes experiments for the clients of one federation, one run at a time."""

    def alone(self) -> AbstractContextManager[None]:
        """Keep others from what runs are made on, while one is made and started; wait for them."""

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        """Divide the data and make the run's folder.

        Raises:
            ConfigError, DataError: the experiment or its data cannot be used.
            RunError: another run is in progress.
        """

    def resume(self, name: str | None) -> Run:
        """Make an ended run, or the newest, ready to go on after its last complete round.

        Raises:
            RunError: there is no such run, it is finished, or another federation's.
        """

    def start(self, run: Run) -> None:
        """Start a run that was created or resumed; it goes on by itself."""

    def follow(self, run: Run, look: Look) -> Summary:
        """Call `look` a few times a second until a run that was started here is over.

        Raises:
            RunInterrupted: the user pressed Ctrl-C; the run was stopped and is recorded.
            RunError: it failed.
        """

    def stop(self, run: Run) -> None:
        """Ask the run to end in order, and wait for that, a minute at the most."""


class ProcessEngine(ABC):
    """What engines share whose runs end with a process of this computer."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def alone(self) -> AbstractContextManager[None]:
        """Nobody has to be kept from anything: each run is on its own."""
        return nullcontext()

    @abstractmethod
    def launch(self, run: Run) -> subprocess.Popen[bytes]:
        """Start the process that ends when the run does."""

    @abstractmethod
    def how_to_go_on(self, run: Run) -> str:
        """Say what continues a run that was interrupted."""

    @abstractmethod
    def where_to_look(self, run: Run) -> str:
        """Say what shows why a run failed."""

    def start(self, run: Run) -> None:
        """Start a run that was created or resumed; it goes on by itself."""
        self._processes[run.id] = self.launch(run)

    def follow(self, run: Run, look: Look) -> Summary:
        """Call `look` a few times a second until a run that was started here is over.

        Raises:
            RunInterrupted: the user pressed Ctrl-C; the run was stopped and is recorded.
            RunError: it failed.
        """
        try:
            while self.goes_on(run):
                look()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._say("stopping the run (Ctrl-C again leaves at once)")
            self.stop(run)
        look()
        summary = write_summary(run.path)
        if summary.status == "interrupted":
            done = f"run {run.id} stopped after {len(summary.rounds)} rounds"
            kept = f"{done}; what was recorded is in {run.path}"
            raise RunInterrupted(kept, self.how_to_go_on(run))
        if summary.status != "finished":
            raise RunError(f"run {run.id} failed: {summary.error}", self.where_to_look(run))
        return summary

    def goes_on(self, run: Run) -> bool:
        """Return whether a run that was started here is not over yet."""
        return self._processes[run.id].poll() is None

    def stop(self, run: Run) -> None:
        """Ask the run to end in order, and wait for that, a minute at the most."""
        run.request_stop()
        deadline = time.monotonic() + STOP_SECONDS
        while self.goes_on(run) and time.monotonic() < deadline:
            time.sleep(STOP_POLL_SECONDS)


def spawn(
    argv: list[str], log: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a run's process in a session of its own, which Ctrl-C in the terminal does not reach.

    `log` keeps what it prints.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
