"""The plan: golden compose projects, and properties that hold for every profile and host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import floor
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import Device, Gpu, Machine, Profile, load_devices, load_profile
from fedbench.errors import ConfigError, HostError
from fedbench.host.plan import (
    MIN_CPUS,
    HostFacts,
    Paths,
    Plan,
    client_names,
    compose_project,
    docker_cpus,
    environment,
    plan,
)
from fedbench.telemetry.cgroup import Cgroup

GIB = 2**30
GOLDEN = Path(__file__).parent.parent / "golden"
PATHS = Paths(
    Path("/fedbench"),
    Path("/fedbench/data/fedbench"),
    Path("/fedbench/runs"),
    Path("/fedbench/.fedbench/fedbench/tls"),
    "10001:10001",
)
SMALL = HostFacts(cpus=2, memory=24 * GIB)
LARGE = HostFacts(cpus=64, memory=128 * GIB, gpus=2)
CASES = {
    "heterogeneous-2-cores": ("heterogeneous", [], SMALL),
    "heterogeneous-64-cores-2-gpus": ("heterogeneous", [], LARGE),
    "legacy-pair-2-cores": ("legacy-pair", [], SMALL),
    "legacy-pair-64-cores-2-gpus": ("legacy-pair", [], LARGE),
    "legacy-pair-stock-node": ("legacy-pair", ["node=stock"], SMALL),
    "homogeneous-2-cores": ("homogeneous", [], SMALL),
    "homogeneous-64-cores-2-gpus": ("homogeneous", [], LARGE),
}


def planned(case: str) -> Plan:
    name, settings, host = CASES[case]
    profile = load_profile(name, settings)
    return plan(profile, load_devices(profile), host)


@pytest.mark.parametrize("case", CASES)
def test_the_project_is_the_golden_one(case: str) -> None:
    """`UPDATE_GOLDEN=1 pytest tests/host/test_plan.py` writes the files anew: read the diff."""
    made = planned(case)
    project = compose_project(made, PATHS)
    text = "".join(f"# {note}\n" for note in made.notes) + yaml.safe_dump(project, sort_keys=False)
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_project_is_tested() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == CASES.keys()


# -- examples


def device(name: str, cores: float = 1, memory: int = GIB, *, gpu: bool = False) -> Device:
    card = Gpu(model="RTX A4000", memory=16 * GIB) if gpu else None
    return Device(name=name, description="", cores=cores, memory=memory, gpu=card)


def profile(*machines: Machine, strict: bool = False) -> Profile:
    return Profile(name="mine", machines=machines, strict=strict)


@pytest.mark.parametrize(
    ("machines", "names"),
    [
        ([Machine(device="laptop")], ["laptop"]),
        ([Machine(device="laptop", count=2)], ["laptop-1", "laptop-2"]),
        ([Machine(device="laptop", clients=2)], ["laptop-1", "laptop-2"]),
        ([Machine(device="a", count=2, clients=2)], ["a-1", "a-2", "a-3", "a-4"]),
        ([Machine(device="a"), Machine(device="b"), Machine(device="a")], ["a-1", "b", "a-2"]),
        ([Machine(device="a", name="left"), Machine(device="a", name="right")], ["left", "right"]),
        ([Machine(device="a", name="left", count=2)], ["left-1", "left-2"]),
    ],
)
def test_clients_are_named_after_their_device_or_machine(
    machines: list[Machine], names: list[str]
) -> None:
    assert client_names(profile(*machines)) == names


@pytest.mark.parametrize(
    ("machines", "what"),
    [
        (
            [Machine(device="a", name="x"), Machine(device="b", name="x")],
            "two clients are named x",
        ),
        (
            [Machine(device="a", count=2), Machine(device="b", name="a-2")],
            "two clients are named a-2",
        ),
        (
            [Machine(device="a", name="server")],
            "server is the name of one of the federation's own services",
        ),
        (
            [Machine(device="grafana")],
            "grafana is the name of one of the federation's own services",
        ),
    ],
)
def test_two_containers_of_one_name_are_refused(machines: list[Machine], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        client_names(profile(*machines))
    assert caught.value.message == f"profile mine: machines: {what}"


def test_a_machine_of_two_clients_is_one_computer() -> None:
    devices = {"pc": device("pc", cores=4, memory=4 * GIB, gpu=True), "b": device("b", gpu=True)}
    made = plan(profile(Machine(device="pc", clients=2), Machine(device="b")), devices, LARGE)
    assert [(c.cpus, c.cpuset, c.threads, c.memory, c.gpu) for c in made.clients] == [
        (2.0, "0,1", 2, 2 * GIB, 0),
        (2.0, "2,3", 2, 2 * GIB, 0),
        (1.0, "4", 1, GIB, 1),
    ]


def test_cores_that_are_no_whole_ones_are_quotas_for_all() -> None:
    devices = {"a": device("a", cores=2), "b": device("b", cores=2.3)}
    made = plan(profile(Machine(device="a"), Machine(device="b")), devices, LARGE)
    assert [(c.cpus, c.cpuset, c.threads) for c in made.clients] == [(2.0, None, 2), (2.3, None, 2)]


def test_gpus_go_to_the_first_devices_that_have_one() -> None:
    devices = {"a": device("a", gpu=True), "b": device("b")}
    machines = (Machine(device="b"), Machine(device="a", count=3))
    made = plan(profile(*machines), devices, HostFacts(8, 64 * GIB, gpus=2))
    assert [client.gpu for client in made.clients] == [None, 0, 1, None]
    assert made.notes == ("a: 3 GPUs wanted, the host has 2: the rest train on CPUs",)


def test_a_host_that_is_large_enough_needs_no_note() -> None:
    made = plan(profile(Machine(device="a")), {"a": device("a")}, LARGE)
    assert (made.scale, made.notes) == (1.0, ())


def test_variables_hold_what_the_compose_files_ask_for() -> None:
    images = {"fedbench": "fedbench:cpu", "prometheus": "prom/prometheus:v1", "grafana": None}
    made = planned("legacy-pair-2-cores")
    assert environment(made, PATHS, images) == {
        "FEDBENCH_IMAGE": "fedbench:cpu",
        "FEDBENCH_PROMETHEUS_IMAGE": "prom/prometheus:v1",
        "FEDBENCH_GRAFANA_IMAGE": "grafana-left-out",
        "FEDBENCH_USER": "10001:10001",
        "FEDBENCH_RUNS": "/fedbench/runs",
        "FEDBENCH_TLS": "/fedbench/.fedbench/fedbench/tls/server",
        "FEDBENCH_SERVER_PORT": "9092",
        "FEDBENCH_PROMETHEUS_PORT": "9090",
        "FEDBENCH_GRAFANA_PORT": "3000",
        "COMPOSE_PROFILES": "",
    }
    with_grafana = environment(made, PATHS, images | {"grafana": "grafana/grafana:11.6.0"})
    assert with_grafana["COMPOSE_PROFILES"] == "grafana"
    assert with_grafana["FEDBENCH_GRAFANA_IMAGE"] == "grafana/grafana:11.6.0"


@pytest.mark.parametrize("cpus", [0.01, 0.18, 0.29, 1.45, 2.3, 32])
def test_a_client_knows_the_quota_that_its_cgroup_will_have(cpus: float, tmp_path: Path) -> None:
    devices = {"pc": device("pc", cores=cpus), "odd": device("odd", cores=0.5)}
    made = plan(profile(Machine(device="pc"), Machine(device="odd")), devices, LARGE)
    service = compose_project(made, PATHS)["services"]["pc"]
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    limits = f"{service['cpu_quota']} {service['cpu_period']}"
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(limits)
    (tmp_path / "sys/fs/cgroup/cpuset.cpus.effective").write_text("0-63")
    assert Cgroup(tmp_path).usable_cpus() == float(service["environment"]["FEDBENCH_CPUS"]) == cpus


@pytest.mark.parametrize(
    ("share", "cpus"),
    [(2.3, 2.3), (0.29, 0.29), (1.239, 1.23), (0.001, 0.01), (32, 32.0), (4 / 3, 1.33)],
)
def test_docker_counts_cpus_in_hundredths(share: float, cpus: float) -> None:
    assert docker_cpus(share) == cpus


# -- properties

NAMES = ("a", "b", "c", "d")
CORES = st.one_of(st.integers(1, 64), st.integers(1, 6400).map(lambda hundredths: hundredths / 100))


@st.composite
def federations(
    draw: st.DrawFn, cores: st.SearchStrategy[float] = CORES, *, strict: bool = False
) -> tuple[Profile, dict[str, Device]]:
    memory = st.integers(256 * 2**20, 96 * GIB)
    devices = {
        name: device(name, draw(cores), draw(memory), gpu=draw(st.booleans())) for name in NAMES
    }
    machine = st.builds(
        Machine,
        device=st.sampled_from(NAMES),
        count=st.integers(1, 3),
        clients=st.integers(1, 3),
        name=st.none(),
    )
    machines = draw(st.lists(machine, min_size=1, max_size=5))
    return profile(*machines, strict=strict), devices


HOSTS = st.builds(
    HostFacts, cpus=st.integers(1, 128), memory=st.integers(GIB, 256 * GIB), gpus=st.integers(0, 4)
)


def computers(federation: Profile) -> Iterator[Machine]:
    for machine in federation.machines:
        for _ in range(machine.count):
            yield machine


@given(federations(), HOSTS)
def test_the_host_is_never_promised_twice(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    shares = [client.cpus for client in made.clients if client.cpus > MIN_CPUS]
    assert sum(shares) <= host.cpus + 1e-6
    assert 0 < made.scale <= 1


@given(federations(), HOSTS)
def test_each_client_is_within_its_device_and_the_host(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    names = [client.name for client in made.clients]
    assert len(set(names)) == len(names)
    assert names == client_names(made.profile)
    for client in made.clients:
        own = federation[1][client.device]
        assert client.memory <= min(own.memory, host.memory)
        assert MIN_CPUS <= client.cpus <= max(own.cores, MIN_CPUS)
        assert client.threads == max(1, floor(client.cpus))
        assert client.gpu is None or (own.gpu is not None and client.gpu < host.gpus)


@given(federations(), HOSTS)
def test_shares_are_in_the_order_of_the_devices_cores(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    clients = iter(made.clients)
    shares = []
    for machine in computers(made.profile):
        cores = federation[1][machine.device].cores
        for _ in range(machine.clients):
            shares.append((cores / machine.clients, next(clients).cpus))
    cpus = [share for _, share in sorted(shares)]
    assert cpus == sorted(cpus)


@given(federations(st.integers(1, 6).map(lambda n: 6 * n)), st.integers(0, 8))
def test_clients_have_whole_cores_of_their_own_where_the_host_has_enough(
    federation: tuple[Profile, dict[str, Device]], spare: int
) -> None:
    wanted = sum(federation[1][machine.device].cores for machine in computers(federation[0]))
    host = HostFacts(int(wanted) + spare, 128 * GIB)
    made = plan(*federation, host)
    cores: list[int] = []
    for client in made.clients:
        assert client.cpuset is not None
        own = [int(core) for core in client.cpuset.split(",")]
        assert len(own) == client.cpus == client.threads
        cores += own
    assert len(set(cores)) == len(cores)
    assert set(cores) <= set(range(host.cpus))


@given(federations(), HOSTS)
def test_a_gpu_belongs_to_one_computer(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    clients = iter(made.clients)
    used = []
    for machine in computers(made.profile):
        mine = {next(clients).gpu for _ in range(machine.clients)}
        assert len(mine) == 1
        used += [gpu for gpu in mine if gpu is not None]
    wanted = sum(federation[1][m.device].gpu is not None for m in computers(made.profile))
    assert used == list(range(min(wanted, host.gpus)))


@given(federations(strict=True), HOSTS)
def test_strict_gives_every_device_in_full_or_refuses(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    owned = [federation[1][machine.device] for machine in computers(federation[0])]
    cores, memory = sum(d.cores for d in owned), sum(d.memory for d in owned)
    if cores > host.cpus or memory > host.memory:
        with pytest.raises(HostError, match="profile mine is strict: up to "):
            plan(*federation, host)
        return
    made = plan(*federation, host)
    assert made.scale == 1
    clients = iter(made.clients)
    for machine, own in zip(computers(made.profile), owned, strict=True):
        for _ in range(machine.clients):
            assert next(clients).memory == own.memory // machine.clients


@given(federations(), HOSTS)
def test_a_scaled_plan_says_so(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    assert (made.scale < 1) == any("are scaled by" in note for note in made.notes)
