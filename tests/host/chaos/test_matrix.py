"""A matrix of scenarios on containers in memory: what is run, broken, mended and recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_containers import FakeContainers
from safetensors.numpy import save_file

from fedbench.config import Experiment, load_device, load_experiment, load_profile
from fedbench.engines.containers import teardown
from fedbench.engines.containers.runtime.containers import CommandAnswer
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError, RunError, RunInterrupted
from fedbench.host.chaos import matrix, results, victim
from fedbench.host.chaos.matrix import Matrix
from fedbench.host.chaos.misbehaviour import FAULTY
from fedbench.host.chaos.results import ChaosResults
from fedbench.host.chaos.scenario import Scenario
from fedbench.host.chaos.verdict import ChaosRow
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup.places import PROJECT, Places
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

HOST = HostFacts(cpus=64, memory=64 * 2**30)
IMAGES = {"fedbench": "f", "prometheus": "p", "grafana": None}
CLIENTS = ("pc-1", "pc-2", "pc-3")


def tell(run: Run, event: str, **facts: Any) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with (run.path / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": now, "event": event} | facts) + "\n")


def record(run: Run, number: int, **errors: str) -> None:
    clients = [{"client": name, "error": errors.get(name.replace("-", "_"))} for name in CLIENTS]
    with (run.path / "rounds.jsonl").open("a") as file:
        file.write(json.dumps({"round": number, "clients": clients}) + "\n")


@dataclass
class ScriptedEngine:
    """Runs of two rounds; `amid` says what becomes of the second, once the fault is made."""

    store: RunStore
    broken: Callable[[], bool]
    amid: Callable[[Run], None] = lambda run: record(run, 2)
    asked: list[Experiment] = field(default_factory=list)
    resumed: int = 0
    stopped: list[str] = field(default_factory=list)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        self.asked.append(experiment)
        return self.store.create(experiment, load_profile("chaos"), RunInputs())

    def start(self, run: Run) -> None:
        if self.resumed:
            return
        record(run, 1)
        for number in (1, 2):
            tell(run, "round", round=number, rounds=2, clients=list(CLIENTS))
        for name in ("model", "checkpoint"):
            save_file({"weights": np.ones(3, np.float32)}, run.path / f"{name}.safetensors")

    def follow(self, run: Run, look: Callable[[], None]) -> None:
        end = time.monotonic() + 20
        while not self.broken() and not self.resumed:
            assert time.monotonic() < end, "nothing was broken"
            time.sleep(0.01)
        look()
        self.amid(run)

    def resume(self, name: str) -> Run:
        self.resumed += 1
        self.amid = lambda run: record(run, 2)
        return self.store.find(name)

    def stop(self, run: Run) -> None:
        self.stopped.append(run.id)


@dataclass
class Arena:
    """All that a matrix needs, in memory; Docker's commands are told to `commands`."""

    places: Places
    containers: FakeContainers
    stack: Stack
    engine: ScriptedEngine
    commands: list[list[str]]
    said: list[str] = field(default_factory=list)
    shown: list[ChaosRow] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.places.runs / results.FILE

    def matrix(self) -> Matrix:
        experiment = load_experiment("chaos", ["rounds=2", "task=train"])
        recorded = ChaosResults(self.file, anew=True)
        engine: Any = self.engine
        return Matrix(
            engine, self.stack, self.containers, experiment, recorded, self.said.append,
            self.shown.append,
        )  # fmt: skip

    def run(self, **values: Any) -> ChaosRow:
        (row,) = self.matrix().run([scenario(**values)])
        return row


def scenario(**values: Any) -> Scenario:
    usual = {
        "name": "client-kill", "description": "a client is killed", "fault": "kill",
        "who": "client", "when": {"round": 2, "after": "10ms"},
    }  # fmt: skip
    return Scenario.model_validate(usual | values)


