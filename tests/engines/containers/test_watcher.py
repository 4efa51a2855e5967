from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen

import pytest
from clock import Clock
from fake_containers import FakeContainers
from golden_run import unfinished_run

from fedbench.engines.containers import watcher
from fedbench.engines.containers.watcher import AWAY_SECONDS, Guard, Watcher
from fedbench.errors import RunError
from fedbench.host.setup.places import PROJECT
from fedbench.host.watch.vigil import is_watched, watching
from fedbench.records import executing
from fedbench.records.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that a server executes."""
    unfinished = unfinished_run(tmp_path / "runs")
    executing.begin(unfinished.path, PROJECT)
    return unfinished


@pytest.fixture
def up(fake: FakeContainers) -> FakeContainers:
    for service in ("server", "prometheus", "laptop"):
        fake.add(service)
    return fake


def look(watching: Watcher, containers: FakeContainers) -> None:
    services = {each.service: each for each in containers.of_project(PROJECT)}
    watching.look(containers, services)


def revived(run: Run) -> list[str]:
    return [event["service"] for event in run.events() if event["event"] == "revived"]


@pytest.mark.parametrize("service", ["server", "prometheus"])
def test_what_docker_leaves_dead_is_started_again(
    up: FakeContainers, run: Run, service: str
) -> None:
    watcher = Watcher(run)
    look(watcher, up)
    assert up.calls == []

    up.change(service, status="exited", exit_code=137)
    look(watcher, up)

    assert up.get(service).is_running
    event = run.events()[-1]
    assert (event["event"], event["service"]) == ("revived", service)
    assert event["reason"] == f"container {PROJECT}-{service}-1 had ended: exit code 137"


def test_a_client_that_was_stopped_stays_so(up: FakeContainers, run: Run) -> None:
    up.change("laptop", status="exited", exit_code=137)
    look(Watcher(run), up)
    assert up.calls == []


def test_whoever_takes_the_federation_down_is_left_alone(
    up: FakeContainers,
    run: Run,
    held: Callable[[Path, str], AbstractContextManager[Popen[str]]],
    own_host: Path,
) -> None:
    up.change("server", status="exited")
    watcher = Watcher(run)
    with held(own_host / f"federation-{PROJECT}.lock", "named"):
        look(watcher, up)
    assert up.calls == []
    look(watcher, up)
    assert revived(run) == ["server"]


def test_a_run_that_has_ended_needs_no_server(up: FakeContainers, run: Run) -> None:
    executing.fail(run.path, "x")
    up.change("server", status="exited")
    look(Watcher(run), up)
    assert up.calls == []


def test_a_server_that_does_not_stay_up_ends_the_run(up: FakeContainers, run: Run) -> None:
    watcher = Watcher(run)
    for _ in range(4):
        assert run.is_executing()
        up.change("server", status="exited", exit_code=3)
        look(watcher, up)

    assert revived(run) == ["server"] * 3
    assert not run.is_executing()
    assert run.summary().status == "failed"
    assert run.summary().error == (
        f"the server does not stay up (container {PROJECT}-server-1 had ended: exit code 3); "
        "RESUME goes on"
    )


def test_monitoring_that_does_not_stay_up_ends_nothing(up: FakeContainers, run: Run) -> None:
    watcher = Watcher(run)
    for _ in range(5):
        up.change("prometheus", status="exited")
        look(watcher, up)
    assert revived(run) == ["prometheus"] * 3
    assert run.is_executing()


@pytest.mark.parametrize("away", ["restarting", "gone", "without Docker"])
def test_a_run_does_not_wait_for_its_server_for_ever(
    up: FakeContainers, run: Run, away: str
) -> None:
    clock = Clock()
    watcher = Watcher(run, clock)

    def miss() -> None:
        if away == "without Docker":
            watcher.miss("Docker does not answer")
        else:
            look(watcher, up)

    clock.now = 100.0
    look(watcher, up)
    if away == "restarting":
        up.change("server", status="restarting")
    elif away == "gone":
        up.drop("server")
    miss()
    clock.now += AWAY_SECONDS
    miss()
    assert run.is_executing()
    clock.now += 1
    miss()
    assert run.summary().status == "failed"
    assert "RESUME goes on" in str(run.summary().error)


def test_who_watches_is_known_while_it_does(run: Run) -> None:
    assert not is_watched(run)
    with watching(run):
        assert is_watched(run)
        with pytest.raises(BlockingIOError), watching(run):
            pass
    assert not is_watched(run)


def test_a_governor_that_died_is_started_again_and_again_but_not_for_ever(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    monkeypatch.setattr(watcher, "govern", lambda _, launch: started.append(launch))
    clock = Clock()
    guard = Guard(run, 7, clock)
    assert started == [7]
    with watching(run):
        for _ in range(100):
            clock.now += 1
            guard.ensure()
    assert started == [7]
    for _ in range(50):
        clock.now += 1
        if len(started) < watcher.MOST_GOVERNORS:
            guard.ensure()
    assert len(started) == watcher.MOST_GOVERNORS
    clock.now += 60
    with pytest.raises(RunError, match=f"nobody can watch over run {run.id}"):
        guard.ensure()
