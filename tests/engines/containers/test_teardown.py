from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound
from vanishing import vanishing_docker

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.containers.teardown import down
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
LAST = '{"time": "2026-01-02T03:04:40", "level": "info", "message": "bye", "service": "server"}'


class FakeContainer:
    """A container that has said one thing; each of its ends is noted in `events`."""

    def __init__(self, label: str, value: str, events: list[str]) -> None:
        self.name = f"{PROJECT}-joined-visitor"
        self.labels = {label: value, "com.docker.compose.service": "server"}
        self.events = events

    def logs(self, **_: object) -> bytes:
        self.events.append("read")
        return f"2026-01-02T03:04:40.000000000Z {LAST}\n".encode()

    def remove(self, *, force: bool) -> None:
        assert force
        self.events.append("removed")


class FakeDocker:
    """Docker with a server, one joined container, and whatever else runs."""

    def __init__(self, *others: str) -> None:
        self.containers = self
        self.others = others
        self.events: list[str] = []

    def list(self, **options: Any) -> list[Any]:
        assert options["ignore_removed"]
        if "filters" not in options:
            return list(self.others)
        assert options["all"]
        label, _, value = options["filters"]["label"].partition("=")
        assert value == PROJECT
        return [FakeContainer(label, value, self.events)]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "checkout")
    profile = load_profile("legacy-pair")
    planned = plan(profile, load_devices(profile), HostFacts(cpus=2, memory=8 * 2**30))
    images = {"fedbench": "fedbench:cpu", "prometheus": "p", "grafana": None}
    Stack.write(places, planned, load_devices(profile), images)
    return places


def stopper(stopped: list[str]) -> Callable[[object], bool]:
    def stop(_: object) -> bool:
        stopped.append("the daemon")
        return True

    return stop


@pytest.mark.parametrize(("others", "stops"), [((), 1), (("postgres",), 0)])
def test_a_daemon_stops_only_when_nothing_else_runs(
    others: tuple[str, ...],
    stops: int,
    places: Places,
    docker_command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = FakeDocker(*others)
    stopped: list[str] = []
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: daemon)
    monkeypatch.setattr(bootstrap, "stop_daemon", stopper(stopped))
    said: list[str] = []
    down(places, said.append, volumes=False)
    assert daemon.events == ["removed"]
    assert [call.split(" --timeout")[0].split("yaml ")[1] for call in docker_command.calls] == [
        "stop", "down --remove-orphans",
    ]  # fmt: skip
    assert len(stopped) == stops
    assert said[-1] == "the federation is down; runs are kept in runs/"
    assert Stack.load(places) is None


def test_what_was_logged_to_the_end_stays_with_its_run(
    places: Places, docker_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended a moment ago: nobody has kept its lines yet."""
    run = Path(shutil.copytree(GOLDEN, places.runs / GOLDEN.name))
    facts = json.loads((run / "run.json").read_text()) | {"project": PROJECT}
    (run / "run.json").write_text(json.dumps(facts))
    daemon = FakeDocker("another")
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: daemon)
    monkeypatch.setattr(Compose, "stop", lambda _: daemon.events.append("stopped"))
    monkeypatch.setattr(Stack, "down", lambda _, volumes: daemon.events.append("down"))
    down(places, print, volumes=False)
    assert daemon.events == ["stopped", "read", "removed", "down"]
    assert (run / "logs.jsonl").read_text() == f"{LAST}\n"


def test_containers_that_another_removes_meanwhile_are_down(
    places: Places, docker_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: vanishing_docker())
    monkeypatch.setattr(bootstrap, "stop_daemon", stopper(stopped))
    down(places, print, volumes=False)
    assert Stack.load(places) is None
    assert stopped == ["the daemon"]


def test_a_joined_container_that_is_gone_needs_no_removal(
    places: Places, docker_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, force: bool) -> None:
        raise NotFound("no such container")

    monkeypatch.setattr(FakeContainer, "remove", gone)
    monkeypatch.setattr(bootstrap, "ensure_docker", lambda say: FakeDocker("another"))
    down(places, print, volumes=False)
    assert Stack.load(places) is None


def test_what_is_not_up_is_not_taken_down(places: Places) -> None:
    (places.state / "stack.json").unlink()
    with pytest.raises(FedbenchError, match="no federation is up"):
        down(places, print, volumes=False)
