"""The plan as a compose project. Pure: what is the same for all is in `compose/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    services = {client.name: _service(client, plan, paths) for client in plan.clients}
    for client in plan.clients:
        if client.group:
            parent = cgroup_parent(name, client.group, cgroup_driver)
            services[client.name]["cgroup_parent"] = parent
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
    """Return the cgroup of one computer's clients; systemd has its own form of names."""
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


def _service(client: ClientPlan, plan: Plan, paths: Paths) -> dict[str, Any]:
    environment = {
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
    volumes = [
        f"{paths.data / client.name}:/data:ro",
        f"{paths.tls / 'ca.pem'}:/tls/ca.pem:ro",
    ]
    if client.group:
        volumes.append(f"{client.group}:/device")
    return {
        "extends": {"file": str(paths.root / "compose" / "client.yaml"), "service": "client"},
        "hostname": client.name,
        **_quota(client),
        **({"cpuset": client.cpuset} if client.cpuset else {}),
        # Swap would hide that a device's memory does not suffice: none beyond the limit.
        "mem_limit": client.memory,
        "memswap_limit": client.memory,
        "environment": environment,
        "volumes": volumes,
        **({} if client.gpu is None else {"deploy": _gpu(client.gpu)}),
    }


def _quota(client: ClientPlan) -> dict[str, int]:
    # Of several clients on one computer, a container that had one could not be created where the
    # cgroup that holds them is left over with a smaller one (cgroup v1); it waits for its quota.
    if client.group:
        return {}
    # Not `cpus`: Docker lifts such a limit from no container that runs.
    return {"cpu_period": client.period, "cpu_quota": client.quota}


def _gpu(index: int) -> dict[str, Any]:
    device = {"driver": "nvidia", "device_ids": [str(index)], "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}
