"""The order of things: what can be refused is refused before anything is written or started."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_containers import FakeContainers

from fedbench.config import Profile, load_devices, load_experiment, load_profile
from fedbench.engines.containers import startup
from fedbench.engines.containers.bring_up import bring_up, preview
from fedbench.engines.containers.runtime import daemon as docker_daemon
from fedbench.engines.containers.runtime import workbench as workbenches
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.engines.containers.runtime.stack import Stack, paths
from fedbench.engines.containers.runtime.workbench import WORKLOAD, workbench
from fedbench.errors import ConfigError, DataError, FedbenchError, HostError, RunError
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.plan.project import compose_project
from fedbench.host.plan.targets import Assumed
from fedbench.host.setup import bootstrap
from fedbench.host.setup.bootstrap import Images
from fedbench.host.setup.locks import holder
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.speed import calibration
from fedbench.records import write_summary

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
EXPERIMENT = load_experiment("digits")
SPEEDS = {"mobilenet_v2": Assumed(600)}
PAIR = "machines=[{device: legacy-pc, count: 2}]"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "checkout")


@pytest.fixture
def daemon(fake: FakeContainers, monkeypatch: pytest.MonkeyPatch) -> FakeContainers:
    """Containers of a host of two cores that has the images, and was calibrated."""
    images = Images(fedbench="fedbench:cpu", prometheus="prom/prometheus", grafana=None)
    monkeypatch.setattr(bootstrap, "ensure_images", lambda *_, **__: images)
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: SPEEDS)
    return fake


@pytest.fixture
def ports() -> list[str]:
    """Settings that choose ports which nobody listens on."""
    chosen = []
    for name in ("server", "prometheus", "grafana"):
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            chosen.append(f"ports.{name}={listener.getsockname()[1]}")
    return chosen


Up = Callable[..., Stack]


@pytest.fixture
def up(places: Places) -> Up:
    """Brings a profile up; what is said goes into `said`."""

    def bring(profile: Profile, said: list[str] | None = None, source: Path | None = None) -> Stack:
        devices, lines = load_devices(profile), said if said is not None else []
        return bring_up(places, profile, devices, EXPERIMENT, source, lines.append)

    return bring


def test_a_preview_is_the_plan_for_dockers_machine(places: Places, daemon: FakeContainers) -> None:
    profile = load_profile("legacy-pair")
    planned, project = preview(places, profile, load_devices(profile))
    assert planned.clients == plan(profile, load_devices(profile), HostFacts(2, 8 * 2**30)).clients
    assert planned.notes[-1].startswith("this host's own speed is not looked at here")
    assert project == compose_project(planned, paths(places), PROJECT)
    assert not places.root.exists()


def test_without_docker_a_preview_is_for_this_machine(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_daemon, "find", lambda: None)
    monkeypatch.setattr("psutil.cpu_count", lambda: 4)
    profile = load_profile("legacy-pair", [PAIR])
    planned, _ = preview(places, profile, load_devices(profile))
    assert [client.cpuset for client in planned.clients] == ["0", "1"]
    assert not places.root.exists()


def test_a_federation_is_brought_up(
    places: Places, daemon: FakeContainers, docker_command: Any, up: Up, ports: list[str]
) -> None:
    said: list[str] = []
    profile = load_profile("heterogeneous", [*ports, "machines=[{device: laptop}]"])
    stack = up(profile, said)
    measured = plan(profile, load_devices(profile), HostFacts(2, 8 * 2**30), SPEEDS)
    assert (stack.clients, stack.dilation) == (measured.clients, measured.dilation)
    assert Stack.load(places) == stack
    assert docker_command.calls == [
        f"fedbench:cpu: compose --project-name {PROJECT} --file {places.state}/compose.yaml "
        "up --detach --remove-orphans --quiet-pull --no-build"
    ]
    assert said[1:] == [
        "note: every device is slowed by one factor, for this host has 2 cores: "
        "emulated seconds are wall seconds / 1.94",
        "note: laptop: memory limited to the host's 8.0 GiB (the device has 16 GiB)",
        "note: laptop: CPUs take the place of its RTX 3060 Mobile, at the GPU's speed",
        "note: Grafana is left out: its image could not be had",
        "starting 1 clients, server and monitoring",
    ]
    for client in ("laptop",):
        folders = [path for path in (places.data / client).iterdir() if path.is_dir()]
        assert [sorted(file.name for file in folder.iterdir()) for folder in folders] == [
            ["test.safetensors", "train.safetensors"]
        ]


def test_clients_start_without_their_quotas_and_have_them_when_they_are_up(
    places: Places,
    daemon: FakeContainers,
    docker_command: Any,
    up: Up,
    ports: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = {"cpu_period": 100_000, "cpu_quota": 100_000}
    daemon.add("legacy-pc-2", **limited)
    monkeypatch.setattr(Compose, "up", lambda _: daemon.add("legacy-pc-1", **limited))
    stack = up(load_profile("legacy-pair", [*ports, PAIR]))
    assert daemon.quotas == {"legacy-pc-1": [-1, stack.clients[0].quota]}


def test_no_other_stops_docker_before_a_federation_has_containers(
    places: Places,
    daemon: FakeContainers,
    own_host: Path,
    up: Up,
    ports: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor gives another checkout the image's tag to what it builds."""
    kept = []

    def look(*_: object, **__: object) -> None:
        kept.append(holder(own_host / "host.lock") is not None)

    for place, name in ((docker_daemon, "connect"), (calibration, "calibrate")):
        before = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *_, done=before, **__: look() or done())
    monkeypatch.setattr(Compose, "up", look)
    monkeypatch.setattr(startup, "wait_ready", look)
    up(load_profile("legacy-pair", ports))
    assert kept == [True, True, True, False]


