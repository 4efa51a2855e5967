"""Goes through scenarios on one federation: a run for each, and all is repaired after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from fedbench.client.settings import Settings
from fedbench.config import Experiment
from fedbench.engines.containers import startup
from fedbench.engines.containers.engine import ContainersEngine
from fedbench.engines.containers.runtime import links
from fedbench.engines.containers.runtime.compose import run as run_command
from fedbench.engines.containers.runtime.containers import (
    PROJECT_LABEL,
    Container,
    Containers,
)
from fedbench.engines.containers.runtime.quotas import Quotas
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError, RunError, RunInterrupted
from fedbench.host.chaos import signs
from fedbench.host.chaos.catalogue import FAULTS
from fedbench.host.chaos.misbehaviour import FAULTY
from fedbench.host.chaos.results import ChaosResults
from fedbench.host.chaos.saboteur import Saboteur
from fedbench.host.chaos.scenario import Scenario, Who, experiment_of
from fedbench.host.chaos.verdict import ChaosRow, Seen, judged, skipped
from fedbench.host.chaos.victim import Fault, Victim
from fedbench.host.say import Say
from fedbench.records.events import read_events
from fedbench.records.runs import Run

RUN_SECONDS = 120.0
"""A run that is not over by then is stopped."""
_READY = ("test", "-e", str(Settings.ready))
_REPAIR_SECONDS = 180.0
_POLL_SECONDS = 0.2


class _Overdue(Exception):  # noqa: N818 (a state)
    """The run is not over in time."""


class Matrix:
    """Tries scenarios, one after the other; `show` is told of each row as it is there."""

    def __init__(
        self,
        engine: ContainersEngine,
        stack: Stack,
        containers: Containers,
        experiment: Experiment,
        results: ChaosResults,
        say: Say,
        show: Callable[[ChaosRow], None],
    ) -> None:
        self._engine = engine
        self._stack = stack
        self._containers = containers
        self._experiment = experiment
        self._results = results
        self._say = say
        self._show = show

    def run(self, scenarios: Sequence[Scenario]) -> list[ChaosRow]:
        """Try all scenarios, and return their rows.

        Raises:
            RunInterrupted: the user pressed Ctrl-C; what was broken is mended.
            DockerError: the federation cannot be repaired after one of them.
        """
        rows = []
        for number, scenario in enumerate(scenarios, 1):
            self._say(f"[{number}/{len(scenarios)}] {scenario.name}: {scenario.description}")
            row = self._try(scenario)
            self._results.add(row)
            self._show(row)
            rows.append(row)
        return rows

    def _try(self, scenario: Scenario) -> ChaosRow:
        victim = Victim(self._stack, self._containers, self._service(scenario.who))
        fault = FAULTS[scenario.fault](scenario, victim)
        if reason := fault.impossible():
            return skipped(scenario, reason)
        before = startup.starts(self._stack, self._containers)
        try:
            seen = self._seen(scenario, fault, before)
        except RunError as error:
            seen = Seen(victim=victim.service, end="could not be started", error=error.message)
            self._restart_server()
        finally:
            fault.clear()
        if scenario.fault == "down":
            seen = seen.model_copy(update={"lost": [*seen.lost, *self._left()]})
        else:
            self.repair(before)
        return judged(scenario, seen)

    def _left(self) -> list[str]:
        """Say what `down` left behind."""
        project = self._stack.compose.name
        containers = [each.name for each in self._containers.of_project(project)]
        label = f"label={PROJECT_LABEL}={project}"
        networks = run_command(["docker", "network", "ls", "--quiet", "--filter", label]).split()
        return [f"{name} is left behind" for name in (*containers, *networks)]

    def _service(self, who: Who) -> str:
        if who == "client":
            return self._ordinary()[0]
        return "server" if who == "federation" else who

    def _ordinary(self) -> list[str]:
        return [plan.name for plan in self._stack.clients if plan.name != FAULTY]

    def _seen(self, scenario: Scenario, fault: Fault, before: startup.Starts) -> Seen:
        """Run the scenario's experiment amid its fault, and say what became of it.

        Raises:
            RunError: the run cannot be started.
        """
        clients = self._ordinary()
        if scenario.who == "faulty":
            clients = [*clients[1:], FAULTY]  # as many as else
        chosen = experiment_of(scenario, self._experiment, clients)
        with ExitStack() as over:
            with self._engine.alone():
                run = self._engine.create(chosen, None)
                fault.prepare(run)
                if fault.disturbs:
                    self.repair(before)
                saboteur = over.enter_context(Saboteur(fault, run))
                saboteur.wait_if_before()
                self._engine.start(run)
            end, error = self._follow(run)
        resumed = self._resumed(run) if scenario.expected.resumes and end == "failed" else None
        finished = chosen if "finished" in (end, resumed) else None
        missed = signs.missed(run.path, chosen.clients or clients)
        known = saboteur.known(missed)
        return Seen(
            run=run.id,
            victim=fault.victim.service,
            end=end,
            error=error,
            resumed=resumed,
            missed=missed,
            known=known.words if known else None,
            detected_seconds=(known.at - saboteur.moment()).total_seconds() if known else None,
            rounds_lost=signs.rounds_lost(run.path, read_events(run.path)),
            lost=signs.lost(run.path, saboteur.before, finished),
            unmade=saboteur.problem,
        )

    def _follow(self, run: Run) -> tuple[str, str | None]:
        """Follow a run to its end; return how it ended, and why if it failed."""
        deadline = time.monotonic() + RUN_SECONDS

        def look() -> None:
            if time.monotonic() > deadline:
                raise _Overdue

        try:
            self._engine.follow(run, look)
        except RunInterrupted:
            raise
        except RunError as error:
            return "failed", error.message
        except _Overdue:
            self._engine.stop(run)
            self._restart_server()
            return f"was not over after {RUN_SECONDS:.0f} s", None
        return "finished", None

    def _restart_server(self) -> None:
        """End whatever hangs in it."""
        server = self._stack.services(self._containers)["server"]
        run_command(["docker", "restart", "--time", "5", server.name])

    def _resumed(self, run: Run) -> str:
        with self._engine.alone():
            try:
                self._engine.start(self._engine.resume(run.id))
            except RunError as error:
                return f"failed: {error.message}"
        end, why = self._follow(run)
        return f"{end}: {why}" if why else end

    def repair(self, before: startup.Starts) -> None:
        """Start what is down, and wait until all clients are there, each with its quota.

        `before` are the starts of containers before they were broken: others need not wait for
        their CPU quota to start.

        Raises:
            DockerError: one does not get there.
        """
        for container in self._stack.services(self._containers).values():
            if not container.is_running and container.status != "restarting":
                command = "unpause" if container.status == "paused" else "start"
                run_command(["docker", command, container.name])
        startup.lift_quotas(self._stack, self._containers, before)
        deadline = time.monotonic() + _REPAIR_SECONDS
        while waiting := self._unhealthy():
            if time.monotonic() > deadline:
                raise DockerError(
                    f"{', '.join(waiting)}: not back after {_REPAIR_SECONDS:.0f} s",
                    "`make logs` shows why; `make down` takes the federation down",
                )
            time.sleep(_POLL_SECONDS)
        links.enforce(self._stack, self._containers)

    def _unhealthy(self) -> list[str]:
        """Give clients that are ready their quotas; return what is not ready."""
        services = self._stack.services(self._containers)
        waiting = [name for name, each in services.items() if not self._is_ready(each)]
        names = [plan.name for plan in self._stack.clients]
        Quotas(self._stack, self._containers).enforce([n for n in names if n not in waiting])
        return waiting

    def _is_ready(self, container: Container) -> bool:
        """Tell whether it is healthy; after a pause, Docker asks only half a minute later."""
        client = container.service in {plan.name for plan in self._stack.clients}
        if container.health == "healthy" or not (client and container.is_running):
            return container.health == "healthy"
        return self._containers.execute(container, _READY).code == 0
