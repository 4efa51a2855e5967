"""A client's container, described once for whoever starts it. Pure.

`up` writes it into a compose project, calibration gives it to `docker run`, `join` to Docker's API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

CLIENT = ("python", "-m", "fedbench.client")


@dataclass(frozen=True)
class ClientContainer:
    """What a client may do and use.

    `mounts` are `source:target[:mode]` beside the user's own models. `memory` is in bytes,
    `cpu_quota` in microseconds of CPU time per `cpu_period`; None is no limit. `ports` are pairs of
    a port inside and one of the host.
    """

    image: str
    user: str
    models: Path
    command: tuple[str, ...] = CLIENT
    hostname: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    cpuset: str | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cgroup_parent: str | None = None
    gpu: int | None = None
    ports: Mapping[int, int] = field(default_factory=dict)
    extra_hosts: Mapping[str, str] = field(default_factory=dict)

    # What no client can choose.
    capabilities_dropped: ClassVar = ("ALL",)
    security_options: ClassVar = ("no-new-privileges:true",)
    # A calibration has a process for each core, and libraries of one start a thread for each.
    pids_limit: ClassVar = 4096
    tmpfs: ClassVar = {"/tmp": "size=256m,mode=1777"}  # noqa: S108 (the container's own)
    # A run of days cannot fill the disk: at most 40 MB of log for a container.
    log_driver: ClassVar = "json-file"
    log_options: ClassVar = {"max-size": "10m", "max-file": "4"}
    # A client whose server went away ends, and connects anew.
    restart: ClassVar = "always"
    stop_seconds: ClassVar = 5

    @property
    def volumes(self) -> list[str]:
        """Everything that it mounts; the user's own models first."""
        return [f"{self.models}:/models:ro", *self.mounts]


def compose_service(container: ClientContainer) -> dict[str, Any]:
    """Return it as a service of a compose project, on the network `federation`."""
    return {
        "image": container.image,
        "command": list(container.command),
        "hostname": container.hostname,
        "init": True,
        "user": container.user,
        "read_only": True,
        "tmpfs": [f"{path}:{options}" for path, options in container.tmpfs.items()],
        "cap_drop": list(container.capabilities_dropped),
        "security_opt": list(container.security_options),
        "pids_limit": container.pids_limit,
        "restart": container.restart,
        "logging": {"driver": container.log_driver, "options": dict(container.log_options)},
        "stop_grace_period": f"{container.stop_seconds}s",
        "networks": ["federation"],
        "healthcheck": _healthcheck(),
        **_limits(container),
        "environment": dict(container.environment),
        "volumes": container.volumes,
    }


def run_options(container: ClientContainer) -> list[str]:
    """Return the options of `docker run` for a container that ends with the command and is gone."""
    log_options = [f"--log-opt={key}={value}" for key, value in container.log_options.items()]
    return [
        "--rm",
        "--init",
        f"--user={container.user}",
        "--read-only",
        *(f"--tmpfs={path}:{options}" for path, options in container.tmpfs.items()),
        *(f"--cap-drop={name}" for name in container.capabilities_dropped),
        *(f"--security-opt={option}" for option in container.security_options),
        f"--pids-limit={container.pids_limit}",
        f"--log-driver={container.log_driver}",
        *log_options,
        *(f"--volume={volume}" for volume in container.volumes),
    ]


def _healthcheck() -> dict[str, Any]:
    # The file is there while the client is connected. One probe waits for it: each that is started
    # costs as much CPU as a training step.
    return {
        "test": ["CMD", "sh", "-c", "until test -e /tmp/ready; do sleep 0.2; done"],
        "interval": "30s",
        "timeout": "60s",
        "retries": 3,
        "start_period": "300s",
        "start_interval": "1s",
    }


def _limits(container: ClientContainer) -> dict[str, Any]:
    limits = {
        "cgroup_parent": container.cgroup_parent,
        # Not `cpus`: Docker lifts such a limit from no container that runs.
        "cpu_period": container.cpu_period,
        "cpu_quota": container.cpu_quota,
        "cpuset": container.cpuset,
        "mem_limit": container.memory,
        # Swap would hide that a device's memory does not suffice: none beyond the limit.
        "memswap_limit": container.memory,
        "deploy": None if container.gpu is None else _gpu(container.gpu),
    }
    return {key: value for key, value in limits.items() if value is not None}


def _gpu(index: int) -> dict[str, Any]:
    device = {"driver": "nvidia", "device_ids": [str(index)], "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}