def test_a_federation_is_not_replaced_beneath_a_run(
    places: Places, daemon: FakeContainers, docker_command: Any, up: Up, ports: list[str]
) -> None:
    profile = load_profile("legacy-pair", ports)
    up(profile)
    run = places.runs / "r1"
    shutil.copytree(GOLDEN, run)
    daemon.add("server", ports=(profile.ports.server,))
    daemon.run("server", "python -m fedbench.server.launch /runs/r1")
    before = len(docker_command.calls)
    with pytest.raises(RunError, match="run r1 is in progress"):
        up(load_profile("heterogeneous", ports))
    assert len(docker_command.calls) == before
    write_summary(run)  # it is over; its process ends in a moment
    up(profile)


def test_a_federation_that_is_up_may_be_brought_up_again(
    places: Places, daemon: FakeContainers, docker_command: Any, up: Up, ports: list[str]
) -> None:
    profile = load_profile("legacy-pair", ports)
    up(profile)
    with socket.create_server(("127.0.0.1", profile.ports.server)):
        daemon.add("server", ports=(profile.ports.server,))
        up(profile)
        assert len(docker_command.calls) == 2
        daemon.drop("server")
        with pytest.raises(HostError, match=rf"port {profile.ports.server} \(server\) is taken"):
            up(profile)


def test_a_host_that_is_fast_enough_is_not_refused_for_what_hosts_usually_are(
    places: Places,
    daemon: FakeContainers,
    docker_command: Any,
    up: Up,
    ports: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = ["machines=[{device: legacy-pc, count: 14}]", "dilation=1"]
    profile = load_profile("legacy-pair", [*ports, *crowd])
    with pytest.raises(HostError, match="dilation 1 is too small"):
        up(profile)
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: {"mobilenet_v2": Assumed(6000)})
    assert up(profile).dilation == 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            ["ports.server=9090", "ports.prometheus=9090"],
            HostError,
            "ports.server and ports.prometheus are both 9090",
        ),
        (
            ["strict=true", "machines=[{device: legacy-pc, count: 50}]"],
            HostError,
            "profile legacy-pair is strict, and this host cannot be all of it",
        ),
        (
            ["machines=[{device: laptop, name: a}, {device: laptop, name: a}]"],
            ConfigError,
            "two clients are named a",
        ),
        (["machines=[{device: legacy-pc, count: 1500}]"], DataError, "1500 clients, but only 1438"),
    ],
)
def test_what_is_refused_starts_nothing(
    settings: list[str],
    error: type[FedbenchError],
    message: str,
    places: Places,
    daemon: FakeContainers,
    docker_command: Any,
    up: Up,
    ports: list[str],
) -> None:
    with pytest.raises(error, match=message):
        up(load_profile("legacy-pair", [*ports, *settings]))
    assert not places.state.exists()
    assert not (docker_command.folder / "calls").exists()


def test_a_model_that_cannot_be_trained_starts_nothing(
    places: Places, daemon: FakeContainers, ports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real workload says so, as in its container."""

    def measure(client: Any, image: str, models: list[str], *_: object, **__: object) -> None:
        assert models == ["mobilenet_v2", "resnt18"]
        with workbench(client, image) as bench:
            bench.measure("resnt18", threads=1, seconds=0.1)

    argv = [sys.executable, "-m", WORKLOAD]
    monkeypatch.setattr(workbenches, "docker_run", lambda *_: argv)
    monkeypatch.setattr(calibration, "calibrate", measure)
    profile = load_profile("legacy-pair", ports)
    experiment = load_experiment("digits", ["model=resnt18"])
    with pytest.raises(ConfigError, match=r"model resnt18: .*; did you mean resnet18 or"):
        bring_up(places, profile, load_devices(profile), experiment, None, lambda _: None)
    assert not places.state.exists()


def test_data_is_looked_at_before_docker_is(
    places: Places, up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(say: object) -> None:
        raise AssertionError("Docker was asked for")

    monkeypatch.setattr(docker_daemon, "connect", fail)
    with pytest.raises(DataError, match="the data set digits is embedded"):
        up(load_profile("legacy-pair"), source=tmp_path)


def test_a_stack_that_does_not_start_can_be_taken_down(
    places: Places, daemon: FakeContainers, docker_command: Any, up: Up, ports: list[str]
) -> None:
    docker_command.answer(errors="no space left on device", code=1)
    with pytest.raises(HostError, match="no space left on device"):
        up(load_profile("legacy-pair", ports))
    assert json.loads((places.state / "stack.json").read_text())["dilation"] == 1.0
