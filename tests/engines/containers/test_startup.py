"""Clients start without their quotas, and take part with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_containers import FakeContainers

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.containers.startup import (
    POLL_SECONDS,
    Starts,
    enforce_quotas,
    lift_quotas,
    renew_quotas,
    starts,
    wait_ready,
)
from fedbench.errors import DockerError
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup.places import Places

PROFILE = load_profile("heterogeneous")
PLAN = plan(PROFILE, load_devices(PROFILE), HostFacts(cpus=2, memory=8 * 2**30))
QUOTAS = {planned.name: planned.quota for planned in PLAN.clients}
PERIODS = {planned.name: planned.period for planned in PLAN.clients}


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    images = {"fedbench": "fedbench:cpu", "prometheus": "prom/prometheus", "grafana": None}
    return Stack.write(Places(tmp_path), PLAN, load_devices(PROFILE), images)


Steps = list[Callable[[], object]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What happens while somebody waits: a step in each pause, and then nothing any more."""
    pending: Steps = []

    def pause(seconds: float) -> None:
        assert seconds == POLL_SECONDS
        assert pending, "waits for ever"
        pending.pop(0)()

    monkeypatch.setattr("time.sleep", pause)
    return pending


def add(fake: FakeContainers, name: str, quota: int | None = None, **state: Any) -> None:
    """Let a client be there, under its own quota or another."""
    planned = QUOTAS[name] if quota is None else quota
    fake.add(name, cpu_period=PERIODS[name], cpu_quota=planned, **state)


def nothing() -> None:
    """Let a pause go by."""


# -- lifting


def test_clients_that_were_just_started_have_no_quota(stack: Stack, fake: FakeContainers) -> None:
    for name in QUOTAS:
        add(fake, name)
    fake.add("server")
    fake.add("prometheus")
    lift_quotas(stack, fake, set())
    assert fake.quotas == {name: [-1] for name in QUOTAS}
    assert {name: fake.get(name).cpu_period for name in QUOTAS} == PERIODS


def test_a_client_that_runs_already_keeps_its_quota(stack: Stack, fake: FakeContainers) -> None:
    for name in QUOTAS:
        add(fake, name)
    before = starts(stack, fake)
    fake.restart("laptop")
    lift_quotas(stack, fake, before)
    assert fake.quotas == {"laptop": [-1]}


def test_a_quota_that_cannot_be_changed_is_an_error(stack: Stack, fake: FakeContainers) -> None:
    add(fake, "laptop", -1)
    fake.refusals["set_quota"] = "no such cgroup"
    for change in (
        lambda: lift_quotas(stack, fake, set()),
        lambda: enforce_quotas(stack, fake),
        lambda: wait_ready(stack, fake, lambda _: None),
    ):
        with pytest.raises(DockerError) as caught:
            change()
        assert caught.value.message == (
            "fedbench-laptop-1: its CPU quota cannot be changed: no such cgroup"
        )
        assert caught.value.hint == "`make down` takes the federation down"


# -- enforcing


def test_quotas_are_put_in_force_where_they_were_lifted(stack: Stack, fake: FakeContainers) -> None:
    add(fake, "workstation")
    add(fake, "laptop", -1)
    add(fake, "legacy-pc", 36_000)  # corrected during a run
    fake.add("server")
    enforce_quotas(stack, fake)
    assert fake.quotas == {"laptop": [QUOTAS["laptop"]]}


PAIR = load_profile("legacy-pair")


def test_what_clients_share_is_in_force_again_once_one_started_again(
    tmp_path: Path, fake: FakeContainers
) -> None:
    """As a run's governor has it: each container keeps its own quota, even a corrected one."""
    devices = load_devices(PAIR)
    planned = plan(PAIR, devices, HostFacts(cpus=2, memory=8 * 2**30))
    images = {"fedbench": "fedbench:cpu", "prometheus": "prom/prometheus", "grafana": None}
    stack = Stack.write(Places(tmp_path), planned, devices, images)
    (group,) = {client.group for client in planned.clients}
    assert group
    for client in planned.clients:
        fake.add(client.name, cpu_period=client.period, cpu_quota=client.quota + 1000)

    def renewed(before: Starts) -> Starts:
        return renew_quotas(stack, fake, stack.services(fake), before)

    known = renewed(starts(stack, fake))
    assert (fake.helpers, fake.quotas) == ([], {})
    first, second = planned.clients
    fake.restart(first.name)
    after = renewed(known)
    assert fake.quotas == {each.name: [each.quota + 1000] for each in planned.clients}
    parents = [json.loads(helper.command[-1])["quotas"] for helper in fake.helpers]
    assert [quota["quota"] for (quota,) in parents] == [-1, first.quota + 1000]
    assert renewed(after) == after
    assert len(fake.helpers) == 2

    fake.change(second.name, status="exited", pid=0)
    fake.restart(first.name)
    renewed(after)
    assert len(fake.quotas[second.name]) == 1, "one that has ended is left alone"


