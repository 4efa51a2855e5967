"""Profile + devices + host -> what each client gets of the host. Pure.

A host smaller than the profile is ordinary: every device is slowed by one factor, the dilation, and
memory limits are clipped; the plan's notes say so, and whatever else is not as on the device. Under
`strict: true` the plan is refused instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from fedbench.config import Device, Experiment, Machine, ModelName, Network, Profile
from fedbench.config.explain import nearest
from fedbench.errors import ConfigError, HostError
from fedbench.host.plan import targets
from fedbench.host.plan.networks import Capabilities, dilated, unapplied
from fedbench.host.plan.shares import Demand, Part, Solution, period_seconds, solve
from fedbench.host.plan.targets import HostSpeeds
from fedbench.learning.pace import Speed
from fedbench.records.clock import Dilation
from fedbench.records.energy import Draw

_SERVICES = ("server", "prometheus", "grafana")
MIN_QUOTA = 1000  # microseconds per period: the kernel's own lower limit


@dataclass(frozen=True)
class HostFacts:
    """What Docker's machine has. `memory` in bytes; `gpus` counts GPUs Docker can hand out."""

    cpus: int
    memory: int
    gpus: int = 0
    cgroup_driver: str = "cgroupfs"


@dataclass(frozen=True)
class ClientPlan:
    """One client container.

    `need` is what it takes of the host's CPUs at the calibrated speed, `quota` its limit in
    microseconds of CPU time per `period`, `memory` its limit in bytes. Clients of one computer have
    its name as their `group`, and share its quota. Watts are the client's part of its computer's
    (`telemetry.energy.Draw`).
    """

    name: str
    device: str
    threads: int
    need: float
    quota: int
    period: int
    cpuset: str | None
    memory: int
    gpu: int | None = None
    gpu_memory: int | None = None
    gpu_share: float = 1.0
    group: str | None = None
    idle_watts: float | None = None
    load_watts: float | None = None

    @property
    def computer(self) -> str:
        """The computer that it runs on."""
        return self.group or self.name

    @property
    def cpus(self) -> float:
        """The quota in CPUs."""
        return self.quota / self.period


@dataclass(frozen=True)
class Computer:
    """One emulated computer: its device, the clients on it, and the host's GPU that it gets."""

    name: str
    device: Device
    clients: tuple[str, ...]
    gpu: int | None = None
    network: Network | None = None


@dataclass(frozen=True)
class Plan:
    """All clients, the factor by which they are slowed, and what to tell the user."""

    profile: Profile
    clients: tuple[ClientPlan, ...]
    dilation: Dilation
    notes: tuple[str, ...]
    model: ModelName
    """What the host was divided for."""
    speeds: Mapping[str, Speed]
    """What each device trains of that model, in samples per emulated second, by its name."""
    networks: Mapping[str, Network] = field(default_factory=dict)
    """The network of each client that has one, in wall seconds."""


def client_names(profile: Profile) -> list[str]:
    """Return the names of all clients, in the profile's order.

    Raises:
        ConfigError: two clients of one name.
    """
    return list(client_devices(profile))


def client_devices(profile: Profile) -> dict[str, str]:
    """Return each client's device, by its name.

    Raises:
        ConfigError: two clients of one name.
    """
    return {name: machine.device for machine, names in _names(profile) for name in names}


def require_known(experiment: Experiment, names: Sequence[str]) -> None:
    """Raise ConfigError if the experiment asks for other clients than these.

    Raises:
        ConfigError: it asks for another.
    """
    unknown = [name for name in experiment.clients or () if name not in names]
    if unknown:
        raise ConfigError(
            f"experiment {experiment.name}: clients: no client {unknown[0]!r}"
            + nearest(unknown[0], names),
            f"this federation has {', '.join(names)}",
        )


def plan(
    profile: Profile,
    devices: Mapping[str, Device],
    host: HostFacts,
    host_speeds: HostSpeeds = targets.ASSUMED,
    model: ModelName = "mobilenet_v2",
    networks: Sequence[Network | None] = (),
    kernel: Capabilities | None = None,
) -> Plan:
    """Divide the host among the profile's clients, to train `model`.

    `networks` are those of the profile's machines, `kernel` what of them can be put in force.

    Raises:
        ConfigError: two clients of one name.
        HostError: the host has no GPU for a device, and none may stand in for it; a dilation that
            is too small; or `strict` and the host is smaller than the profile.
    """
    made = computers(profile, devices, host, networks)
    solution = _solve(profile, made, host, host_speeds, model)
    clients = tuple(
        client
        for computer, part in zip(made, solution.parts, strict=True)
        for client in _clients(computer, part, host, host_speeds, model)
    )
    notes = (
        *_notes(made, solution.dilation, host),
        *(_network_notes(made, kernel) if kernel else ()),
    )
    if profile.strict and (less := [*notes, *_crowded(made, host)]):
        raise HostError(
            f"profile {profile.name} is strict, and this host cannot be all of it: {less[0]}",
            "use a larger host, a smaller profile, or --set strict=false",
        )
    return Plan(
        profile,
        clients,
        solution.dilation,
        notes,
        model,
        targets.speeds(devices.values(), model, host_speeds),
        _networks(made, solution.dilation),
    )


def _names(profile: Profile) -> list[tuple[Machine, list[str]]]:
    counts = Counter[str]()
    for machine in profile.machines:
        counts[_base(machine)] += machine.count * machine.clients
    numbers = {base: count(1) for base in counts}
    named = []
    for machine in profile.machines:
        base = _base(machine)
        for _ in range(machine.count):
            numbered = [f"{base}-{next(numbers[base])}" for _ in range(machine.clients)]
            named.append((machine, numbered if counts[base] > 1 else [base]))
    _refuse_twins(profile, [name for _, names in named for name in names])
    return named


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


