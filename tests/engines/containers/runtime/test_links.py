"""Each client's network is put in force once for each start of its container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_containers import FakeContainers

from fedbench.config import Network, load_devices, load_networks, load_profile
from fedbench.engines.containers.runtime import networks as network
from fedbench.engines.containers.runtime.containers import Container
from fedbench.engines.containers.runtime.links import enforce
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.plan.networks import Capabilities
from fedbench.host.plan.plan import HostFacts, Plan, plan
from fedbench.host.setup.places import Places

IMAGES = {"fedbench": "fedbench:cpu", "prometheus": "p", "grafana": None}
HOST = HostFacts(cpus=2, memory=64 * 2**30)


def planned(*settings: str) -> Plan:
    profile = load_profile("heterogeneous", settings)
    devices = load_devices(profile)
    networks = load_networks(profile, devices)
    return plan(profile, devices, HOST, networks=networks)


def stack_of(made: Plan, places: Places) -> Stack:
    return Stack.write(places, made, load_devices(made.profile), IMAGES)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def shaped(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Network | None]]:
    """What was put in force, run of the helper by run."""
    calls: list[dict[str, Network | None]] = []

    def shape(_: object, image: str, pairs: list[tuple[Container, Network | None]]) -> None:
        assert image == "fedbench:cpu"
        calls.append({container.service: link for container, link in pairs})

    monkeypatch.setattr(network, "shape", shape)
    return calls


WITH_UPLINK = "machines=[{device: laptop, network: {up: 10Mbit, delay: 10ms}}, {device: legacy-pc}]"


def test_rates_are_slowed_as_everything_is() -> None:
    made = planned(WITH_UPLINK)
    assert made.dilation > 1
    assert made.networks == {
        "laptop": Network(up=10e6 / made.dilation, delay=0.010 * made.dilation)
    }


def test_a_client_is_shaped_once_and_again_when_it_was_started_again(
    places: Places, shaped: list[dict[str, Network | None]], fake: FakeContainers
) -> None:
    stack = stack_of(planned(WITH_UPLINK), places)
    fake.add("laptop")
    fake.add("legacy-pc")
    enforce(stack, fake)
    enforce(stack, fake)
    assert shaped == [{"laptop": stack.networks["laptop"]}]
    fake.restart("laptop")
    enforce(stack, fake)
    assert len(shaped) == 2


def test_a_network_that_is_wanted_no_more_is_taken_off(
    places: Places, shaped: list[dict[str, Network | None]], fake: FakeContainers
) -> None:
    fake.add("laptop")
    enforce(stack_of(planned(WITH_UPLINK), places), fake)
    without = stack_of(planned("machines=[{device: laptop}]"), places)
    enforce(without, fake)
    enforce(without, fake)
    assert shaped[1:] == [{"laptop": None}]


def test_without_networks_no_helper_is_started(
    places: Places, shaped: list[dict[str, Network | None]], fake: FakeContainers
) -> None:
    fake.add("laptop")
    enforce(stack_of(planned(), places), fake)
    assert shaped == []


def test_the_helper_is_told_the_process_and_the_network_of_each(
    places: Places, fake: FakeContainers
) -> None:
    stack = stack_of(planned(WITH_UPLINK), places)
    laptop = fake.add("laptop")
    enforce(stack, fake)
    (helper,) = fake.helpers
    order = json.loads(helper.command[-1])
    (link,) = order["shape"]
    assert (link["pid"], link["up"]) == (laptop.pid, stack.networks["laptop"].up)
    assert helper.image == stack.image
    assert "NET_ADMIN" in helper.capabilities


def test_the_plan_says_what_the_kernel_cannot_do_and_strict_refuses_it() -> None:
    profile = load_profile("heterogeneous", ["machines=[{device: legacy-pc, network: lte}]"])
    devices = load_devices(profile)
    networks = load_networks(profile, devices)
    kernel = Capabilities(tbf=True, ifb=True, netem=False)
    made = plan(profile, devices, HOST, networks=networks, kernel=kernel)
    (note,) = made.notes
    assert note.startswith("legacy-pc: delay ")
    assert note.endswith("not applied: this kernel has no netem")
