from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_containers import FakeContainers

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch.overview import status
from fedbench.host.watch.vigil import watching
from fedbench.records import executing
from fedbench.records.runs import Run

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
IMAGES = {"fedbench": "fedbench:cpu", "prometheus": "p", "grafana": None}


def row(service: str, cpus: object, memory: str, **changes: Any) -> dict[str, Any]:
    usual = {"state": "running", "health": "healthy", "killed_for_memory": False}
    return {"service": service, "cpus": cpus, "memory": memory} | usual | changes


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    profile = load_profile("legacy-pair")
    planned = plan(profile, load_devices(profile), HostFacts(cpus=2, memory=8 * 2**30))
    places = Places(tmp_path / "checkout")
    return Stack.write(places, planned, load_devices(profile), IMAGES)


def test_a_client_that_is_starting_has_no_quota(stack: Stack, fake: FakeContainers) -> None:
    fake.add("legacy-pc-1", cpu_quota=-1, cpu_period=100_000)
    assert status(stack)["containers"] == [row("legacy-pc-1", "all", "-")]


def test_status_shows_containers_with_their_limits(stack: Stack, fake: FakeContainers) -> None:
    fake.add("server")
    state = {"status": "restarting", "health": "", "killed_for_memory": True}
    fake.add("legacy-pc-2", cpuset="2,3", memory=512 * 2**20, **state)
    fake.add("legacy-pc-1", cpu_quota=50_000, cpu_period=100_000, memory=2**31)
    assert status(stack) == {
        "profile": "legacy-pair",
        "dilation": 1.0,
        "containers": [
            row("legacy-pc-1", 0.5, "2048 MiB"),
            row(
                "legacy-pc-2", "2,3", "512 MiB",
                state="restarting", health="-", killed_for_memory=True,
            ),
            row("server", "all", "-"),
        ],
        "run": None,
        "run_status": None,
        "problems": [],
        "prometheus": "http://127.0.0.1:9090",
        "grafana": None,
    }  # fmt: skip


def test_status_names_the_newest_run(stack: Stack, fake: FakeContainers) -> None:
    shutil.copytree(GOLDEN, stack.places.runs / GOLDEN.name)
    state = status(stack)
    assert (state["run"], state["run_status"]) == (GOLDEN.name, "running")


def test_what_a_run_needs_and_has_not_is_named(stack: Stack, fake: FakeContainers) -> None:
    fake.add("server")
    fake.add("prometheus", status="exited", exit_code=137)
    run = Run(Path(shutil.copytree(GOLDEN, stack.places.runs / GOLDEN.name)))
    assert status(stack)["problems"] == [], "no run is executed"

    executing.begin(run.path, PROJECT)
    with watching(run):
        assert status(stack)["problems"] == ["prometheus is exited, exit code 137"]
    fake.start_again(fake.get("prometheus"))
    assert status(stack)["problems"] == [
        f"nobody watches over run {run.id}, or starts again what is killed: "
        f"`make run RESUME={run.id}` does"
    ]