def test_a_client_on_a_computer_of_its_own_shares_nothing(
    stack: Stack, fake: FakeContainers
) -> None:
    add(fake, "laptop")
    renew_quotas(stack, fake, stack.services(fake), frozenset())
    assert (fake.helpers, fake.quotas) == ([], {})


# -- waiting


def test_each_client_gets_its_quota_as_soon_as_it_is_ready(
    stack: Stack, fake: FakeContainers, steps: Steps
) -> None:
    said: list[str] = []
    fake.add("server", health="starting")
    add(fake, "workstation", -1, health="starting")
    add(fake, "legacy-pc", -1, health="starting")

    def first() -> None:
        assert fake.quotas == {}
        fake.change("workstation", health="healthy")

    def second() -> None:
        assert fake.quotas == {"workstation": [QUOTAS["workstation"]]}
        fake.change("legacy-pc", health="healthy")

    steps += [nothing, first, second]
    wait_ready(stack, fake, said.append)
    assert said == ["waiting for legacy-pc, workstation", "waiting for legacy-pc"]
    assert fake.quotas == {name: [QUOTAS[name]] for name in ("workstation", "legacy-pc")}
    assert steps == []


def test_monitoring_is_not_waited_for(stack: Stack, fake: FakeContainers, steps: Steps) -> None:
    for name in QUOTAS:
        add(fake, name)
    fake.add("server")
    fake.add("prometheus", health="starting")
    wait_ready(stack, fake, lambda _: None)


LINES = [(float(number), f"line {number}") for number in range(20)]
LAST = "\n".join(f"line {number}" for number in range(5, 20))


@pytest.mark.parametrize("service", ["laptop", "prometheus"])
@pytest.mark.parametrize(
    ("dying", "how"),
    [
        ({"status": "exited", "exit_code": 1}, "(exit code 1)"),
        (
            {"status": "dead", "exit_code": 137, "killed_for_memory": True},
            "(exit code 137, killed for memory)",
        ),
        ({"status": "restarting", "exit_code": 3, "restarts": 4}, "(exit code 3)"),
    ],
)
def test_a_container_that_dies_is_shown_with_its_last_lines(
    service: str, dying: dict[str, Any], how: str, stack: Stack, fake: FakeContainers, steps: Steps
) -> None:
    add(fake, "laptop", -1, health="starting")
    fake.add("prometheus")
    fake.say(service, *LINES)
    steps.append(lambda: fake.change(service, health="starting", **dying))
    with pytest.raises(DockerError) as caught:
        wait_ready(stack, fake, lambda _: None)
    assert caught.value.message == f"{service} does not stay up {how}\n{LAST}"
    assert caught.value.hint == "see `make logs`"


def test_a_client_that_restarts_once_may_still_come(
    stack: Stack, fake: FakeContainers, steps: Steps
) -> None:
    add(fake, "laptop", health="starting", status="restarting", restarts=3)
    steps.append(lambda: fake.change("laptop", health="healthy", status="running"))
    wait_ready(stack, fake, lambda _: None)
    assert steps == []


def test_waiting_ends(stack: Stack, fake: FakeContainers, steps: Steps) -> None:
    fake.add("server")
    add(fake, "laptop", -1, health="starting")
    fake.say("laptop", *LINES)
    with pytest.raises(DockerError) as caught:
        wait_ready(stack, fake, lambda _: None, seconds=0)
    assert caught.value.message == f"laptop: not ready after 0 s\n{LAST}"
