"""The commands of a federation: what they print, and the exit code."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from commands import Fedbench
from fake_containers import FakeContainers

from fedbench.engines.containers import bring_up
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.plan.plan import HostFacts
from fedbench.host.setup.places import Places

HOST = HostFacts(cpus=2, memory=8 * 2**30)


def test_a_run_that_goes_on_keeps_its_experiment(fedbench: Fedbench, stack: Stack) -> None:
    code, out, err = fedbench("run", "--resume", "some-run", "--set", "rounds=9")
    assert (code, out) == (2, "")
    assert "a run that goes on keeps its experiment and its data" in err


def test_a_run_cannot_change_the_federation_that_is_up(fedbench: Fedbench, stack: Stack) -> None:
    code, out, err = fedbench("run", "--set", "strict=true")
    assert (code, out) == (2, "")
    assert err.endswith("Invalid value: strict=true belongs to the profile: use `fedbench up`\n")


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_plan_needs_no_daemon_and_touches_nothing(
    fedbench: Fedbench, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (places.root / "data").mkdir(parents=True)
    before = tree(tmp_path)
    code, out, _ = fedbench("plan", "heterogeneous", "--set", "machines=[{device: laptop}]")
    assert (code, tree(tmp_path)) == (0, before)
    project = yaml.safe_load(out)
    assert list(project["services"]) == ["laptop"]
    assert project["include"][0] == f"{places.root}/compose/server.yaml"


def test_plan_prints_the_same_project_as_json(
    fedbench: Fedbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "_facts", lambda: HOST)
    as_yaml, as_json = fedbench("plan", "legacy-pair"), fedbench("plan", "legacy-pair", "--json")
    assert json.loads(as_json[1]) == yaml.safe_load(as_yaml[1])
    notes = "note: this host's own speed is not looked at here: `up` calibrates, and plans anew\n"
    assert (as_yaml[2], as_json[2]) == (notes, notes)


@pytest.mark.parametrize(
    "argv", [["status"], ["logs"], ["down"], ["run"], ["run", "--resume", "x"]]
)
def test_commands_for_a_federation_say_that_none_is_up(argv: list[str], fedbench: Fedbench) -> None:
    assert fedbench(*argv) == (
        1,
        "",
        "error: no federation is up\nhint: bring one up: make up PROFILE=heterogeneous\n",
    )


def test_without_a_daemon_nothing_is_brought_up(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("up", "legacy-pair")
    assert (code, out) == (3, "")
    endpoint = os.environ["DOCKER_HOST"]
    assert err.splitlines()[-2:] == [
        f"error: no Docker daemon answers at {endpoint}",
        "hint: start it, or choose another one: unset DOCKER_HOST, or `docker context use default`",
    ]
    assert not places.state.exists()


def test_a_federation_whose_daemon_is_gone_is_out_of_reach(
    fedbench: Fedbench, stack: Stack
) -> None:
    for argv in (["status"], ["down"], ["run"]):
        code, out, err = fedbench(*argv)
        assert (code, out) == (3, "")
        assert err.startswith("error: no Docker daemon answers at unix://")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_refused_before_anything_starts(
    fedbench: Fedbench, places: Places, taken: int, fake: FakeContainers
) -> None:
    process = psutil.Process()
    code, out, err = fedbench("up", "legacy-pair", "--set", f"ports.server={taken}")
    assert (code, out) == (3, "")
    another = taken + 10 if taken <= 65525 else taken - 10
    assert err.splitlines()[-2:] == [
        f"error: port {taken} (server) is taken by {process.name()} (pid {process.pid})",
        f"hint: stop what uses it, or choose another: --set ports.server={another}",
    ]
    assert not places.state.exists()
