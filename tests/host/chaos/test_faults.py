"""What each fault does to a container, and how it is undone: the exact commands."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_containers import FakeContainers

from fedbench.config import Network, load_device, load_profile
from fedbench.engines.containers.runtime.containers import CommandAnswer, HelperContainer
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError, HostError
from fedbench.host.chaos import disk, misbehaviour, victim
from fedbench.host.chaos.catalogue import FAULTS
from fedbench.host.chaos.misbehaviour import FAULTY
from fedbench.host.chaos.scenario import Scenario
from fedbench.host.chaos.victim import Fault, Victim
from fedbench.host.plan.plan import HostFacts, plan
from fedbench.host.setup.places import PROJECT, Places
from fedbench.records.runs import Run

IMAGES = {"fedbench": "f", "prometheus": "p", "grafana": None}
HOST = HostFacts(cpus=64, memory=64 * 2**30)
Made = Callable[..., Fault]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run on the host, which do nothing."""
    told: list[list[str]] = []
    for module in (victim, misbehaviour, disk):
        monkeypatch.setattr(module, "run_command", lambda argv, _=None: told.append(list(argv)))
    return told


@pytest.fixture
def containers() -> FakeContainers:
    fake = FakeContainers(local=True)
    for service in ("server", "prometheus", "pc-1", "pc-2", "pc-3", FAULTY):
        fake.add(service, cpu_period=100_000, cpu_quota=100_000)
    return fake


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    devices = {"legacy-pc": load_device("legacy-pc")}
    return Stack.write(
        Places(tmp_path), plan(load_profile("chaos"), devices, HOST), devices, IMAGES
    )


@pytest.fixture
def made(stack: Stack, containers: FakeContainers, commands: object) -> Made:
    def make(name: Any, service: str = "pc-1", **values: Any) -> Fault:
        who = {"pc-1": "client"}.get(service, service)
        told = {"name": "one", "description": "a fault", "fault": name, "who": who} | values
        return FAULTS[name](Scenario.model_validate(told), Victim(stack, containers, service))

    return make


@pytest.mark.parametrize(
    ("name", "begun", "undone"),
    [
        ("kill", [["docker", "kill"]], []),
        ("stop", [["docker", "stop"]], []),
        ("pause", [["docker", "pause"]], [["docker", "unpause"]]),
    ],
)
def test_containers_are_met_with_dockers_commands(
    made: Made, commands: list[list[str]], name: str, begun: list[Any], undone: list[Any]
) -> None:
    fault = made(name, **({"lasts": 3} if name == "pause" else {}))
    container = f"{PROJECT}-pc-1-1"

    fault.begin()
    assert commands == [[*command, container] for command in begun]
    fault.end()
    assert commands[len(begun) :] == [[*command, container] for command in undone]


def test_a_process_is_killed_by_its_place_among_those_of_the_container(tmp_path: Path) -> None:
    """The script itself, in a shell, on a tree of processes that is a tree of files."""
    from fedbench.host.chaos.processes import _KILL_DESCENDANT  # noqa: PLC0415

    for pid, children in ((1, "7 "), (7, "8 9 "), (8, "12 ")):
        folder = tmp_path / str(pid) / "task" / str(pid)
        folder.mkdir(parents=True)
        (folder / "children").write_text(children)
    for generation, pid in ((1, "7"), (2, "8"), (3, "12")):
        script = _KILL_DESCENDANT.format(generation).replace("/proc", str(tmp_path))
        script = script.replace("kill -9", "echo")
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == pid


def test_a_script_that_fails_is_no_fault(made: Made, containers: FakeContainers) -> None:
    crash = made("crash", process="worker")
    containers.answers["kill -9"] = CommandAnswer(137, "")
    crash.begin()  # it died of it
    containers.answers["kill -9"] = CommandAnswer(1, "sh: no such process")

    with pytest.raises(DockerError, match=r"pc-1: .* failed: sh: no such process"):
        crash.begin()


