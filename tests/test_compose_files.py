"""What every container of a federation may do and reach, in the files and as merged."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbench.config import load_devices, load_profile
from fedbench.engines.containers.runtime.compose import Compose
from fedbench.host.plan.plan import HostFacts, Plan, plan
from fedbench.host.plan.project import Paths, compose_project, environment

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "compose").glob("*.yaml"))
IMAGES = {"fedbench": "fedbench:cpu", "prometheus": "prom/prometheus", "grafana": "grafana/grafana"}
HOST = HostFacts(cpus=64, memory=128 * 2**30, gpus=1)
FEDERATION = "/fedbench/federation"
PATHS = Paths(
    ROOT,
    Path(FEDERATION) / "data",
    Path(FEDERATION) / "runs",
    Path(FEDERATION) / "tls",
    "10001:10001",
)


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    argv = ["docker", "compose", "version"]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


@pytest.fixture
def compose_cli() -> None:
    # Asked when the test runs: the end-to-end tests before it may have installed it.
    if not has_compose():
        pytest.skip("no `docker compose` on PATH")


needs_compose = pytest.mark.usefixtures("compose_cli")


@cache
def described() -> dict[str, Any]:
    """The services of the files in compose/, which every project takes over, and a client's."""
    files = [yaml.safe_load(path.read_text()) for path in FILES]
    services = {name: service for file in files for name, service in file["services"].items()}
    return services | {"client": project("fedbench")["services"]["legacy-pc"]}


def project(name: str) -> dict[str, Any]:
    """The generated project of a profile."""
    return compose_project(planned(), PATHS, name)


def planned() -> Plan:
    profile = load_profile("heterogeneous")
    return plan(profile, load_devices(profile), HOST)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A planned project as Compose understands it; that takes no daemon."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "compose.yaml").write_text(yaml.safe_dump(project("fedbench-merged")))
    variables = environment(planned(), PATHS, IMAGES)
    config = Compose("fedbench-merged", folder / "compose.yaml", variables).config()
    merged: dict[str, Any] = yaml.safe_load(config)
    return merged


CLIENTS = ("workstation", "laptop", "legacy-pc")
SERVICES = ("server", "prometheus", "grafana")


def assert_confined(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] in ("always", "unless-stopped")
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"start_period", "start_interval"} <= service["healthcheck"].keys()
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & service.keys()
    assert str(service["user"]).split(":")[0] not in ("0", "root")


def test_the_files_describe_these_services() -> None:
    assert described().keys() == {"client", *SERVICES}
    assert {path.name for path in FILES} == {"server.yaml", "monitoring.yaml"}


@pytest.mark.parametrize("name", ["client", *SERVICES])
def test_every_service_is_confined(name: str) -> None:
    assert_confined(name, described()[name])


def test_a_federation_never_runs_as_root() -> None:
    assert described()["server"]["user"] == described()["client"]["user"] == "${FEDBENCH_USER}"


def test_a_client_and_its_server_come_back_whatever_their_exit_code() -> None:
    # A node whose server restarts ends with code 0.
    assert described()["client"]["restart"] == described()["server"]["restart"] == "always"


@pytest.mark.parametrize("name", ["client", *SERVICES])
def test_no_log_fills_the_disk(name: str) -> None:
    options = {"max-size": "10m", "max-file": "4"}
    assert described()[name]["logging"] == {"driver": "json-file", "options": options}


