from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import Flips, cuts, flips, refused, turn
from fake_containers import FakeContainers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers.runtime.containers import ContainerHost
from fedbench.engines.containers.runtime.stack import (
    Stack,
    container_user,
    paths,
    require,
    take_down,
)
from fedbench.errors import DamagedFileError, DockerError, FedbenchError
from fedbench.host.plan.plan import HostFacts, Plan, plan
from fedbench.host.plan.project import compose_project
from fedbench.host.setup.places import PROJECT, Places

IMAGES = {"fedbench": "fedbench:cpu", "prometheus": "prom/prometheus", "grafana": None}


@pytest.fixture
def planned() -> Plan:
    profile = load_profile("legacy-pair", ["ports.prometheus=9091", "ports.grafana=3001"])
    return plan(profile, load_devices(profile), HostFacts(cpus=2, memory=8 * 2**30))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def stack(places: Places, planned: Plan) -> Stack:
    return Stack.write(places, planned, load_devices(planned.profile), IMAGES)


# -- what is written


def test_a_stack_is_loaded_as_it_was_written(places: Places, planned: Plan, stack: Stack) -> None:
    loaded = Stack.load(places)
    assert loaded == stack == require(places)
    assert loaded.profile == planned.profile
    assert loaded.clients == planned.clients
    assert loaded.dilation == planned.dilation
    assert loaded.devices == load_devices(planned.profile)
    assert (loaded.image, loaded.cgroup_driver) == ("fedbench:cpu", "cgroupfs")
    assert loaded.compose.name == PROJECT
    assert loaded.compose.variables["FEDBENCH_IMAGE"] == "fedbench:cpu"


def test_the_compose_file_is_the_planned_project(
    places: Places, planned: Plan, stack: Stack
) -> None:
    assert stack.compose.file == places.state / "compose.yaml"
    project = yaml.safe_load(stack.compose.file.read_text())
    assert project == compose_project(planned, paths(places), PROJECT)


def test_every_folder_that_is_mounted_exists(places: Places, stack: Stack) -> None:
    for folder in (places.runs, places.data / "legacy-pc-1", places.data / "legacy-pc-2"):
        assert folder.is_dir()
    for file in ("ca.pem", "ca.key", "server/server.pem", "server/server.key"):
        assert (places.state / "tls" / file).is_file()


def test_containers_own_what_they_write_and_the_servers_key_but_not_the_authoritys(
    places: Places, stack: Stack
) -> None:
    tls = places.state / "tls"
    theirs = int(container_user().partition(":")[0])
    for path in (places.runs, tls / "server", tls / "server" / "server.key"):
        assert path.stat().st_uid == theirs
    assert (tls / "ca.key").stat().st_uid == os.getuid()


def test_the_authority_outlives_a_stack(places: Places, planned: Plan, stack: Stack) -> None:
    authority = places.state / "tls" / "ca.pem"
    before = authority.read_bytes()
    Stack.write(places, planned, stack.devices, IMAGES)
    assert authority.read_bytes() == before


def test_a_checkout_without_a_federation(places: Places) -> None:
    assert Stack.load(places) is None
    with pytest.raises(FedbenchError) as caught:
        require(places)
    assert caught.value.message == "no federation is up"
    assert caught.value.hint == "bring one up: make up PROFILE=heterogeneous"


def test_dashboards_are_on_this_host(places: Places, planned: Plan, stack: Stack) -> None:
    assert stack.prometheus_url == "http://127.0.0.1:9091"
    assert stack.grafana_url is None
    images = IMAGES | {"grafana": "grafana/grafana"}
    with_grafana = Stack.write(places, planned, stack.devices, images)
    assert with_grafana.grafana_url == "http://127.0.0.1:3001"


