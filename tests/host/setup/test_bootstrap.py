from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest
from docker.errors import DockerException

from fedbench.errors import DockerError
from fedbench.host.setup import bootstrap
from fedbench.host.setup.locks import locked
from fedbench.host.setup.machine import LOCAL_SOCKET, Done, HostMachine, execute

CHECKS = [["docker", "compose", "version", "--short"], ["docker", "buildx", "version"]]
ROOT = Path(__file__).resolve().parents[3]


def nobody_answers() -> docker.DockerClient:
    raise DockerException("[Errno 2] No such file or directory")


def after(failures: int, connect: Callable[[], docker.DockerClient]) -> Any:
    """A `connect` that fails so often first."""
    attempts = iter(range(failures))

    def attempt() -> docker.DockerClient:
        return nobody_answers() if next(attempts, None) is not None else connect()

    return attempt


@pytest.fixture
def machine(commands: Any, daemon: Any, own_host: Path, tmp_path: Path) -> HostMachine:
    """A Debian host without systemd, with a daemon that runs; this process is root."""
    return HostMachine(
        execute=commands,
        endpoint=LOCAL_SOCKET,
        connect=daemon.connect,
        which=lambda name: f"/usr/sbin/{name}",
        confirm=lambda _: True,
        is_root=True,
        has_systemd=False,
        distribution="debian",
        environment={},
        state=tmp_path / "state",
    )


@pytest.fixture
def without_daemon(machine: HostMachine) -> HostMachine:
    return replace(machine, connect=nobody_answers)


def refusal(machine: HostMachine) -> tuple[str, str]:
    with pytest.raises(DockerError) as caught:
        bootstrap.ensure_docker(lambda _: None, machine)
    assert caught.value.exit_code == 3
    return caught.value.message, caught.value.hint


def test_a_daemon_that_answers_is_used_silently(machine: HostMachine, commands: Any) -> None:
    said: list[str] = []
    client = bootstrap.ensure_docker(said.append, machine)
    assert client.version()["Version"] == "26.1.5"
    client.close()
    assert commands.calls == CHECKS
    assert said == []
    assert not bootstrap.daemon_is_ours(machine)


def test_find_docker_starts_nothing(machine: HostMachine, commands: Any) -> None:
    client = bootstrap.find_docker(machine)
    assert client is not None
    client.close()
    assert bootstrap.find_docker(replace(machine, connect=nobody_answers)) is None
    assert commands.calls == []


def test_engine_too_old(machine: HostMachine, daemon: Any) -> None:
    daemon.version = {"Version": "20.10.24", "ApiVersion": "1.41"}
    message, hint = refusal(machine)
    assert message == (
        "the Docker daemon is too old: Engine 20.10.24, API 1.41; "
        "expected Engine 25, API 1.44 or newer"
    )
    assert "https://docs.docker.com/engine/install/" in hint


@pytest.mark.parametrize(
    ("command", "answer", "expected"),
    [
        ("compose", Done(127), "the command `docker` is missing; a daemon is there"),
        ("compose", Done(1), "Docker Compose is missing: `docker compose` fails"),
        ("compose", Done(0, "v2.19\n"), "Docker Compose is too old: v2.19; expected 2.20 or newer"),
        ("buildx", Done(1), "BuildKit's command line is missing: `docker buildx` fails"),
    ],
)  # fmt: skip
def test_command_line_not_complete(
    machine: HostMachine, commands: Any, command: str, answer: Done, expected: str
) -> None:
    commands.answers[f"docker {command} version"] = answer
    assert refusal(machine)[0] == expected


def test_no_permission(without_daemon: HostMachine) -> None:
    def forbidden() -> docker.DockerClient:
        raise DockerException(
            "Error: ('Connection aborted.', PermissionError(13, 'Permission denied'))"
        )

    message, hint = refusal(replace(without_daemon, connect=forbidden, is_root=False))
    assert message == f"no permission to use the Docker daemon at {LOCAL_SOCKET}"
    assert "usermod -aG docker" in hint


def test_a_daemon_elsewhere_is_never_replaced_by_a_local_one(
    without_daemon: HostMachine, commands: Any
) -> None:
    message, hint = refusal(replace(without_daemon, endpoint="tcp://lab:2376"))
    assert message == "no Docker daemon answers at tcp://lab:2376"
    assert "DOCKER_HOST" in hint
    assert commands.calls == []


@pytest.mark.parametrize(
    "change",
    [{"is_root": False}, {"distribution": "fedora"}, {"confirm": lambda _: False}],
    ids=["not root", "not Debian", "declined"],
)
def test_not_installed(without_daemon: HostMachine, commands: Any, change: dict[str, Any]) -> None:
    message, hint = refusal(replace(without_daemon, which=lambda _: None, **change))
    assert message == "Docker is not installed"
    assert hint.startswith("install Docker Engine 25 or newer with Compose 2.20 or newer")
    assert commands.calls == []


