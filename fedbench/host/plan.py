"""Profile + devices + host facts -> what each client gets, as a compose project. Pure.

A host smaller than the profile is ordinary: all CPU shares are scaled down by one factor, so
that their order holds, and memory limits are clipped; the plan's notes say so. Under
`strict: true` the plan is refused instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import floor
from pathlib import Path
from typing import Any

from fedbench.config import Device, Machine, Profile
from fedbench.errors import ConfigError, HostError

_SERVICES = ("server", "prometheus", "grafana")
MIN_CPUS = 0.01  # Docker's own lower limit for a quota
CPU_PERIOD = 100_000  # of the kernel's scheduler, in microseconds


@dataclass(frozen=True)
class HostFacts:
    """What Docker's machine has. `memory` in bytes; `gpus` counts GPUs Docker can hand out."""

    cpus: int
    memory: int
    gpus: int = 0


@dataclass(frozen=True)
class Paths:
    """Folders of the host that the project mounts, and the user that containers run as."""

    root: Path
    data: Path
    runs: Path
    tls: Path
    user: str


@dataclass(frozen=True)
class ClientPlan:
    """One client container. `cpus` is its share in host CPUs, `memory` its limit in bytes."""

    name: str
    device: str
    cpus: float
    cpuset: str | None
    threads: int
    memory: int
    gpu: int | None

    @property
    def quota(self) -> int | None:
        """Microseconds of CPU time per `CPU_PERIOD`; None for a client with cores of its own."""
        return None if self.cpuset else round(self.cpus * CPU_PERIOD)


_Computer = tuple[Device, list[str]]


@dataclass(frozen=True)
class Plan:
    """All clients, the factor by which their CPU shares were scaled, and what to tell the user."""

    profile: Profile
    clients: tuple[ClientPlan, ...]
    scale: float
    notes: tuple[str, ...]


def client_names(profile: Profile) -> list[str]:
    """The names of all clients, in the profile's order.

    Raises:
        ConfigError: two clients of one name.
    """
    return [name for _, names in _computers(profile) for name in names]


def plan(profile: Profile, devices: Mapping[str, Device], host: HostFacts) -> Plan:
    """Divides the host among the profile's clients.

    Raises:
        ConfigError: two clients of one name.
        HostError: `strict` and the host is smaller than the profile.
    """
    computers = [(devices[name], clients) for name, clients in _computers(profile)]
    if profile.strict:
        _refuse_small_host(profile, computers, host)
    wanted = sum(device.cores for device, _ in computers)
    scale = min(1.0, host.cpus / wanted)
    clients = tuple(_clients(computers, scale, host))
    return Plan(profile, clients, scale, tuple(_notes(computers, wanted, scale, host)))


def _computers(profile: Profile) -> list[tuple[str, list[str]]]:
    """Every emulated computer: its device's name and its clients' names."""
    counts = Counter[str]()
    for machine in profile.machines:
        counts[_base(machine)] += machine.count * machine.clients
    numbers = {base: count(1) for base in counts}
    computers = []
    for machine in profile.machines:
        base = _base(machine)
        for _ in range(machine.count):
            numbered = [f"{base}-{next(numbers[base])}" for _ in range(machine.clients)]
            computers.append((machine.device, numbered if counts[base] > 1 else [base]))
    _refuse_twins(profile, [name for _, names in computers for name in names])
    return computers


def _base(machine: Machine) -> str:
    return machine.name or machine.device


def _refuse_twins(profile: Profile, names: list[str]) -> None:
    chosen = [machine.name for machine in profile.machines if machine.name]
    reserved = [name for name in names if name in _SERVICES]
    twins = {name for some in (chosen, names) for name in some if some.count(name) > 1}
    if twins or reserved:
        what = (
            f"two clients are named {', '.join(sorted(twins))}"
            if twins
            else (f"{reserved[0]} is the name of one of the federation's own services")
        )
        raise ConfigError(
            f"profile {profile.name}: machines: {what}", "give each machine a name of its own"
        )


