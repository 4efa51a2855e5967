"""The plan as a compose project. Pure: server and monitoring are in `compose/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.host.plan.client_container import ClientContainer, compose_service
from fedbench.host.plan.plan import ClientPlan, Plan
from fedbench.records.energy import Draw

# Where the clients of one computer see each other train (fedbench.telemetry.companions).
_SHARED = {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1777"}}


@dataclass(frozen=True)
class Paths:
    """Folders of the host that the project mounts, and the user that containers run as."""

    root: Path
    data: Path
    runs: Path
    tls: Path
    user: str


def compose_project(
    plan: Plan, paths: Paths, name: str = "fedbench", cgroup_driver: str = "cgroupfs"
) -> dict[str, Any]:
    """Return the plan as a compose project."""
    services = {
        client.name: _service(client, plan, paths, name, cgroup_driver) for client in plan.clients
    }
    groups = sorted({client.group for client in plan.clients if client.group})
    return {
        "name": name,
        "include": [
            str(paths.root / "compose" / f"{part}.yaml") for part in ("server", "monitoring")
        ],
        "services": services,
        **({"volumes": dict.fromkeys(groups, _SHARED)} if groups else {}),
    }


def cgroup_parent(project: str, group: str, driver: str) -> str:
    """Name the cgroup that holds all clients of one computer; systemd has a form of its own."""
    if driver != "systemd":
        return f"/{project}-{group}"
    # A dash would be a level of its own in the name of a slice.
    return f"{project}-{group}".replace("-", "_") + ".slice"


def environment(plan: Plan, paths: Paths, images: Mapping[str, str | None]) -> dict[str, str]:
    """Return the values of the variables in `compose/*.yaml`."""
    ports = plan.profile.ports
    return {
        "FEDBENCH_IMAGE": images["fedbench"] or "",
        "FEDBENCH_PROMETHEUS_IMAGE": images["prometheus"] or "",
        "FEDBENCH_GRAFANA_IMAGE": images["grafana"] or "grafana-left-out",
        "FEDBENCH_USER": paths.user,
        "FEDBENCH_RUNS": str(paths.runs),
        "FEDBENCH_TLS": str(paths.tls / "server"),
        "FEDBENCH_SERVER_PORT": str(ports.server),
        "FEDBENCH_PROMETHEUS_PORT": str(ports.prometheus),
        "FEDBENCH_GRAFANA_PORT": str(ports.grafana),
        "COMPOSE_PROFILES": "grafana" if images["grafana"] else "",
    }


def _service(
    client: ClientPlan, plan: Plan, paths: Paths, project: str, driver: str
) -> dict[str, Any]:
    """Return a client's service: what its device is, within the client's container."""
    environment = {
        "FEDBENCH_SERVER": "server:9092",
        "FEDBENCH_CLIENT": client.name,
        "FEDBENCH_DEVICE": client.device,
        "FEDBENCH_NODE": plan.profile.node,
        "FEDBENCH_LIMITED": "1",
        "FEDBENCH_DILATION": f"{plan.dilation:g}",
        "FEDBENCH_THREADS": str(client.threads),
        "OMP_NUM_THREADS": str(client.threads),
    }
    if client.idle_watts is not None and client.load_watts is not None:
        environment |= Draw(client.idle_watts, client.load_watts).environment()
    if client.gpu_memory:
        environment["FEDBENCH_GPU_MEMORY"] = str(client.gpu_memory)
        environment["FEDBENCH_GPU_SHARE"] = f"{client.gpu_share:g}"
    mounts = [f"{paths.data / client.name}:/data:ro", f"{paths.tls / 'ca.pem'}:/tls/ca.pem:ro"]
    if client.group:
        mounts.append(f"{client.group}:/device")
    return compose_service(
        ClientContainer(
            image="${FEDBENCH_IMAGE}",
            user="${FEDBENCH_USER}",
            models=paths.root / "models",
            hostname=client.name,
            environment=environment,
            mounts=tuple(mounts),
            memory=client.memory,
            cpuset=client.cpuset,
            # Of several clients on one computer, a container that had a quota could not be created
            # where the cgroup that holds them is left over with a smaller one (cgroup v1); it
            # waits for its quota.
            cpu_period=None if client.group else client.period,
            cpu_quota=None if client.group else client.quota,
            cgroup_parent=cgroup_parent(project, client.group, driver) if client.group else None,
            gpu=client.gpu,
        )
    )
