"""Finds Docker, or installs and starts it where that is possible; then the images.

Where a Docker answers, it is used as it is: whichever DOCKER_HOST or the current context names.
A daemon that fedbench starts is recorded in /run/fedbench, and only that one is ever stopped.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import docker
import psutil
from docker.errors import DockerException

from fedbench.errors import DockerError, InUseError
from fedbench.host.say import Say
from fedbench.host.setup.images import (
    Images,
    alone_on_host,
    daemon_kept,
    ensure_client_image,
    ensure_images,
)
from fedbench.host.setup.locks import host_lock, locked
from fedbench.host.setup.machine import LOCAL_SOCKET, HostMachine
from fedbench.records.files import UNREADABLE

__all__ = [
    "Images",
    "alone_on_host",
    "daemon_is_ours",
    "docker_session",
    "ensure_client_image",
    "ensure_docker",
    "ensure_images",
    "find_docker",
    "stop_daemon",
]

_SCRIPTS = Path(__file__).resolve().parents[3] / "docker" / "host"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_MINIMUM_API = (1, 44)  # Engine 25: `start_interval` of health checks
_MINIMUM_COMPOSE = (2, 20)  # `include`
_INSTALL_HINT = (
    "install Docker Engine 25 or newer with Compose 2.20 or newer: "
    "https://docs.docker.com/engine/install/"
)


def ensure_docker(say: Say, machine: HostMachine | None = None) -> docker.DockerClient:
    """Return a client of a Docker daemon that can run a federation.

    Raises:
        DockerError: there is none and it cannot be started or installed here, or it is too
            old, or Compose or BuildKit is missing.
    """
    machine = machine or HostMachine()
    try:
        client = machine.connect()
    except DockerException as error:
        _refuse_if_not_ours_to_start(machine, error)
        with host_lock(say):
            client = find_docker(machine) or _start(say, machine)
    try:
        _check(client, machine)
    except DockerError:
        client.close()
        raise
    return client


@contextmanager
def docker_session(say: Say, machine: HostMachine | None = None) -> Iterator[docker.DockerClient]:
    """Give a client of a Docker daemon that no other fedbench stops meanwhile.

    Whoever leaves a daemon that fedbench started stops it, if no container runs and nobody else
    needs it: who started it, and in which order they leave, does not matter.

    Raises:
        DockerError: as `ensure_docker`.
    """
    machine = machine or HostMachine()
    with ExitStack() as session:
        with alone_on_host(say, machine):
            client = ensure_docker(say, machine)
            session.callback(stop_daemon, say, machine)
            session.enter_context(closing(client))
            session.enter_context(daemon_kept(machine))
        yield client


def find_docker(machine: HostMachine | None = None) -> docker.DockerClient | None:
    """Return a client of the daemon that answers; None where none does."""
    try:
        return (machine or HostMachine()).connect()
    except DockerException:
        return None


def daemon_is_ours(machine: HostMachine | None = None) -> bool:
    """Return whether a daemon runs here that fedbench started."""
    return _recorded(machine or HostMachine()) is not None


def daemon_died(machine: HostMachine | None = None) -> bool:
    """Return whether a daemon that fedbench started here ended, and nobody told it to."""
    machine = machine or HostMachine()
    return machine.daemon_record.exists() and _recorded(machine) is None


def stop_daemon(say: Say, machine: HostMachine | None = None) -> bool:
    """Stop the daemon that fedbench started, if no container runs; return whether it did.

    One that another fedbench needs right now goes on.
    """
    machine = machine or HostMachine()
    if not daemon_is_ours(machine):
        return False
    try:
        with host_lock(), locked(machine.daemon_record, wait=False):
            return _stop_unless_used(say, machine)
    except (BlockingIOError, InUseError):
        say("the Docker daemon goes on: another fedbench needs it")
    except FileNotFoundError:  # another has stopped it a moment ago
        pass
    return False


def _stop_unless_used(say: Say, machine: HostMachine) -> bool:
    daemon = _recorded(machine)
    if daemon is None or _runs_containers(machine):
        return False
    say("stopping the Docker daemon that fedbench started")
    _stop(daemon)
    machine.daemon_record.unlink()
    return True


def _runs_containers(machine: HostMachine) -> bool:
    client = find_docker(machine)
    if client is None:
        return False
    with closing(client):
        return bool(client.containers.list(ignore_removed=True))


def _stop(daemon: psutil.Process) -> None:
    children = daemon.children(recursive=True)  # containerd, which normally ends with its daemon
    for family in ([daemon], children):
        for process in _wait_until_gone(family, 0.0):
            process.terminate()
        for process in _wait_until_gone(family, _STOP_SECONDS):
            process.kill()


def _refuse_if_not_ours_to_start(machine: HostMachine, error: DockerException) -> None:
    if "Permission denied" in str(error):
        raise DockerError(
            f"no permission to use the Docker daemon at {machine.endpoint}",
            "join its group, then log in again: sudo usermod -aG docker $USER",
        )
    if machine.endpoint != LOCAL_SOCKET:
        raise DockerError(
            f"no Docker daemon answers at {machine.endpoint}",
            "start it, or choose another one: unset DOCKER_HOST, or `docker context use default`",
        )


def _start(say: Say, machine: HostMachine) -> docker.DockerClient:
    if machine.which("dockerd") is None:
        _install(say, machine)
    if not machine.is_root:
        raise DockerError(
            "the Docker daemon is not running", "start it: sudo systemctl start docker"
        )
    if machine.has_systemd:
        return _start_with_systemd(say, machine)
    return _start_by_hand(say, machine)


def _install(say: Say, machine: HostMachine) -> None:
    if not machine.can_install:
        raise DockerError("Docker is not installed", _INSTALL_HINT)
    say("Docker is not installed: taking Engine, Compose and buildx from the distribution")
    if not machine.confirm("Install them now? [y/N] "):
        raise DockerError("Docker is not installed", _INSTALL_HINT)
    done = machine.execute([str(_SCRIPTS / "install-docker.sh")])
    if done.code:
        raise DockerError(f"Docker could not be installed:\n{done.tail()}", _INSTALL_HINT)


def _start_with_systemd(say: Say, machine: HostMachine) -> docker.DockerClient:
    say("starting the Docker daemon: systemctl start docker")
    done = machine.execute(["systemctl", "start", "docker"])
    client = _wait_for_answer(machine, lambda: done.code == 0)
    if client is None:
        raise DockerError(
            f"the Docker daemon does not start:\n{done.tail()}", "see: journalctl --unit docker"
        )
    return client


def _start_by_hand(say: Say, machine: HostMachine) -> docker.DockerClient:
    log = machine.state / "dockerd.log"
    say(f"starting the Docker daemon (log: {log})")
    machine.state.mkdir(parents=True, exist_ok=True)
    # In a session of its own, so that Ctrl-C here does not reach it.
    done = machine.execute(
        ["sh", "-c", 'setsid dockerd >"$1" 2>&1 </dev/null & echo $!', "sh", str(log)]
    )
    client = None
    with suppress(psutil.NoSuchProcess):  # it may have ended already
        daemon = psutil.Process(int(done.output))
        record = {"pid": daemon.pid, "created": daemon.create_time()}
        machine.daemon_record.write_text(json.dumps(record))
        client = _wait_for_answer(machine, lambda: _alive(daemon))
    if client is None:
        tail = "\n".join(log.read_text().splitlines()[-5:])
        raise DockerError(f"the Docker daemon does not start:\n{tail}", f"see {log}")
    return client


def _wait_for_answer(
    machine: HostMachine, may_come: Callable[[], bool]
) -> docker.DockerClient | None:
    deadline = time.monotonic() + _START_SECONDS
    while may_come() and time.monotonic() < deadline:
        if client := find_docker(machine):
            return client
        time.sleep(0.1)
    return None


def _check(client: docker.DockerClient, machine: HostMachine) -> None:
    version = client.version()
    if _numbers(version["ApiVersion"]) < _MINIMUM_API:
        raise DockerError(
            f"the Docker daemon is too old: Engine {version['Version']}, API "
            f"{version['ApiVersion']}; expected Engine 25, API 1.44 or newer",
            _INSTALL_HINT,
        )
    compose = machine.execute(["docker", "compose", "version", "--short"])
    if compose.code == 127:
        raise DockerError("the command `docker` is missing; a daemon is there", _INSTALL_HINT)
    if compose.code:
        raise DockerError("Docker Compose is missing: `docker compose` fails", _INSTALL_HINT)
    if _numbers(compose.tail(1)) < _MINIMUM_COMPOSE:
        raise DockerError(
            f"Docker Compose is too old: {compose.tail(1)}; expected 2.20 or newer", _INSTALL_HINT
        )
    if machine.execute(["docker", "buildx", "version"]).code:
        raise DockerError(
            "BuildKit's command line is missing: `docker buildx` fails",
            "install the package docker-buildx (Debian, Ubuntu) or docker-buildx-plugin (Docker)",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _recorded(machine: HostMachine) -> psutil.Process | None:
    """Return the recorded daemon, unless it ended; a later process of the same pid is not it."""
    try:
        record = json.loads(machine.daemon_record.read_text())
        process = psutil.Process(record["pid"])
        created = record["created"]
    except (FileNotFoundError, psutil.NoSuchProcess, *UNREADABLE):
        return None  # one that is damaged is as good as none
    ours = process.create_time() == created
    return process if ours and _alive(process) else None


def _alive(process: psutil.Process) -> bool:
    """Not ended; one that waits for init to collect it has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until_gone(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _alive(process)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    return alive