def test_installation_fails(without_daemon: HostMachine, commands: Any) -> None:
    commands.answers["install-docker.sh"] = Done(100, "E: Unable to locate package docker.io\n")
    message, _ = refusal(replace(without_daemon, which=lambda _: None))
    assert message == "Docker could not be installed:\nE: Unable to locate package docker.io"


def test_not_running_and_not_root(without_daemon: HostMachine) -> None:
    assert refusal(replace(without_daemon, is_root=False)) == (
        "the Docker daemon is not running",
        "start it: sudo systemctl start docker",
    )


def test_systemd_starts_it(without_daemon: HostMachine, commands: Any, daemon: Any) -> None:
    said: list[str] = []
    machine = replace(without_daemon, has_systemd=True, connect=after(2, daemon.connect))
    bootstrap.ensure_docker(said.append, machine).close()
    assert commands.calls == [["systemctl", "start", "docker"], *CHECKS]
    assert said == ["starting the Docker daemon: systemctl start docker"]
    assert not bootstrap.daemon_is_ours(machine)


def test_systemd_cannot_start_it(without_daemon: HostMachine, commands: Any) -> None:
    commands.answers["systemctl"] = Done(1, "Job for docker.service failed.\n")
    message, hint = refusal(replace(without_daemon, has_systemd=True))
    assert message == "the Docker daemon does not start:\nJob for docker.service failed."
    assert hint == "see: journalctl --unit docker"


@pytest.fixture
def fake_dockerd(
    without_daemon: HostMachine, commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], HostMachine]:
    """A machine whose `dockerd` is a real process that runs the given shell line."""

    def make(line: str) -> HostMachine:
        program = tmp_path / "bin" / "dockerd"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

        def run(argv: list[str], **options: Any) -> Done:
            done: Done = commands(argv, **options)
            return execute(argv, **options) if argv[0] == "sh" else done

        return replace(without_daemon, execute=run)

    return make


def test_installs_and_starts_by_hand_and_stops_only_that_daemon(
    fake_dockerd: Callable[[str], HostMachine], commands: Any, daemon: Any
) -> None:
    machine = replace(
        fake_dockerd("sleep 600 & exec sleep 600"),
        connect=after(4, daemon.connect),
        which=lambda _: None,
    )
    said: list[str] = []
    bootstrap.ensure_docker(said.append, machine).close()
    assert commands.calls[:1] == [[str(ROOT / "docker/host/install-docker.sh")]]
    assert commands.calls[2:] == CHECKS
    assert said == [
        "Docker is not installed: taking Engine, Compose and buildx from the distribution",
        f"starting the Docker daemon (log: {machine.state}/dockerd.log)",
    ]
    assert bootstrap.daemon_is_ours(machine)

    pid = json.loads((machine.state / "dockerd.json").read_text())["pid"]
    assert os.getsid(pid) == pid
    family = [psutil.Process(pid), *psutil.Process(pid).children()]
    assert len(family) == 2
    assert bootstrap.stop_daemon(said.append, machine)
    assert not any(process.is_running() and process.status() != "zombie" for process in family)
    assert not bootstrap.daemon_is_ours(machine)
    assert not bootstrap.stop_daemon(said.append, machine)


def test_a_daemon_that_another_fedbench_needs_goes_on(
    fake_dockerd: Callable[[str], HostMachine], daemon: Any, held: Any
) -> None:
    machine = replace(fake_dockerd("exec sleep 600"), connect=after(2, daemon.connect))
    bootstrap.ensure_docker(lambda _: None, machine).close()
    said: list[str] = []
    with held(machine.daemon_record, "shared"):
        assert not bootstrap.stop_daemon(said.append, machine)
        assert bootstrap.daemon_is_ours(machine)
    assert said == ["the Docker daemon goes on: another fedbench needs it"]
    assert bootstrap.stop_daemon(said.append, machine)
    assert not bootstrap.daemon_is_ours(machine)


def test_no_other_stops_the_daemon_of_a_session_and_its_end_does(
    fake_dockerd: Callable[[str], HostMachine], daemon: Any
) -> None:
    """As a benchmark needs it, between two parts that each take their federation down."""
    machine = replace(fake_dockerd("exec sleep 600"), connect=after(2, daemon.connect))
    said: list[str] = []
    with bootstrap.docker_session(said.append, machine) as client:
        assert client.version()["Version"] == "26.1.5"
        assert not bootstrap.stop_daemon(said.append, machine)
        assert bootstrap.daemon_is_ours(machine)
    assert not bootstrap.daemon_is_ours(machine)
    assert said[1:] == [
        "the Docker daemon goes on: another fedbench needs it",
        "stopping the Docker daemon that fedbench started",
    ]