@pytest.fixture
def arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    places, containers, commands = Places(tmp_path), FakeContainers(local=True), list[list[str]]()
    for service in ("server", "prometheus", *CLIENTS, FAULTY):
        containers.add(service, cpu_period=100_000, cpu_quota=100_000)

    def command(argv: Any, _environment: object = None) -> str:
        _, verb, *_, name = argv
        service = name.removeprefix(f"{PROJECT}-").removesuffix("-1") if verb != "start" else ""
        if verb == "kill":
            containers.change(service, status="exited", pid=0)
        if verb == "start":
            started = name.removeprefix(f"{PROJECT}-").rpartition("-")[0]
            containers.change(started, status="running", pid=99, started_at="again")
        commands.append(list(argv))
        return ""

    monkeypatch.setattr(victim, "run_command", command)
    monkeypatch.setattr(matrix, "run_command", command)
    devices = {"legacy-pc": load_device("legacy-pc")}
    stack = Stack.write(places, plan(load_profile("chaos"), devices, HOST), devices, IMAGES)
    engine = ScriptedEngine(RunStore(places.runs), lambda: bool(commands))
    return Arena(places, containers, stack, engine, commands)


EXPECTED = {"missing": "crashed", "within": "5s"}


def dies(run: Run) -> None:
    tell(run, "failed", round=2, client="pc-1", reason="it died")
    record(run, 2, pc_1="train: crashed: it died")


def test_a_client_is_killed_missed_and_started_again(arena: Arena) -> None:
    arena.engine.amid = dies

    row = arena.run(expected=EXPECTED)

    assert (row.ok, row.problems) == (True, [])
    assert row.detected_seconds is not None
    assert 0 <= row.detected_seconds < 5
    container = f"{PROJECT}-pc-1-1"
    assert arena.commands == [["docker", "kill", container], ["docker", "start", container]]
    assert arena.containers.get("pc-1").is_running
    (asked,) = arena.engine.asked
    assert asked.clients == CLIENTS
    assert arena.said == ["[1/1] client-kill: a client is killed"]
    assert arena.shown == [row] == results.read(arena.file)


def test_a_client_that_starts_again_gets_its_quota_when_it_is_ready(arena: Arena) -> None:
    arena.engine.amid = dies
    (planned,) = (each.quota for each in arena.stack.clients if each.name == "pc-1")

    arena.run(expected=EXPECTED)

    assert arena.containers.quotas["pc-1"] == [-1, planned]


def test_what_nobody_noticed_is_not_as_expected(arena: Arena) -> None:
    row = arena.run(expected=EXPECTED)

    assert row.ok is False
    assert row.problems == ["pc-1 missed no round", "nobody said what had happened"]


def test_a_run_that_failed_is_told_with_its_error(arena: Arena) -> None:
    def fails(run: Run) -> None:
        raise RunError("run x failed: the server died")

    arena.engine.amid = fails

    row = arena.run(expected={})

    assert row.problems[0] == "the run failed: run x failed: the server died"
    assert row.seen.startswith("failed: run x failed: the server died")


def test_a_run_that_is_expected_to_resume_is_resumed(arena: Arena) -> None:
    def fails(run: Run) -> None:
        raise RunError("the disk is full")

    arena.engine.amid = fails

    row = arena.run(expected={"end": "failed", "says": "full", "resumes": True})

    assert row.ok, row.problems
    assert arena.engine.resumed == 1


def test_a_run_that_hangs_is_stopped_and_its_server_started_again(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "RUN_SECONDS", 0.0)

    row = arena.run(expected={})

    assert row.problems[0] == "the run was not over after 0 s"
    assert len(arena.engine.stopped) == 1
    assert arena.commands[1] == ["docker", "restart", "--time", "5", f"{PROJECT}-server-1"]


def test_a_run_that_ends_before_the_moment_is_not_as_expected(arena: Arena) -> None:
    arena.engine.broken = lambda: True

    row = arena.run(when={"round": 2, "phase": "between"}, expected={})

    assert row.problems == [
        "the fault was not made: the run was over before the between of round 2"
    ]
    assert arena.commands == []


