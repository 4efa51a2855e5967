"""What the bootstrap asks of this machine, in one place: a test passes another machine."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import docker
import requests
from docker.context import ContextAPI
from docker.errors import DockerException

from fedbench.host.say import Say

LOCAL_SOCKET = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Done:
    """A finished command. `output` is stdout and stderr as they came.

    As in a shell, code 127 means that there is no such program, and 124 that time ran out.
    """

    code: int
    output: str = ""

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the output."""
        return "\n".join(self.output.strip().splitlines()[-lines:])


class Execute(Protocol):
    """Runs a command; see `execute`."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        on_line: Say | None = None,
        timeout: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run `argv`."""
        ...


def execute(
    argv: Sequence[str],
    *,
    on_line: Say | None = None,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a command for at most `timeout` seconds and give every line to `on_line` as it comes.

    `environment` is added to that of this process.
    """
    try:
        process = subprocess.Popen(
            argv, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        return Done(127, f"{argv[0]}: command not found")
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(timeout or 0.0, stop)
    if timeout is not None:
        timer.start()
    lines = []
    try:
        with process:
            for line in process.stdout or ():
                lines.append(line)
                if on_line:
                    on_line(line.rstrip("\n"))
    finally:
        timer.cancel()
    if timed_out.is_set():
        return Done(124, "".join(lines) + f"{argv[0]}: no end after {timeout:.0f} s\n")
    return Done(process.returncode, "".join(lines))


def _endpoint() -> str:
    return os.environ.get("DOCKER_HOST") or str(
        ContextAPI.kwargs_from_context().get("base_url", LOCAL_SOCKET)
    )


def _connect() -> docker.DockerClient:
    endpoint = _endpoint()
    if endpoint.startswith("unix://"):
        _knock(endpoint.removeprefix("unix://"))
    return docker.from_env(use_ssh_client=endpoint.startswith("ssh://"))


def _knock(path: str) -> None:
    # The SDK leaves its socket open where nobody answers.
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(path)
        except OSError as error:
            raise DockerException(str(error)) from None


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return platform.system()


def _confirm(question: str) -> bool:
    if os.environ.get("FEDBENCH_YES") or not sys.stdin.isatty():
        return True
    return input(question).strip().lower() in ("y", "yes")


def _reachable(url: str) -> bool:
    try:
        return requests.head(url, timeout=3, allow_redirects=True).ok
    except requests.RequestException:
        return False


@dataclass(frozen=True)
class HostMachine:
    """The machine, and the rights that this process has on it.

    `endpoint` is that of DOCKER_HOST or of the current context, as for the CLI; `connect` raises
    `docker.errors.DockerException` when no daemon answers there.
    """

    execute: Execute = execute
    endpoint: str = field(default_factory=_endpoint)
    connect: Callable[[], docker.DockerClient] = _connect
    which: Callable[[str], str | None] = shutil.which
    confirm: Callable[[str], bool] = _confirm
    reachable: Callable[[str], bool] = _reachable
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    has_systemd: bool = field(default_factory=Path("/run/systemd/system").is_dir)
    distribution: str = field(default_factory=_distribution)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    state: Path = Path("/run/fedbench")

    @property
    def daemon_record(self) -> Path:
        """Return the record of a daemon that fedbench started; whoever builds with it locks it."""
        return self.state / "dockerd.json"

    @property
    def can_install(self) -> bool:
        """True where the scripts in docker/host/ work."""
        return self.is_root and self.distribution in ("debian", "ubuntu")


def cpu_model() -> str:
    """Name the processor, as the kernel names it where it does."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
