"""Whom a fault meets, and what every fault can do.

All of it is done from outside, as an operator, a kernel or a cable would, behind the back of
whoever watches the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from fedbench.engines.containers.runtime.compose import run as run_command
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError
from fedbench.host.chaos.scenario import Scenario
from fedbench.records.runs import Run

_KILLED = 137  # a process that ended by kill -9, as shells say it


@dataclass(frozen=True)
class Victim:
    """A service of a federation that is up, and what can be asked of it."""

    stack: Stack
    containers: Containers
    service: str

    @property
    def carries_runs(self) -> bool:
        """True of the server and of clients; the rest is for looking."""
        return self.service in {"server", *(plan.name for plan in self.stack.clients)}

    def container(self) -> Container:
        """Look at its container.

        Raises:
            DockerError: there is none.
        """
        services = self.stack.services(self.containers)
        if self.service not in services:
            raise DockerError(f"{self.service} has no container", "`make up` starts it")
        return services[self.service]

    def docker(self, *command: str) -> None:
        """Run a docker command whose last argument is the container."""
        run_command(["docker", *command, self.container().name])

    def shell(self, script: str) -> str:
        """Run a script in its container, which may kill it; return what it printed.

        Raises:
            DockerError: it failed.
        """
        answer = self.containers.execute(self.container(), ["sh", "-c", script])
        if answer.code not in (0, _KILLED):
            raise DockerError(f"{self.service}: `{script}` failed: {answer.output.strip()}")
        return answer.output


class Fault:
    """One thing that goes wrong; `begin` and `end` may take a second or two."""

    disturbs: ClassVar = False
    """True where `prepare` breaks what has to be mended before the run starts."""

    def __init__(self, scenario: Scenario, victim: Victim) -> None:
        self.scenario = scenario
        self.victim = victim
        self._before = ""

    def impossible(self) -> str | None:
        """Say why it cannot be done here; None where it can."""
        return None

    def prepare(self, run: Run) -> None:
        """Make ready for a run that is about to start."""

    def look(self) -> None:
        """Take note of what is there before."""
        if not self.victim.carries_runs:
            self._before = self.victim.container().started_at

    def begin(self) -> None:
        """Do it."""
        raise NotImplementedError

    def began(self) -> datetime | None:
        """Return when it happened in fact, where that was later than `begin`."""
        return None

    def noticed(self) -> str | None:
        """Say what can be seen of it beside the run's events: that `status` shows it down, or up.

        The victim's own state says nothing where the run has to know of it.
        """
        if self.victim.carries_runs:
            return None
        now = self.victim.container()
        if now.started_at != self._before:
            return "it is started again"
        return None if now.is_running else f"status: {now.status}"

    def end(self) -> None:
        """Undo it, as far as it is not undone yet."""

    def clear(self) -> None:
        """Leave nothing of it behind, after the run."""