@pytest.mark.parametrize(
    ("name", "folder"), [("client", f"{ROOT}/models"), ("server", "../models")]
)
def test_who_makes_models_has_the_users_own(name: str, folder: str) -> None:
    assert f"{folder}:/models:ro" in described()[name]["volumes"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_container_gets_the_docker_socket(path: Path) -> None:
    assert "docker.sock" not in path.read_text()
    assert "docker.sock" not in str(described()["client"])


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_monitoring_is_published_to_this_host_only(name: str) -> None:
    assert [port.split(":")[0] for port in described()[name]["ports"]] == ["127.0.0.1"]


def test_images_are_chosen_when_the_federation_is_brought_up() -> None:
    for service in described().values():
        assert service["image"].startswith("${FEDBENCH_")
        assert "build" not in service


@needs_compose
def test_compose_understands_the_project(merged: dict[str, Any]) -> None:
    assert merged["services"].keys() == {*CLIENTS, *SERVICES}
    assert merged["networks"]["federation"]["internal"] is True
    assert "internal" not in merged["networks"]["edge"]
    assert "docker.sock" not in str(merged)


@needs_compose
@pytest.mark.parametrize("name", [*CLIENTS, *SERVICES])
def test_every_merged_service_is_confined(name: str, merged: dict[str, Any]) -> None:
    assert_confined(name, merged["services"][name])


@needs_compose
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_sees_the_server_and_nothing_else(name: str, merged: dict[str, Any]) -> None:
    client = merged["services"][name]
    assert client["networks"].keys() == {"federation"}
    assert not {"ports", "extra_hosts", "links", "dns"} & client.keys()
    mounts = {m["source"]: (m["target"], m["read_only"]) for m in client["volumes"]}
    assert mounts == {
        f"{FEDERATION}/data/{name}": ("/data", True),
        f"{FEDERATION}/tls/ca.pem": ("/tls/ca.pem", True),
        f"{ROOT}/models": ("/models", True),
    }
    assert client["environment"]["FEDBENCH_SERVER"] == "server:9092"
    assert client["environment"]["FEDBENCH_CLIENT"] == client["hostname"] == name


@needs_compose
def test_a_client_keeps_its_limits(merged: dict[str, Any]) -> None:
    legacy = merged["services"]["legacy-pc"]
    assert (legacy["cpuset"], "cpus" in legacy) == ("1", False)
    assert int(legacy["cpu_quota"]) < int(legacy["cpu_period"])
    assert (legacy["mem_limit"], legacy["memswap_limit"]) == (str(4 * 2**30), str(4 * 2**30))
    assert legacy["environment"]["OMP_NUM_THREADS"] == "1"
    assert "deploy" not in legacy
    laptop = merged["services"]["laptop"]
    assert laptop["environment"]["FEDBENCH_GPU_MEMORY"] == str(6 * 2**30)
    assert laptop["deploy"]["resources"]["reservations"]["devices"] == [
        {"capabilities": ["gpu"], "driver": "nvidia", "device_ids": ["0"]}
    ]


@needs_compose
def test_only_three_ports_are_published(merged: dict[str, Any]) -> None:
    published = {
        name: [(port.get("host_ip"), port["published"], port["target"]) for port in ports]
        for name, service in merged["services"].items()
        if (ports := service.get("ports"))
    }
    assert published == {
        "server": [(None, "9092", 9092)],
        "prometheus": [("127.0.0.1", "9090", 9090)],
        "grafana": [("127.0.0.1", "3000", 3000)],
    }


@needs_compose
def test_the_authoritys_key_is_mounted_nowhere(merged: dict[str, Any]) -> None:
    mounts = {
        (name, mount["source"], mount.get("read_only", False))
        for name, service in merged["services"].items()
        for mount in service.get("volumes", [])
        if mount["source"].startswith(FEDERATION)
    }
    certificates = {mount for mount in mounts if "/tls" in mount[1]}
    assert certificates == {
        *((name, f"{FEDERATION}/tls/ca.pem", True) for name in CLIENTS),
        ("server", f"{FEDERATION}/tls/server", True),
    }
    writable = {(name, source) for name, source, read_only in mounts if not read_only}
    assert writable == {("server", f"{FEDERATION}/runs")}


@needs_compose
def test_mounted_files_of_the_checkout_exist(merged: dict[str, Any]) -> None:
    for service in merged["services"].values():
        for mount in service.get("volumes", []):
            if mount["source"].startswith(str(ROOT)):
                assert Path(mount["source"]).exists()
                assert mount["read_only"] is True


@needs_compose
def test_without_its_image_grafana_is_left_out(tmp_path: Path) -> None:
    profile = load_profile("legacy-pair")
    pair = plan(profile, load_devices(profile), HOST)
    paths = Paths(ROOT, tmp_path, tmp_path, tmp_path, "10001:10001")
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose_project(pair, paths)))
    variables = environment(pair, paths, IMAGES | {"grafana": None})
    config = yaml.safe_load(Compose("x", tmp_path / "compose.yaml", variables).config())
    assert config["services"].keys() == {"legacy-pc-1", "legacy-pc-2", "server", "prometheus"}
