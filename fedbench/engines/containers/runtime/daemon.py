"""The containers of a Docker daemon: the only module that talks to Docker about a federation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models import containers as models
from docker.types import LogConfig

from fedbench.engines.containers.runtime.containers import (
    JOINED_LABEL,
    PROJECT_LABEL,
    CommandAnswer,
    Container,
    ContainerHost,
    Containers,
    HelperContainer,
)
from fedbench.errors import DockerError
from fedbench.host.plan.client_container import ClientContainer
from fedbench.host.say import Say
from fedbench.host.setup import bootstrap
from fedbench.host.setup.machine import HostMachine


def connect(say: Say, machine: HostMachine | None = None) -> Containers:
    """Return the containers of a Docker daemon that can run a federation.

    Raises:
        DockerError: as `bootstrap.ensure_docker`.
    """
    return DockerContainers(bootstrap.ensure_docker(say, machine))


def find(machine: HostMachine | None = None) -> Containers | None:
    """Return the containers of the daemon that answers; None where none does."""
    client = bootstrap.find_docker(machine)
    return DockerContainers(client) if client else None


class DockerContainers:
    """Answers as `Containers` has it."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    @property
    def local(self) -> bool:
        """Tell whether the daemon answers on a socket of this machine."""
        return str(self._client.api.base_url).startswith("http+docker://")

    def host(self) -> ContainerHost:
        """Return Docker's machine; on a desktop that is its virtual one."""
        with _explained("Docker does not say what its host is"):
            info = self._client.info()
        nvidia = "nvidia" in info.get("Runtimes", {})
        return ContainerHost(
            cpus=int(info["NCPU"]),
            memory=int(info["MemTotal"]),
            gpus=sum(1 for _ in Path("/dev").glob("nvidia[0-9]*")) if nvidia else 0,
            cgroup_driver=info["CgroupDriver"],
            version=info["ServerVersion"],
            kernel=info["KernelVersion"],
            system=info["OperatingSystem"],
        )

    def image_labels(self, image: str) -> dict[str, str] | None:
        """Return the labels of an image; None where it is not here."""
        try:
            with _explained(f"Docker does not say what {image} is"):
                return dict(self._client.images.get(image).labels)
        except _GoneError:
            return None

    def of_project(self, project: str) -> list[Container]:
        """List a compose project's containers, stopped ones included."""
        return self._list(all=True, filters={"label": f"{PROJECT_LABEL}={project}"})

    def joined(self, project: str) -> list[Container]:
        """List the containers that joined a project from outside, stopped ones included."""
        return self._list(all=True, filters={"label": f"{JOINED_LABEL}={project}"})

    def named(self, name: str) -> Container | None:
        """Return the container of this name; None where there is none."""
        return next(iter(self._list(all=True, filters={"name": f"^{name}$"})), None)

    def running(self) -> list[str]:
        """List the names of all containers that run."""
        return [container.name for container in self._list()]

    def look(self, container: Container) -> Container:
        """Look at a container again."""
        with _explained(f"{container.name}: cannot be looked at"):
            return _container(self._get(container))

    def start(self, name: str, container: ClientContainer) -> Container:
        """Start a client that goes on by itself."""
        with _explained(f"container {name} does not start"):
            started = self._client.containers.run(detach=True, name=name, **sdk_options(container))
            return _container(started)

    def start_again(self, container: Container) -> None:
        """Start a container that has ended; nothing happens if it runs."""
        with _explained(f"{container.name}: does not start again"):
            self._get(container).start()

    def run_helper(self, helper: HelperContainer) -> CommandAnswer:
        """Run a short-lived container to its end, and remove it."""
        with _explained(f"{helper.image}: the helper cannot be run"):
            container = self._client.containers.run(
                helper.image,
                list(helper.command),
                detach=True,
                user="0:0",
                pid_mode="host",
                network_mode="none",
                cap_drop=["ALL"],
                cap_add=list(helper.capabilities),
                security_opt=list(helper.security_options),
                volumes=[f"{folder}:{folder}:rw" for folder in helper.mounts],
                read_only=True,
                cgroupns="host" if helper.host_cgroups else None,
            )
            try:
                code = container.wait()["StatusCode"]
                output = container.logs(stdout=True, stderr=False)
                errors = container.logs(stdout=False, stderr=True)
            finally:
                container.remove(force=True)
        return CommandAnswer(code, output.decode(), errors.decode(errors="replace"))

    def execute(self, container: Container, command: Sequence[str]) -> CommandAnswer:
        """Run a command in a container to its end; `errors` stays empty, the output has both."""
        with _explained(f"{container.name}: `{command[0]}` cannot be run"):
            code, output = self._get(container).exec_run(list(command))
        return CommandAnswer(code or 0, cast("bytes", output).decode(errors="replace"))

    def processes(self, container: Container) -> list[str]:
        """List the command lines of what runs in a container."""
        with _explained(f"{container.name}: its processes cannot be listed"):
            top = self._get(container).top()
        return [" ".join(process) for process in top["Processes"]]

    def set_quota(self, container: Container, period: int, quota: int) -> None:
        """Change a running container's CPU quota."""
        with _explained(f"{container.name}: its CPU quota cannot be changed"):
            self._get(container).update(cpu_period=period, cpu_quota=quota)

    def logs(
        self, container: Container, since: datetime | None = None, until: datetime | None = None
    ) -> list[str]:
        """Return what a container logged, each line after its time."""
        try:
            with _explained(f"the log of {container.service} cannot be had"):
                written = self._get(container).logs(
                    timestamps=True,
                    since=since and since.timestamp(),
                    until=until and until.timestamp(),
                )
        except _GoneError:  # removed since it was listed
            return []
        return [raw.decode(errors="replace") for raw in written.split(b"\n") if raw]

    def follow(self, container: Container, since: datetime) -> Iterator[str]:
        """Yield such lines as they come, wherever their packets end."""
        left = b""
        with suppress(DockerException, OSError):
            for chunk in self._get(container).logs(
                stream=True, follow=True, timestamps=True, since=since.timestamp()
            ):
                *whole, left = (left + chunk).split(b"\n")
                for raw in whole:
                    yield raw.decode(errors="replace")

    def tail(self, container: Container, lines: int) -> str:
        """Return the last lines that a container logged, without times."""
        with _explained(f"the log of {container.service} cannot be had"):
            written = self._get(container).logs(tail=lines)
        return written.decode(errors="replace").rstrip()

    def remove(self, container: Container, *, force: bool = False) -> None:
        """Remove a container; nothing happens if another did so."""
        with suppress(_GoneError), _explained(f"{container.name} cannot be removed"):
            self._get(container).remove(force=force)

    def _list(self, **options: Any) -> list[Container]:
        with _explained("Docker lists no containers"):  # one may go while they are looked at
            listed = self._client.containers.list(ignore_removed=True, **options)
            return [_container(container) for container in listed]

    def _get(self, container: Container) -> models.Container:
        return self._client.containers.get(container.id)