@pytest.mark.parametrize(("uid", "user"), [(0, "10001:10001"), (1000, "1000:100")])
def test_containers_never_run_as_root(uid: int, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(os, "getgid", lambda: 100)
    assert container_user() == user


def test_the_host_is_that_of_the_containers() -> None:
    host = ContainerHost(cpus=8, memory=2**34, gpus=1, cgroup_driver="systemd")
    facts = FakeContainers(host).host()
    planned = HostFacts(**{each.name: getattr(facts, each.name) for each in fields(HostFacts)})
    assert planned == HostFacts(cpus=8, memory=2**34, gpus=1, cgroup_driver="systemd")
    assert isinstance(facts, HostFacts)


# -- what runs


def test_services_are_those_of_the_project(stack: Stack, fake: FakeContainers) -> None:
    fake.add("server")
    fake.add("laptop", status="exited")
    fake.add("server", project="another")
    fake.add_joined("visitor")
    services = stack.services(fake)
    assert services == {name: fake.get(name) for name in ("server", "laptop")}


def test_the_ports_that_the_stack_holds(stack: Stack, fake: FakeContainers) -> None:
    fake.add("server", ports=(9092,))
    fake.add("prometheus", ports=(9091,))
    fake.add("laptop", status="exited")
    fake.add("grafana", project="another", ports=(3000,))
    assert stack.published(fake) == {9092, 9091}


@pytest.mark.parametrize(("volumes", "ending"), [(False, "5"), (True, "5 --volumes")])
def test_a_stack_that_is_taken_down_is_forgotten_but_not_its_records(
    volumes: bool, ending: str, places: Places, stack: Stack, docker_command: Any
) -> None:
    take_down(places, stack.compose, volumes=volumes)
    assert docker_command.calls == [
        f"fedbench:cpu: compose --project-name {PROJECT} --file {places.state}/compose.yaml "
        f"down --remove-orphans --timeout {ending}"
    ]
    assert Stack.load(places) is None
    assert (places.state / "tls" / "ca.pem").exists()
    assert places.runs.is_dir()


def test_a_stack_that_cannot_be_taken_down_is_remembered(
    places: Places, stack: Stack, docker_command: Any
) -> None:
    docker_command.answer(errors="no such daemon", code=1)
    with pytest.raises(DockerError, match="no such daemon"):
        take_down(places, stack.compose)
    assert Stack.load(places) == stack


def test_no_secret_is_in_what_describes_the_stack(places: Places, stack: Stack) -> None:
    text = (places.state / "stack.json").read_text() + stack.compose.file.read_text()
    assert "PRIVATE" not in text
    assert json.loads((places.state / "stack.json").read_text()).keys() == {
        "profile",
        "devices",
        "clients",
        "dilation",
        "model",
        "speeds",
        "networks",
        "cgroup_driver",
        "variables",
    }


# -- damaged


def test_a_stack_file_that_is_cut_off_is_refused_in_one_line(places: Places, stack: Stack) -> None:
    for _ in cuts(places.state / "stack.json"):
        with pytest.raises(DamagedFileError, match=r"stack\.json is damaged: ") as caught:
            Stack.load(places)
        assert caught.value.hint == "`make down` clears what is up all the same"
    assert Stack.load(places) == stack


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bits=flips)
def test_bits_that_turn_in_it_are_told_or_done_without(
    places: Places, stack: Stack, bits: Flips
) -> None:
    file = places.state / "stack.json"
    whole = file.read_bytes()
    file.write_bytes(turn(whole, bits))
    refused(lambda: use(require(places)), "stack.json")
    file.write_bytes(whole)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=300) | st.sampled_from([b"[" * 10**5, b"{}", b"null"]))
def test_any_bytes_are_no_stack(places: Places, stack: Stack, content: bytes) -> None:
    (places.state / "stack.json").write_bytes(content)
    assert refused(lambda: Stack.load(places), "stack.json")


def use(stack: Stack) -> None:
    """What commands ask of a stack."""
    assert stack.image + stack.prometheus_url + str(stack.grafana_url)
    assert all(client.computer for client in stack.clients)
    assert stack.compose.environment()
