"""A container in which training is measured: one request at a time, limits changed in between."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from fedbench.engines.containers.runtime.containers import UNLIMITED, Containers
from fedbench.engines.containers.runtime.stack import container_user
from fedbench.errors import DockerError
from fedbench.host.plan.client_container import ClientContainer, run_options
from fedbench.host.setup.places import PROJECT
from fedbench.learning import user_models
from fedbench.records.measurement import Measurement, parse

NAME = f"{PROJECT}-calibrate"
WORKLOAD = "fedbench.client.workload"
PERIOD = 100_000  # of the kernel's scheduler, in microseconds


def docker_run(image: str, *options: str) -> list[str]:
    """Return the command that runs the workload in a client's container; arguments may follow.

    It has no network and, unless `options` say so, no limits.
    """
    container = ClientContainer(
        image=image,
        user=container_user(),
        models=user_models.FOLDER,
        command=("python", "-m", WORKLOAD),
    )
    flags = [*run_options(container), "--network=none", *options]
    return ["docker", "run", *flags, image, *container.command]


@dataclass(frozen=True)
class Workbench:
    """The container, while it is up."""

    containers: Containers
    process: subprocess.Popen[str]
    errors: IO[str]

    def measure(
        self, model: str, *, threads: int, seconds: float, copies: int = 1
    ) -> list[Measurement]:
        """Train in `copies` processes at once, each with as many cores of its own as threads.

        Raises:
            ConfigError: there is no such model, or it cannot be trained.
            DockerError: the container ended, with its last lines.
        """
        self._ask(f"{model} --threads={threads} --copies={copies} --seconds={seconds:g}")
        return [parse(self.answer()) for _ in range(copies)]

    def compare(self, model: str, other: str, *, seconds: float) -> tuple[Measurement, Measurement]:
        """Train two models in turns, on one core and with one thread each.

        Raises:
            ConfigError, DockerError: as `measure`.
        """
        self._ask(f"{model} --against={other} --threads=1 --seconds={seconds:g}")
        return parse(self.answer()), parse(self.answer())

    def _ask(self, request: str) -> None:
        assert self.process.stdin  # noqa: S101 (a pipe)
        try:
            self.process.stdin.write(f"{request}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self) -> str:
        """Return the next line that the workload prints.

        Raises:
            DockerError: it ended, with its last lines.
        """
        assert self.process.stdout  # noqa: S101 (a pipe)
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        return line

    @contextmanager
    def quota(self, cpus: float) -> Iterator[None]:
        """Give the whole container so many CPUs for the length of the block.

        Raises:
            DockerError: Docker cannot set it.
        """
        self._set_quota(round(cpus * PERIOD))
        yield
        self._set_quota(UNLIMITED)

    def _set_quota(self, quota: int) -> None:
        container = self.containers.named(NAME)
        if container is None:
            raise DockerError(f"{NAME}: its CPU quota cannot be changed: it is not there")
        self.containers.set_quota(container, PERIOD, quota)

    def _ended(self) -> DockerError:
        self.process.wait()
        self.errors.seek(0)
        tail = "\n".join(self.errors.read().strip().splitlines()[-10:])
        return DockerError(f"container {NAME} ended with code {self.process.returncode}:\n{tail}")


@contextmanager
def workbench(containers: Containers, image: str) -> Iterator[Workbench]:
    """Start a container that measures; it ends when this process closes its input, or dies.

    Raises:
        DockerError: it does not start.
    """
    argv = docker_run(image, "--interactive", f"--name={NAME}")
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as process:  # fmt: skip
        bench = Workbench(containers, process, errors)
        bench.answer()  # `ready`
        yield bench