def sdk_options(container: ClientContainer) -> dict[str, Any]:
    """Return a client's container as the arguments of the library's `run`."""
    return {
        "image": container.image,
        "command": list(container.command),
        "hostname": container.hostname,
        "labels": dict(container.labels),
        "environment": dict(container.environment),
        "extra_hosts": dict(container.extra_hosts),
        "ports": {f"{inside}/tcp": outside for inside, outside in container.ports.items()},
        "cpu_period": container.cpu_period,
        "cpu_quota": container.cpu_quota,
        "mem_limit": container.memory,
        "memswap_limit": container.memory,
        "volumes": container.volumes,
        "user": container.user,
        "init": True,
        "read_only": True,
        "tmpfs": dict(container.tmpfs),
        "cap_drop": list(container.capabilities_dropped),
        "security_opt": list(container.security_options),
        "pids_limit": container.pids_limit,
        "restart_policy": {"Name": container.restart},
        "log_config": LogConfig(type=container.log_driver, config=dict(container.log_options)),
    }


class _GoneError(DockerError):
    """What was asked about is not there, or not any more."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise DockerError with `what` went wrong where Docker says no, or nothing."""
    try:
        yield
    except (NotFound, ImageNotFound) as error:
        raise _GoneError(f"{what}: {_reason(error)}") from None
    except (DockerException, OSError) as error:  # requests' own are OSErrors
        raise DockerError(f"{what}: {_reason(error)}") from None


def _reason(error: Exception) -> object:
    return error.explanation if isinstance(error, APIError) and error.explanation else error


def _container(listed: models.Container) -> Container:
    attrs: Mapping[str, Any] = listed.attrs
    state, limits = attrs["State"], attrs["HostConfig"]
    return Container(
        id=str(attrs["Id"]),
        name=attrs["Name"].removeprefix("/"),
        labels=attrs["Config"]["Labels"] or {},
        image=attrs["Image"],
        status=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        started_at=state["StartedAt"],
        exit_code=state["ExitCode"],
        killed_for_memory=state["OOMKilled"],
        restarts=attrs["RestartCount"],
        pid=state["Pid"],
        network_mode=limits["NetworkMode"],
        ports=_published(attrs["NetworkSettings"]["Ports"] or {}),
        cpu_period=limits["CpuPeriod"],
        cpu_quota=limits["CpuQuota"],
        cpuset=limits["CpusetCpus"],
        memory=limits["Memory"],
    )


def _published(bindings: Mapping[str, Sequence[Mapping[str, str]] | None]) -> tuple[int, ...]:
    """Return the host's ports; a port on both IPv4 and IPv6 is one."""
    ports = {int(binding["HostPort"]) for several in bindings.values() for binding in several or ()}
    return tuple(sorted(ports))