def test_memory_is_taken_and_given_back(
    made: Made, stack: Stack, containers: FakeContainers, commands: list[list[str]]
) -> None:
    containers.answers["usage_in_bytes"] = CommandAnswer(0, f"{300 * 2**20}\n")
    (planned,) = (plan.memory for plan in stack.clients if plan.name == "pc-1")

    made("out-of-memory").begin()

    little, much = (command[command.index("--memory") + 1] for command in commands)
    assert (little, much) == (f"{332 * 2**20}b", f"{planned}b")
    for command in commands:
        assert command[:2] == ["docker", "update"]
        assert command[command.index("--memory-swap") + 1] in (little, much)
    assert [operation for operation, _ in containers.calls] == ["execute", "execute"]


def test_cpus_are_taken_and_given_back(
    made: Made, stack: Stack, containers: FakeContainers
) -> None:
    starve = made("starve", lasts=3, share="20%")
    (planned,) = (plan.quota for plan in stack.clients if plan.name == "pc-1")

    starve.begin()
    starve.end()

    assert containers.quotas == {"pc-1": [pytest.approx(planned / 5, abs=1), planned]}


def orders(containers: FakeContainers) -> list[dict[str, Any]]:
    return [json.loads(helper.command[-1]) for helper in containers.helpers]


def test_a_link_is_taken_down_and_up_by_a_helper(made: Made, containers: FakeContainers) -> None:
    cut = made("cut", lasts=3)
    pid = containers.get("pc-1").pid

    cut.begin()
    cut.end()

    assert orders(containers) == [
        {"switch": {"pid": pid, "up": False}},
        {"switch": {"pid": pid, "up": True}},
    ]
    assert all("NET_ADMIN" in helper.capabilities for helper in containers.helpers)


def test_a_link_is_slowed_and_then_as_planned(made: Made, containers: FakeContainers) -> None:
    slow = made("link", lasts=3, network={"down": "2Mbit"})
    pid = containers.get("pc-1").pid

    slow.begin()
    slow.end()

    slowed, planned = (order["shape"] for order in orders(containers))
    assert slowed == [{"pid": pid, **Network(down=2e6).model_dump()}]
    assert planned == [{"pid": pid}]


def test_a_kernel_that_lacks_something_skips_a_scenario(
    made: Made, containers: FakeContainers
) -> None:
    def helper(_: HelperContainer) -> CommandAnswer:
        return CommandAnswer(0, json.dumps({"tbf": True, "ifb": True, "netem": False}))

    containers.helper = helper

    late = made("link", lasts=3, network={"delay": "500ms"})
    assert late.impossible() == "delay 500 ms is not applied: this kernel has no netem"
    assert made("link", lasts=3, network={"up": "2Mbit"}).impossible() is None


def test_only_a_client_that_was_started_for_it_can_misbehave(
    made: Made, containers: FakeContainers
) -> None:
    bad = made("misbehave", FAULTY, misbehaviour="nan")

    containers.run(FAULTY, "python -m fedbench.client")
    assert bad.impossible() == "faulty was not started to misbehave"
    containers.run(FAULTY, "python -m fedbench.client.faulty")
    assert bad.impossible() is None
    containers.drop(FAULTY)
    assert "profile chaos has faulty" in (bad.impossible() or "")


def test_what_to_do_wrong_is_told_in_a_file_and_when_it_was_done(
    made: Made, containers: FakeContainers
) -> None:
    told: list[str] = []
    execute = containers.execute

    def heard(container: Any, command: Any) -> CommandAnswer:
        told.append(command[-1])
        return execute(container, command)

    containers.execute = heard  # type: ignore[method-assign]
    late = made("misbehave", FAULTY, misbehaviour="late", lasts=20)
    late.begin()
    assert told == ["echo late 20 > /tmp/misbehaviour"]
    assert late.began() is None
    containers.answers["cat /tmp/misbehaved"] = CommandAnswer(0, "1767323045.5\n")
    assert late.began() == datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    late.clear()
    assert told[-1] == "rm -f /tmp/misbehaviour /tmp/misbehaved"


def test_the_client_that_can_misbehave_is_started_once(
    stack: Stack, containers: FakeContainers, commands: list[list[str]]
) -> None:
    containers.run(FAULTY, "python -m fedbench.client.faulty")
    misbehaviour.start_faulty(stack, containers)
    assert commands == []

    containers.run(FAULTY, "python -m fedbench.client")
    misbehaviour.start_faulty(stack, containers)

    override = stack.places.state / "chaos.yaml"
    (command,) = commands
    assert command[-6:] == ["--file", str(override), "up", "--detach", "--no-build", FAULTY]
    services = yaml.safe_load(override.read_text())["services"]
    command = ["python", "-m", "fedbench.client.faulty"]
    assert services == {FAULTY: {"command": command, "image": "sha256:abc"}}


