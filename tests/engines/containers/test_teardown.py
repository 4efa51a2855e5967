from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import cuts
from fake_containers import FakeContainers

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers import teardown
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.containers import FILES_LABEL
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.containers.teardown import down
from fedbench.errors import FedbenchError
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
LAST = '{"time": "2026-01-02T03:04:40", "level": "info", "message": "bye", "service": "server"}'


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


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The daemons that were stopped."""
    daemons: list[str] = []
    monkeypatch.setattr(bootstrap, "stop_daemon", stopper(daemons))
    return daemons


@pytest.mark.parametrize(("others", "stops"), [((), 1), (("postgres",), 0)])
def test_a_daemon_stops_only_when_nothing_else_runs(
    others: tuple[str, ...],
    stops: int,
    places: Places,
    docker_command: Any,
    fake: FakeContainers,
    stopped: list[str],
) -> None:
    fake.add("server", status="exited")
    fake.add_joined("visitor")
    for other in others:
        fake.add(other, project="another")
    said: list[str] = []
    down(places, said.append, volumes=False)
    assert fake.calls == [("remove", "visitor")]
    assert [call.split(" --timeout")[0].split("yaml ")[1] for call in docker_command.calls] == [
        "stop", "down --remove-orphans",
    ]  # fmt: skip
    assert len(stopped) == stops
    assert said[-1] == "the federation is down; runs are kept in runs/"
    assert Stack.load(places) is None


def test_what_was_logged_to_the_end_stays_with_its_run(
    places: Places, fake: FakeContainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended a moment ago: nobody has kept its lines yet."""
    run = Path(shutil.copytree(GOLDEN, places.runs / GOLDEN.name))
    facts = json.loads((run / "run.json").read_text()) | {"project": PROJECT}
    (run / "run.json").write_text(json.dumps(facts))
    fake.add("server")
    fake.say("server", (35, LAST))
    fake.add_joined("visitor")
    fake.add("postgres", project="another")
    monkeypatch.setattr(Compose, "stop", lambda _: fake.calls.append(("stop", "")))
    monkeypatch.setattr(teardown, "take_down", lambda *_, volumes: fake.calls.append(("down", "")))
    down(places, print, volumes=False)
    assert fake.calls == [
        ("stop", ""), ("logs", "server"), ("logs", "visitor"), ("remove", "visitor"), ("down", ""),
    ]  # fmt: skip
    assert (run / "logs.jsonl").read_text() == f"{LAST}\n"


def test_a_joined_container_that_another_removes_meanwhile_is_down(
    places: Places,
    docker_command: Any,
    fake: FakeContainers,
    stopped: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visitor = fake.add_joined("visitor")
    monkeypatch.setattr(fake, "joined", lambda _: [visitor])
    fake.drop("visitor")
    down(places, print, volumes=False)
    assert Stack.load(places) is None
    assert stopped == ["the daemon"]


def test_what_is_not_up_is_not_taken_down(places: Places, fake: FakeContainers) -> None:
    (places.state / "stack.json").unlink()
    with pytest.raises(FedbenchError, match="no federation is up"):
        down(places, print, volumes=False)


BY_LABEL = f"compose --project-name {PROJECT}"


def commands(docker_command: Any) -> list[str]:
    return [call.partition(": ")[2] for call in docker_command.calls]


@pytest.mark.parametrize(("volumes", "ending"), [(False, ""), (True, " --volumes")])
@pytest.mark.parametrize("content", [b"", b'{"profile": ', b"\0" * 512])
def test_a_damaged_stack_is_taken_down_by_its_labels(
    content: bytes,
    volumes: bool,
    ending: str,
    places: Places,
    docker_command: Any,
    fake: FakeContainers,
    stopped: list[str],
) -> None:
    (places.state / "stack.json").write_bytes(content)
    fake.add_joined("visitor")
    said: list[str] = []
    down(places, said.append, volumes=volumes)
    assert said[0].startswith(f"note: {places.state / 'stack.json'} is damaged: ")
    assert commands(docker_command) == [
        f"{BY_LABEL} stop --timeout 5",
        f"{BY_LABEL} down --remove-orphans --timeout 5{ending}",
    ]
    assert fake.calls == [("remove", "visitor")]
    assert Stack.load(places) is None
    assert stopped == ["the daemon"]


def test_a_compose_file_that_is_damaged_is_not_needed(
    places: Places, docker_command: Any, fake: FakeContainers, stopped: list[str]
) -> None:
    (docker_command.folder / "docker").write_text(
        f'#!/bin/sh\ncd {docker_command.folder}\necho ": $*" >>calls\n'
        'case "$*" in *--file*) echo "yaml: line 3" >&2; exit 15;; esac\n'
    )
    down(places, print, volumes=False)
    assert commands(docker_command)[1:] == [
        f"{BY_LABEL} stop --timeout 5", f"{BY_LABEL} down --remove-orphans --timeout 5",
    ]  # fmt: skip
    assert Stack.load(places) is None


@pytest.mark.parametrize("name", ["events.jsonl", "rounds.jsonl", "run.json"])
def test_a_damaged_run_keeps_nothing_up(
    name: str,
    places: Places,
    docker_command: Any,
    fake: FakeContainers,
    stopped: list[str],
) -> None:
    run = Path(shutil.copytree(GOLDEN, places.runs / GOLDEN.name))
    facts = json.loads((run / "run.json").read_text()) | {"project": PROJECT}
    (run / "run.json").write_text(json.dumps(facts))
    stack = (places.state / "stack.json").read_bytes()
    fake.add("server")
    for number, _ in enumerate(cuts(run / name)):
        if number % 40 == 0:
            down(places, print, volumes=False)
            assert Stack.load(places) is None
            (places.state / "stack.json").write_bytes(stack)
            (run / "summary.json").unlink(missing_ok=True)


def test_what_this_checkout_left_behind_is_taken_down_without_its_file(
    places: Places, docker_command: Any, fake: FakeContainers, stopped: list[str]
) -> None:
    (places.state / "stack.json").unlink()
    labels = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": "server"}
    fake.add("server", labels=labels | {FILES_LABEL: "/another/checkout/compose.yaml"})
    with pytest.raises(FedbenchError, match="no federation is up"):
        down(places, print, volumes=False)
    fake.change("server", labels=labels | {FILES_LABEL: str(places.state / "compose.yaml")})
    down(places, print, volumes=False)
    assert commands(docker_command)[-1] == f"{BY_LABEL} down --remove-orphans --timeout 5"