def test_a_session_leaves_the_daemon_to_those_who_still_need_it(
    fake_dockerd: Callable[[str], HostMachine], daemon: Any, held: Any
) -> None:
    machine = replace(fake_dockerd("exec sleep 600"), connect=after(2, daemon.connect))
    with bootstrap.docker_session(lambda _: None, machine):
        daemon.running = ["postgres"]
    assert bootstrap.daemon_is_ours(machine)

    daemon.running = []
    with (
        held(machine.daemon_record, "shared"),
        bootstrap.docker_session(lambda _: None, machine),
    ):
        pass
    assert bootstrap.daemon_is_ours(machine)

    with pytest.raises(KeyboardInterrupt), bootstrap.docker_session(lambda _: None, machine):
        raise KeyboardInterrupt
    assert not bootstrap.daemon_is_ours(machine)


def test_a_session_does_not_stop_a_daemon_that_others_started(
    machine: HostMachine, commands: Any
) -> None:
    with bootstrap.docker_session(lambda _: None, machine):
        pass
    assert commands.calls == CHECKS


def test_the_daemon_ends_at_once(fake_dockerd: Callable[[str], HostMachine]) -> None:
    machine = fake_dockerd("echo no iptables; exit 1")
    message, hint = refusal(machine)
    assert message == "the Docker daemon does not start:\nno iptables"
    assert hint == f"see {machine.state}/dockerd.log"
    assert not bootstrap.daemon_is_ours(machine)


def test_another_process_with_the_recorded_pid_is_left_alone(machine: HostMachine) -> None:
    machine.state.mkdir()
    record = {"pid": os.getpid(), "created": psutil.Process().create_time() - 100}
    (machine.state / "dockerd.json").write_text(json.dumps(record))
    assert not bootstrap.daemon_is_ours(machine)
    assert not bootstrap.stop_daemon(lambda _: None, machine)


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"pid": "x", "created": 1}', "[" * 9999])
def test_a_damaged_record_of_a_daemon_is_as_good_as_none(record: str, machine: HostMachine) -> None:
    machine.state.mkdir()
    (machine.state / "dockerd.json").write_text(record)
    assert not bootstrap.daemon_is_ours(machine)


# -- two at once


def test_a_daemon_is_not_stopped_under_one_who_works_on_this_host(
    fake_dockerd: Callable[[str], HostMachine], daemon: Any, own_host: Path, held: Any
) -> None:
    """As `up` does between finding Docker and its first container."""
    machine = replace(fake_dockerd("exec sleep 600"), connect=after(2, daemon.connect))
    bootstrap.ensure_docker(lambda _: None, machine).close()
    said: list[str] = []
    with held(own_host / "host.lock", "named"):
        assert not bootstrap.stop_daemon(said.append, machine)
    assert said == ["the Docker daemon goes on: another fedbench needs it"]
    daemon.running = ["of-another-checkout"]  # since the one who takes down has looked
    assert not bootstrap.stop_daemon(said.append, machine)
    daemon.running = []
    assert bootstrap.stop_daemon(said.append, machine)


def test_alone_on_the_host_the_daemon_is_kept(machine: HostMachine, own_host: Path) -> None:
    machine.state.mkdir()
    machine.daemon_record.touch()
    with bootstrap.alone_on_host(lambda _: None, machine):
        for file, shared in ((machine.daemon_record, False), (own_host / "host.lock", True)):
            with pytest.raises(BlockingIOError), locked(file, shared=shared, wait=False):
                pass


def start(machine: HostMachine, barrier: Barrier, started: Path) -> None:
    def answer() -> docker.DockerClient:
        return connect() if started.exists() else nobody_answers()

    connect = machine.connect
    barrier.wait()
    bootstrap.ensure_docker(lambda _: None, replace(machine, connect=answer)).close()


def test_of_ten_pairs_at_once_one_starts_the_daemon(
    fake_dockerd: Callable[[str], HostMachine], daemon: Any, tmp_path: Path
) -> None:
    log = tmp_path / "daemons"
    machine = fake_dockerd(f"echo >>{log}; sleep 0.1; touch {tmp_path}/answers; exec sleep 600")
    machine = replace(machine, connect=daemon.connect)
    forked = multiprocessing.get_context("fork")
    for number in range(1, 11):
        barrier, answers = forked.Barrier(2), tmp_path / "answers"
        answers.unlink(missing_ok=True)
        pair = [forked.Process(target=start, args=(machine, barrier, answers)) for _ in range(2)]
        for process in pair:
            process.start()
        for process in pair:
            process.join()
        assert [process.exitcode for process in pair] == [0, 0]
        assert len(log.read_text().splitlines()) == number
        assert bootstrap.stop_daemon(lambda _: None, machine)