def test_who_watches_over_the_run_is_killed_and_known_by_another(
    made: Made, tmp_path: Path
) -> None:
    module, run = "fedbench.engines.containers.governor", Run(tmp_path / "run")

    def watching(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", "read -r _", module, str(folder)], stdin=-1)

    unwatch = made("unwatch", "governor")
    unwatch.prepare(run)
    unwatch.look()
    with pytest.raises(HostError, match="nobody watches over run run"):
        unwatch.begin()
    with watching(run.path) as ours, watching(tmp_path / "other") as other:
        unwatch.look()
        unwatch.begin()
        assert ours.wait(10) == -signal.SIGKILL
        assert unwatch.noticed() is None
        with watching(run.path) as again:
            assert unwatch.noticed() == "it is started again"
            again.kill()
        assert other.poll() is None
        other.kill()


def test_a_clock_is_nobodys_alone(made: Made) -> None:
    assert "its host's clock" in (made("clock", "server").impossible() or "")


class TestDisk:
    """Without mounts: the folder itself is the small disk."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Run:
        run = Run(tmp_path / "run")
        run.path.mkdir()
        (run.path / "run.json").write_text("{}")
        return run

    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, left = os.write, [3]

        def write(descriptor: int, content: bytes) -> int:
            if len(content) < 2**20:
                return real(descriptor, content)
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "no space left")
            return real(descriptor, content[:10])

        monkeypatch.setattr(os, "write", write)

    def test_a_run_moves_to_a_small_disk_and_back(
        self, made: Made, commands: list[list[str]], run: Run
    ) -> None:
        disk_full = made("disk-full", "server")
        disk_full.prepare(run)
        (run.path / "rounds.jsonl").write_text("recorded\n")
        disk_full.clear()
        disk_full.clear()  # once is enough

        assert [command[0] for command in commands] == ["mount", "docker", "umount"]
        assert commands[0][-1] == commands[2][-1] == str(run.path)
        assert "size=64m" in commands[0]
        assert (run.path / "run.json").read_text() == "{}"
        assert (run.path / "rounds.jsonl").read_text() == "recorded\n"

    def test_it_is_filled_to_the_last_byte_and_emptied(
        self, made: Made, run: Run, full: None
    ) -> None:
        disk_full = made("disk-full", "server")
        disk_full.prepare(run)

        disk_full.begin()
        assert (run.path / "filler").stat().st_size == 30
        disk_full.end()
        assert not (run.path / "filler").exists()

    def test_who_may_not_mount_skips_it(
        self, made: Made, containers: FakeContainers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert "only root" in (made("disk-full", "server").impossible() or "")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert made("disk-full", "server").impossible() is None

        def refused(*_: object) -> None:
            raise DockerError("`mount` failed: permission denied")

        monkeypatch.setattr(disk, "run_command", refused)
        assert "permission denied" in (made("disk-full", "server").impossible() or "")
        containers.local = False
        assert "only root" in (made("disk-full", "server").impossible() or "")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount"
)
def test_a_real_small_disk_is_full_and_has_room_again(
    stack: Stack, containers: FakeContainers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"name": "one", "description": "a fault", "fault": "disk-full", "who": "server"}
    fault = disk.DiskFull(Scenario.model_validate(told), Victim(stack, containers, "server"))
    monkeypatch.setattr(disk, "_SIZE", "1m")
    monkeypatch.setattr(victim, "run_command", lambda *_: None)
    if reason := fault.impossible():
        pytest.skip(reason)
    run = Run(tmp_path / "run")
    run.path.mkdir()
    (run.path / "run.json").write_text("{}")
    fault.prepare(run)
    try:
        fault.begin()
        with pytest.raises(OSError, match="No space left"):
            (run.path / "events.jsonl").write_bytes(bytes(9000))
        fault.end()
        (run.path / "events.jsonl").write_bytes(bytes(9000))
    finally:
        fault.clear()
    assert not run.path.is_mount()
    assert (run.path / "events.jsonl").stat().st_size == 9000