def test_a_fault_that_docker_refuses_is_told(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> str:
        arena.commands.append([])
        raise DockerError("`docker kill` failed")

    monkeypatch.setattr(victim, "run_command", refused)

    assert arena.run(expected={}).problems == ["the fault was not made: `docker kill` failed"]


def test_a_run_that_cannot_be_started_is_told_and_the_next_one_is_tried(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = arena.engine.create

    def busy(*_: object) -> Run:
        monkeypatch.setattr(arena.engine, "create", create)
        raise RunError("run x is in progress")

    monkeypatch.setattr(arena.engine, "create", busy)
    arena.engine.broken = lambda: len(arena.commands) > 1
    first, second = arena.matrix().run([scenario(), scenario(name="client-kill-2")])

    assert first.problems == ["the run could not be started: run x is in progress"]
    assert arena.commands[0] == ["docker", "restart", "--time", "5", f"{PROJECT}-server-1"]
    assert (second.scenario, second.ok) == ("client-kill-2", True)


def test_what_comes_before_a_run_is_done_before_it_starts(arena: Arena) -> None:
    begun: list[int] = []
    start = arena.engine.start

    def starting(run: Run) -> None:
        begun.append(len(arena.commands))
        start(run)

    arena.engine.start = starting  # type: ignore[method-assign]
    row = arena.run(who="prometheus", when={"round": 0})

    assert row.ok, row.problems
    assert begun == [1]


def test_the_users_wish_ends_it_and_mends_what_was_broken(arena: Arena) -> None:
    def interrupted(run: Run) -> None:
        raise RunInterrupted("stopped")

    arena.engine.amid = interrupted

    with pytest.raises(RunInterrupted):
        arena.run(fault="pause", lasts=600)
    assert [command[1] for command in arena.commands] == ["pause", "unpause"]


def test_prometheus_is_known_to_be_down_by_its_container(arena: Arena) -> None:
    down = arena.containers

    def goes_on(run: Run) -> None:
        time.sleep(0.6)  # somebody looks four times a second
        record(run, 2)

    arena.engine.amid = goes_on
    row = arena.run(who="prometheus", expected={"within": "10s"})

    assert row.ok, row.problems
    assert "status: exited" in row.seen
    assert down.get("prometheus").is_running


def test_what_cannot_be_done_is_skipped_and_costs_no_run(arena: Arena) -> None:
    row = arena.run(fault="clock", who="server")

    assert row.ok is None
    assert row.seen.startswith("skipped: a container has its host's clock")
    assert arena.engine.asked == []


@pytest.mark.parametrize("leaves", [False, True])
def test_after_down_nothing_may_be_left(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    def down(places: Places, say: object, *, volumes: bool) -> None:
        assert (places, volumes) == (arena.places, False)
        arena.containers.drop(*(() if not leaves else ("server", *CLIENTS)))
        arena.commands.append(["down"])

    def networks(argv: list[str]) -> str:
        assert argv[-1] == f"label=com.docker.compose.project={PROJECT}"
        return "f8c9eb10fef6\n" if leaves else ""

    monkeypatch.setattr(teardown, "down", down)
    monkeypatch.setattr(matrix, "run_command", networks)

    row = arena.run(fault="down", who="federation", expected={"end": "finished"})

    left = [f"{PROJECT}-prometheus-1", f"{PROJECT}-faulty-1", "f8c9eb10fef6"] if leaves else []
    assert row.problems == [f"{name} is left behind" for name in left]
    assert row.data_lost is leaves


def test_a_client_that_was_frozen_is_asked_itself(arena: Arena) -> None:
    """Docker looks again half a minute later."""
    arena.containers.change("pc-2", health="unhealthy")

    assert arena.run(expected={}).ok
    assert ("execute", "pc-2") in arena.containers.calls


def test_the_federation_that_does_not_come_back_ends_it(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "_REPAIR_SECONDS", 0.0)
    arena.containers.change("pc-2", health="starting")
    arena.containers.answers["/tmp/ready"] = CommandAnswer(1, "")

    with pytest.raises(DockerError, match="pc-2: not back after 0 s"):
        arena.run(expected={})
