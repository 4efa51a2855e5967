"""The plan: golden compose projects, and properties that hold for every profile and host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import Device, Gpu, Machine, Profile, load_devices, load_profile
from fedbench.errors import ConfigError, HostError
from fedbench.host.plan.plan import MIN_QUOTA, HostFacts, Plan, client_names, plan
from fedbench.host.plan.project import Paths, cgroup_parent, compose_project, environment
from fedbench.host.plan.shares import MARGIN
from fedbench.host.plan.targets import Assumed
from fedbench.telemetry.cgroup import Cgroup

GIB = 2**30
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
    made = planned(case)
    project = compose_project(made, PATHS)
    text = "".join(f"# {note}\n" for note in made.notes) + yaml.safe_dump(project, sort_keys=False)
    golden.check(golden.GOLDEN / f"{case}.yaml", text)


def test_every_golden_project_is_tested() -> None:
    assert {path.stem for path in golden.GOLDEN.glob("*.yaml")} == CASES.keys()


# -- examples


def device(name: str, memory: int = GIB, *, gpu: bool = False, speed: float = 100) -> Device:
    card = Gpu(model="RTX A4000", memory=16 * GIB) if gpu else None
    return Device(
        name=name, description="", cores=4, memory=memory, gpu=card, speed={"mobilenet_v2": speed}
    )


def profile(*machines: Machine, **keys: Any) -> Profile:
    return Profile(name="mine", machines=machines, **keys)


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
    pc = Device(
        name="pc", description="", cores=4, memory=4 * GIB,
        speed={"mobilenet_v2": 200}, capacity={"mobilenet_v2": 300},
    )  # fmt: skip
    host = {"mobilenet_v2": Assumed(1000)}
    made = plan(profile(Machine(device="pc", clients=2)), {"pc": pc}, LARGE, host)
    assert [(c.need, c.cpus, c.threads, c.memory, c.group, c.computer) for c in made.clients] == [
        (pytest.approx(0.15), pytest.approx(0.15 * 2 * MARGIN), 1, 2 * GIB, "pc-1", "pc-1")
    ] * 2
    services = compose_project(made, PATHS)["services"]
    assert {service["cgroup_parent"] for service in services.values()} == {"/fedbench-pc-1"}
    assert all("pc-1:/device" in service["volumes"] for service in services.values())


def test_a_slice_of_systemd_has_a_name_of_its_own_form() -> None:
    assert cgroup_parent("fedbench", "legacy-pc-1", "systemd") == "fedbench_legacy_pc_1.slice"
    assert cgroup_parent("fedbench", "legacy-pc-1", "cgroupfs") == "/fedbench-legacy-pc-1"


def test_gpus_go_to_the_first_devices_that_have_one_and_cpus_stand_in_for_the_rest() -> None:
    devices = {"a": device("a", gpu=True), "b": device("b")}
    machines = (Machine(device="b"), Machine(device="a", count=3))
    made = plan(profile(*machines, gpu_stand_in=True), devices, HostFacts(8, 64 * GIB, gpus=2))
    assert [client.gpu for client in made.clients] == [None, 0, 1, None]
    assert made.clients[1].gpu_memory == 16 * GIB
    assert made.notes == ("a-3: CPUs take the place of its RTX A4000, at the GPU's speed",)


def test_a_machine_may_choose_its_gpu() -> None:
    devices = {"a": device("a", gpu=True)}
    machines = (Machine(device="a", gpu=1, name="x"), Machine(device="a", name="y"))
    made = plan(profile(*machines), devices, HostFacts(8, 64 * GIB, gpus=2))
    assert [client.gpu for client in made.clients] == [1, 0]


def test_a_gpu_that_is_not_there_is_refused_unless_cpus_may_stand_in() -> None:
    devices = {"a": device("a", gpu=True)}
    with pytest.raises(HostError) as caught:
        plan(profile(Machine(device="a")), devices, SMALL)
    assert caught.value.message == (
        "profile mine: a trains on a GPU (RTX A4000), "
        "and this host has none that Docker can hand out"
    )
    assert "gpu_stand_in=true" in caught.value.hint
    with pytest.raises(HostError, match="a wants the host's GPU 3, and Docker can hand out 2 here"):
        plan(profile(Machine(device="a", gpu=3)), devices, LARGE)


def test_a_host_that_is_large_enough_needs_no_note() -> None:
    made = plan(profile(Machine(device="a")), {"a": device("a")}, LARGE)
    assert (made.dilation, made.notes) == (1.0, ())


def test_a_device_without_a_speed_has_the_hosts_cores_and_says_so() -> None:
    plain = Device(name="a", description="", cores=2, memory=GIB)
    made = plan(profile(Machine(device="a")), {"a": plain}, LARGE)
    assert (made.clients[0].threads, made.clients[0].need) == (4, pytest.approx(4 / 1.7))
    assert made.notes == ("a: its profile has no speed; its cores are taken for the host's",)


def test_a_dilation_of_ones_own() -> None:
    chosen = profile(Machine(device="a"), dilation=3.0)
    made = plan(chosen, {"a": device("a")}, LARGE)
    assert made.dilation == 3.0
    assert made.clients[0].need == pytest.approx(100 / 913 / 3)


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


@pytest.mark.parametrize("speed", [5, 39.1, 222, 1500, 20_000])
def test_the_quota_is_what_the_cgroup_will_have(speed: float, tmp_path: Path) -> None:
    made = plan(profile(Machine(device="pc")), {"pc": device("pc", speed=speed)}, LARGE)
    service = compose_project(made, PATHS)["services"]["pc"]
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    limits = f"{service['cpu_quota']} {service['cpu_period']}"
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(limits)
    assert Cgroup(tmp_path).cpu_quota() == made.clients[0].cpus
    assert service["environment"]["FEDBENCH_LIMITED"] == "1"


# -- properties

NAMES = ("a", "b", "c", "d")


@st.composite
def federations(draw: st.DrawFn, *, strict: bool = False) -> tuple[Profile, dict[str, Device]]:
    memory = st.integers(256 * 2**20, 96 * GIB)
    speed = st.floats(1, 5000)
    devices = {
        name: device(name, memory=draw(memory), gpu=draw(st.booleans()), speed=draw(speed))
        for name in NAMES
    }
    machine = st.builds(
        Machine,
        device=st.sampled_from(NAMES),
        count=st.integers(1, 3),
        clients=st.integers(1, 3),
        name=st.none(),
    )
    machines = draw(st.lists(machine, min_size=1, max_size=5))
    return profile(*machines, strict=strict, gpu_stand_in=True), devices


HOSTS = st.builds(
    HostFacts, cpus=st.integers(1, 128), memory=st.integers(GIB, 256 * GIB), gpus=st.just(0)
)


def quotas(made: Plan) -> dict[str, float]:
    """CPUs by computer: its clients share one quota."""
    return {client.computer: client.cpus for client in made.clients}


@given(federations(), HOSTS)
def test_the_host_is_never_promised_twice(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    least = sum(client.quota == MIN_QUOTA for client in made.clients) * MIN_QUOTA / 1e6
    assert sum(quotas(made).values()) <= host.cpus + least + 1e-6
    cores = {c.computer: c.cpuset.split(",") for c in made.clients if c.cpuset}
    own = [core for several in cores.values() for core in several]
    assert len(set(own)) == len(own)
    assert all(int(core) < host.cpus for core in own)


@given(federations(), HOSTS)
def test_each_client_is_within_its_device_and_the_host(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    names = [client.name for client in made.clients]
    assert len(set(names)) == len(names)
    assert names == client_names(made.profile)
    for client in made.clients:
        assert client.memory <= min(federation[1][client.device].memory, host.memory)
        assert 0.1 <= client.period / 1e6 <= 1
        assert client.quota >= MIN_QUOTA


@given(federations(), HOSTS)
def test_the_order_of_speeds_is_kept(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    alone = [client for client in made.clients if client.group is None]
    of_a_core = {client.threads: 1.7 ** (client.threads.bit_length() - 1) for client in alone}
    reached = sorted(
        (
            federation[1][client.device].speed["mobilenet_v2"],
            client.need / client.threads * of_a_core[client.threads],
        )
        for client in alone
    )
    speeds = [speed for _, speed in reached]
    assert speeds == pytest.approx(sorted(speeds))


@given(federations(), HOSTS)
def test_a_slowed_plan_says_so(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    made = plan(*federation, host)
    assert (made.dilation > 1) == any("is slowed by one factor" in note for note in made.notes)


@given(federations(strict=True), HOSTS)
def test_strict_gives_every_device_in_full_or_refuses(
    federation: tuple[Profile, dict[str, Device]], host: HostFacts
) -> None:
    lenient = plan(federation[0].model_copy(update={"strict": False}), federation[1], host)
    memory = sum(
        federation[1][m.device].memory for m in federation[0].machines for _ in range(m.count)
    )
    if lenient.notes or memory > host.memory:
        with pytest.raises(HostError, match="profile mine is strict, and this host cannot be all"):
            plan(*federation, host)
    else:
        assert plan(*federation, host).dilation == 1
