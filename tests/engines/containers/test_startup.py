"""Clients start without their quotas, and take part with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import docker
import pytest
import requests
from docker.errors import APIError

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.containers.startup import enforce_quotas, lift_quotas, starts, wait_ready
from fedbench.errors import DockerError
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup.places import Places

PROFILE = load_profile("heterogeneous")
PLAN = plan(PROFILE, load_devices(PROFILE), HostFacts(cpus=2, memory=8 * 2**30))
QUOTAS = {planned.name: planned.quota for planned in PLAN.clients}
PERIODS = {planned.name: planned.period for planned in PLAN.clients}


@dataclass
class FakeContainer:
    """A container as Docker describes it; `updates` are the quotas that it was given."""

    service: str
    health: str = "healthy"
    quota: int = 0
    status: str = "running"
    exit_code: int = 0
    killed: bool = False
    restarts: int = 0
    started: str = "first"
    refuses: str = ""
    updates: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"id of {self.service}"

    @property
    def name(self) -> str:
        return f"fedbench-{self.service}-1"

    @property
    def labels(self) -> dict[str, str]:
        return {"com.docker.compose.service": self.service}

    @property
    def attrs(self) -> dict[str, Any]:
        return {
            "RestartCount": self.restarts,
            "HostConfig": {"CpuQuota": self.quota},
            "State": {
                "Status": self.status,
                "ExitCode": self.exit_code,
                "OOMKilled": self.killed,
                "StartedAt": self.started,
                "Health": {"Status": self.health},
            },
        }

    def update(self, *, cpu_period: int, cpu_quota: int) -> None:
        assert cpu_period == PERIODS[self.service]
        if self.refuses:
            raise APIError("500", requests.Response(), self.refuses)
        self.updates.append(cpu_quota)
        self.quota = cpu_quota

    def logs(self, tail: int) -> bytes:
        return f"{self.service}: the last {tail} lines, caf".encode() + b"\xe9\n"


class FakeDocker:
    """Lists one set of containers after the other, and the last one for ever."""

    def __init__(self, *snapshots: list[FakeContainer]) -> None:
        self._snapshots = list(snapshots)
        self.containers = self

    def list(self, **_: object) -> list[FakeContainer]:
        return self._snapshots.pop(0) if len(self._snapshots) > 1 else self._snapshots[0]


def client(*snapshots: list[FakeContainer]) -> docker.DockerClient:
    return cast("docker.DockerClient", FakeDocker(*snapshots))


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    images = {"fedbench": "fedbench:cpu", "prometheus": "prom/prometheus", "grafana": None}
    return Stack.write(Places(tmp_path), PLAN, load_devices(PROFILE), images)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        assert len(paused) < 10, "waits for ever"

    monkeypatch.setattr("time.sleep", pause)
    return paused


def limited(**changes: Any) -> list[FakeContainer]:
    """All clients under their quotas."""
    return [FakeContainer(name, quota=quota, **changes) for name, quota in QUOTAS.items()]


# -- lifting


def test_clients_that_were_just_started_have_no_quota(stack: Stack) -> None:
    server, prometheus = FakeContainer("server"), FakeContainer("prometheus")
    found = [*limited(), server, prometheus]
    lift_quotas(stack, client(found), set())
    assert [container.updates for container in found] == [[-1], [-1], [-1], [], []]


def test_a_client_that_runs_already_keeps_its_quota(stack: Stack) -> None:
    before = starts(stack, client(limited()))
    restarted = FakeContainer("laptop", quota=QUOTAS["laptop"], started="second")
    workstation, legacy = FakeContainer("workstation"), FakeContainer("legacy-pc")
    lift_quotas(stack, client([workstation, restarted, legacy]), before)
    assert [c.updates for c in (workstation, restarted, legacy)] == [[], [-1], []]


def test_a_quota_that_cannot_be_changed_is_an_error(stack: Stack) -> None:
    found = [FakeContainer("laptop", quota=-1, refuses="no such cgroup")]
    for change in (
        lambda: lift_quotas(stack, client(found), set()),
        lambda: enforce_quotas(stack, client(found)),
        lambda: wait_ready(stack, client(found), lambda _: None),
    ):
        with pytest.raises(DockerError) as caught:
            change()
        assert caught.value.message == (
            "fedbench-laptop-1: its CPU quota cannot be changed: no such cgroup"
        )


# -- enforcing


def test_quotas_are_put_in_force_where_they_were_lifted(stack: Stack) -> None:
    found = [
        FakeContainer("workstation", quota=QUOTAS["workstation"]),
        FakeContainer("laptop", quota=-1),
        FakeContainer("legacy-pc", quota=36_000),  # corrected during a run
        FakeContainer("server"),
    ]
    enforce_quotas(stack, client(found))
    assert [container.updates for container in found] == [[], [QUOTAS["laptop"]], [], []]


# -- waiting


def test_each_client_gets_its_quota_as_soon_as_it_is_ready(
    stack: Stack, no_pauses: list[float]
) -> None:
    said: list[str] = []
    server = FakeContainer("server", "starting")
    first, ready = (
        FakeContainer("workstation", "starting", -1),
        FakeContainer("workstation", "healthy", -1),
    )
    slow, late = (
        FakeContainer("legacy-pc", "starting", -1),
        FakeContainer("legacy-pc", "healthy", -1),
    )
    snapshots = [[first, slow, server], [first, slow], [ready, slow], [ready, late, server]]
    wait_ready(stack, client(*snapshots), said.append)
    assert said == ["waiting for legacy-pc, workstation", "waiting for legacy-pc"]
    assert (first.updates, slow.updates) == ([], [])
    assert ready.updates == [QUOTAS["workstation"]]
    assert late.updates == [QUOTAS["legacy-pc"]]
    assert no_pauses == [0.2, 0.2, 0.2]


def test_monitoring_is_not_waited_for(stack: Stack, no_pauses: list[float]) -> None:
    found = [*limited(), FakeContainer("server"), FakeContainer("prometheus", "starting")]
    wait_ready(stack, client(found), lambda _: None)
    assert no_pauses == []


@pytest.mark.parametrize("service", ["laptop", "prometheus"])
@pytest.mark.parametrize(
    ("dying", "how"),
    [
        ({"status": "exited", "exit_code": 1}, "(exit code 1)"),
        (
            {"status": "dead", "exit_code": 137, "killed": True},
            "(exit code 137, killed for memory)",
        ),
        ({"status": "restarting", "exit_code": 3, "restarts": 4}, "(exit code 3)"),
    ],
)
def test_a_container_that_dies_is_shown_with_its_last_lines(
    service: str, dying: dict[str, Any], how: str, stack: Stack, no_pauses: list[float]
) -> None:
    docker_client = client(
        [FakeContainer("laptop", "starting")],
        [FakeContainer(service, "starting", **dying), FakeContainer("server")],
    )
    with pytest.raises(DockerError) as caught:
        wait_ready(stack, docker_client, lambda _: None)
    assert caught.value.message == (
        f"{service} does not stay up {how}\n"
        f"{service}: the last 15 lines, caf\N{REPLACEMENT CHARACTER}"
    )
    assert caught.value.hint == "see `make logs`"


def test_a_client_that_restarts_once_may_still_come(stack: Stack, no_pauses: list[float]) -> None:
    restarting = FakeContainer("laptop", "starting", status="restarting", restarts=3)
    wait_ready(stack, client([restarting], [FakeContainer("laptop")]), lambda _: None)
    assert no_pauses == [0.2]


def test_waiting_ends(stack: Stack, no_pauses: list[float]) -> None:
    starting = [FakeContainer("server"), FakeContainer("laptop", "starting")]
    with pytest.raises(DockerError) as caught:
        wait_ready(stack, client(starting), lambda _: None, seconds=0)
    assert caught.value.message == (
        "laptop: not ready after 0 s\nlaptop: the last 15 lines, caf\N{REPLACEMENT CHARACTER}"
    )