def computers(
    profile: Profile,
    devices: Mapping[str, Device],
    host: HostFacts,
    networks: Sequence[Network | None] = (),
) -> list[Computer]:
    """Return the profile's computers, each with the networks' own entry and a GPU of the host's.

    Raises:
        ConfigError: two clients of one name.
        HostError: the host has no GPU for a device, and none may stand in for it.
    """
    taken = {machine.gpu for machine in profile.machines}
    free = (index for index in range(host.gpus) if index not in taken)
    links = dict(zip(profile.machines, networks, strict=False))
    made = []
    for machine, names in _names(profile):
        device = devices[machine.device]
        gpu = None
        if device.gpu:
            gpu = next(free, None) if machine.gpu is None else machine.gpu
            _require_gpu(profile, device, gpu, host)
        made.append(Computer(names[0], device, tuple(names), gpu, links.get(machine)))
    return made


def _require_gpu(profile: Profile, device: Device, gpu: int | None, host: HostFacts) -> None:
    assert device.gpu  # noqa: S101 (asked for by the caller)
    if gpu is not None and gpu >= host.gpus:
        raise HostError(
            f"profile {profile.name}: {device.name} wants the host's GPU {gpu}, "
            f"and Docker can hand out {host.gpus} here",
            "leave `gpu` out, or set gpu_stand_in=true without it",
        )
    if gpu is None and not profile.gpu_stand_in:
        raise HostError(
            f"profile {profile.name}: {device.name} trains on a GPU ({device.gpu.model}), and this "
            f"host has {host.gpus or 'none'} that Docker can hand out",
            "--set gpu_stand_in=true lets CPUs take its place, at its speed",
        )


def _solve(
    profile: Profile,
    made: Sequence[Computer],
    host: HostFacts,
    host_speeds: HostSpeeds,
    model: ModelName,
) -> Solution:
    """Return a part for each computer; one that trains on a GPU gets a core that feeds it."""
    on_cpus = [computer for computer in made if computer.gpu is None]
    cpus = max(1, host.cpus - (len(made) - len(on_cpus)))
    demands = [_demand(computer, host_speeds, model, len(made) > 1) for computer in on_cpus]
    solution = solve(demands, cpus, profile.dilation)
    parts = iter(solution.parts)
    feeding = Part(threads=1, need=1.0, quota=1.0)
    return Solution(
        solution.dilation,
        tuple(next(parts) if computer.gpu is None else feeding for computer in made),
    )


def _demand(computer: Computer, host: HostSpeeds, model: ModelName, crowded: bool) -> Demand:
    known = targets.workload(computer.device, model)
    speed = targets.speed(computer.device, known, host)
    together = min(speed.together, speed.single * len(computer.clients))
    by_threads = targets.loaded(host[known]) if crowded else host[known].by_threads
    return Demand(computer.name, speed.single, together, by_threads)


def _clients(
    computer: Computer, part: Part, host: HostFacts, host_speeds: HostSpeeds, model: ModelName
) -> Iterator[ClientPlan]:
    device, names = computer.device, computer.clients
    watts = Draw.of(device.watts.idle, device.watts.load, len(names)) if device.watts else None
    step = host_speeds[targets.workload(device, model)].step_cpu_seconds
    period = round(period_seconds(part.quota, step) * 1e6)
    for name in names:
        yield ClientPlan(
            name=name,
            device=device.name,
            threads=part.threads,
            need=part.need / len(names),
            quota=max(int(part.quota * period), MIN_QUOTA),
            period=period,
            cpuset=None if part.cores is None else ",".join(map(str, part.cores)),
            memory=min(device.memory, host.memory) // len(names),
            gpu=computer.gpu,
            gpu_memory=device.gpu.memory if device.gpu and computer.gpu is not None else None,
            gpu_share=device.gpu.share if device.gpu else 1.0,
            group=computer.name if len(names) > 1 else None,
            idle_watts=watts.idle if watts else None,
            load_watts=watts.load if watts else None,
        )


def _notes(made: Sequence[Computer], dilation: Dilation, host: HostFacts) -> Iterator[str]:
    if dilation > 1:
        yield (
            f"every device is slowed by one factor, for this host has {host.cpus} cores: "
            f"emulated seconds are wall seconds / {dilation:g}"
        )
    devices = {computer.device.name: computer.device for computer in made}
    for device in devices.values():
        if device.memory > host.memory:
            yield (
                f"{device.name}: memory limited to the host's {host.memory / 2**30:.1f} GiB "
                f"(the device has {device.memory / 2**30:g} GiB)"
            )
        if not device.speed:
            yield f"{device.name}: its profile has no speed; its cores are taken for the host's"
    for computer in made:
        if computer.device.gpu and computer.gpu is None:
            yield (
                f"{computer.name}: CPUs take the place of its {computer.device.gpu.model}, "
                "at the GPU's speed"
            )


def _networks(made: Sequence[Computer], dilation: Dilation) -> dict[str, Network]:
    return {
        name: dilated(computer.network, dilation)
        for computer in made
        if computer.network
        for name in computer.clients
    }


def _network_notes(made: Sequence[Computer], kernel: Capabilities) -> Iterator[str]:
    for computer in made:
        for note in unapplied(computer.network, kernel) if computer.network else ():
            yield f"{computer.name}: {note}"


def _crowded(made: Sequence[Computer], host: HostFacts) -> Iterator[str]:
    memory = sum(computer.device.memory for computer in made)
    if memory > host.memory:
        yield (
            f"its machines have {memory / 2**30:g} GiB of memory, "
            f"the host {host.memory / 2**30:.4g} GiB"
        )
