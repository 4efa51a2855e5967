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
from fedbench.records.runs import RunStore

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


@pytest.mark.parametrize("argv", [["status"], ["logs"], ["down"], ["run"], ["run", "digits"]])
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


def test_a_run_that_is_to_go_on_has_to_be_there(fedbench: Fedbench, places: Places) -> None:
    code, out, err = fedbench("run", "--resume", "x")
    assert (code, out) == (5, "")
    assert err.startswith(f"error: no run 'x' in {places.runs}\n")


def test_an_experiment_is_named_once(fedbench: Fedbench) -> None:
    code, _, err = fedbench("run", "digits", "--experiment", "noop")
    assert code == 2
    assert "two experiments: digits and --experiment noop" in err


def test_a_run_in_one_program_needs_neither_docker_nor_a_federation(
    fedbench: Fedbench, places: Places
) -> None:
    """On a host where no daemon answers; the run is real."""
    small = ["rounds=1", "local_epochs=1", "data.train_samples=60", "data.test_samples=20"]
    options = [part for setting in small for part in ("--set", setting)]
    code, out, err = fedbench(
        "run", "digits", "--engine", "in-process", "--profile", "legacy-pair",
        "--workers", "0", "--set", "model=mobilenet_v3_small", *options,
    )  # fmt: skip
    assert code == 0, err
    assert "| legacy-pc-2" in out.replace("│", "|")
    assert "emulated" not in out
    (run,) = RunStore(places.runs).all()
    assert run.summary().status == "finished"
    code, _, err = fedbench("run", "--resume", run.id)
    assert (code, f"run {run.id} is finished" in err) == (5, True)