def _refuse_small_host(profile: Profile, computers: Sequence[_Computer], host: HostFacts) -> None:
    cores = memory = 0.0
    for device, _ in computers:
        cores += device.cores
        memory += device.memory / 2**30
        for what, own, wanted, has in (
            ("cores", device.cores, cores, host.cpus),
            ("GiB memory", device.memory / 2**30, memory, host.memory / 2**30),
        ):
            if wanted > has:
                raise HostError(
                    f"profile {profile.name} is strict: up to {device.name} ({own:g} {what}) it "
                    f"needs {wanted:g} {what}, the host has {has:.4g}",
                    "use a larger host, a smaller profile, or --set strict=false",
                )


def _clients(computers: Sequence[_Computer], scale: float, host: HostFacts) -> Iterator[ClientPlan]:
    # Cores of one's own where all get whole ones, else quotas.
    pinned = scale == 1 and all((d.cores / len(names)).is_integer() for d, names in computers)
    cores, gpus = count(), iter(range(host.gpus))
    for device, names in computers:
        cpus = docker_cpus(device.cores * scale / len(names))
        gpu = next(gpus, None) if device.gpu else None
        for name in names:
            own = ",".join(str(next(cores)) for _ in range(int(cpus))) if pinned else None
            memory = min(device.memory, host.memory) // len(names)
            yield ClientPlan(name, device.name, cpus, own, max(1, floor(cpus)), memory, gpu)


def docker_cpus(share: float) -> float:
    """`share` in what Docker can express, rounded down: a sum never exceeds the host."""
    hundredths = floor(round(share * 100, 6))  # 2.3 * 100 is 229.99999999999997
    return max(hundredths / 100, MIN_CPUS)


def _notes(
    computers: Sequence[_Computer], wanted: float, scale: float, host: HostFacts
) -> Iterator[str]:
    if scale < 1:
        yield (
            f"the host has {host.cpus} cores, the profile {wanted:g}: "
            f"all CPU shares are scaled by {scale:.3g}"
        )
    devices = {device.name: device for device, _ in computers}
    for device in devices.values():
        if device.memory > host.memory:
            yield (
                f"{device.name}: memory limited to the host's {host.memory / 2**30:.1f} GiB "
                f"(the device has {device.memory / 2**30:g} GiB)"
            )
    gpus = sum(1 for device, _ in computers if device.gpu)
    if gpus > host.gpus:
        names = ", ".join(name for name, device in devices.items() if device.gpu)
        yield f"{names}: {gpus} GPUs wanted, the host has {host.gpus}: the rest train on CPUs"
    if any(len(names) > 1 for _, names in computers):
        yield "clients of one computer get equal parts of it"


def compose_project(plan: Plan, paths: Paths, name: str = "fedbench") -> dict[str, Any]:
    """The plan as a compose project: what is the same for all is in `compose/*.yaml`."""
    return {
        "name": name,
        "include": [
            str(paths.root / "compose" / f"{part}.yaml") for part in ("server", "monitoring")
        ],
        "services": {client.name: _service(client, plan, paths) for client in plan.clients},
    }


def environment(plan: Plan, paths: Paths, images: Mapping[str, str | None]) -> dict[str, str]:
    """Values of the variables in `compose/*.yaml`."""
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
    # Not `cpus`: Docker lifts such a limit from no container that runs.
    quota = {"cpu_period": CPU_PERIOD, "cpu_quota": client.quota}
    return {
        "extends": {"file": str(paths.root / "compose" / "client.yaml"), "service": "client"},
        "hostname": client.name,
        **({"cpuset": client.cpuset} if client.cpuset else quota),
        # Swap would hide that a device's memory does not suffice: none beyond the limit.
        "mem_limit": client.memory,
        "memswap_limit": client.memory,
        "environment": {
            "FEDBENCH_CLIENT": client.name,
            "FEDBENCH_DEVICE": client.device,
            "FEDBENCH_NODE": plan.profile.node,
            "FEDBENCH_CPUS": f"{client.cpus:g}",
            "OMP_NUM_THREADS": str(client.threads),
        },
        "volumes": [
            f"{paths.data / client.name}:/data:ro",
            f"{paths.tls / 'ca.pem'}:/tls/ca.pem:ro",
        ],
        **({} if client.gpu is None else {"deploy": _gpu(client.gpu)}),
    }


def _gpu(index: int) -> dict[str, Any]:
    device = {"driver": "nvidia", "device_ids": [str(index)], "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}
