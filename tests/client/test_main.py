from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from fedbench.client.__main__ import Settings, wait_for_quota
from fedbench.records import replace_text
from fedbench.telemetry.cgroup import Cgroup

ENVIRONMENT = {
    "FEDBENCH_CLIENT": "laptop-1",
    "FEDBENCH_DEVICE": "laptop",
    "FEDBENCH_SERVER": "server:9092",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("FEDBENCH_NODE", "FEDBENCH_METRICS_PORT", "FEDBENCH_CPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment()

    assert (settings.client, settings.device, settings.server) == (
        "laptop-1",
        "laptop",
        "server:9092",
    )
    assert not settings.stock
    assert settings.metrics_port == 9101
    assert settings.cpus == math.inf


@pytest.mark.parametrize(("node", "stock"), [("stock", True), ("fedbench", False)])
def test_the_kind_of_node_and_the_port_can_be_set(
    environment: pytest.MonkeyPatch, node: str, stock: bool
) -> None:
    environment.setenv("FEDBENCH_NODE", node)
    environment.setenv("FEDBENCH_METRICS_PORT", "9200")

    assert Settings.from_environment().stock is stock
    assert Settings.from_environment().metrics_port == 9200


def test_each_start_is_an_instance_of_its_own(environment: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().instance != Settings.from_environment().instance


def test_the_client_app_is_told_who_it_is_and_where_its_data_are(
    environment: pytest.MonkeyPatch,
) -> None:
    assert Settings.from_environment().node_config() == {
        "client": "laptop-1",
        "device": "laptop",
        "data": "/data",
    }


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_what_has_to_be_set_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)

    with pytest.raises(KeyError, match=name):
        Settings.from_environment()


def test_the_planned_quota_can_be_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FEDBENCH_CPUS", "0.18")

    assert Settings.from_environment().cpus == 0.18


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    """A file like the one in which the kernel keeps a container's quota, on a host of 4 cores."""
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "cpuset.cpus.effective").write_text("0-3\n")
    return folder / "cpu.max"


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("18000 100000", 0.18), ("29000 100000", 0.29), ("max 100000", 4.0), ("max 100000", math.inf)],
)
def test_a_client_under_its_quota_does_not_wait(
    quota: str, cpus: float, limit: Path, tmp_path: Path
) -> None:
    limit.write_text(f"{quota}\n")

    wait_for_quota(Cgroup(tmp_path), cpus, threading.Event())


def test_a_client_waits_for_its_quota(limit: Path, tmp_path: Path) -> None:
    limit.write_text("max 100000\n")
    arguments = (Cgroup(tmp_path), 0.18, threading.Event())
    waiting = threading.Thread(target=wait_for_quota, args=arguments, daemon=True)
    waiting.start()
    for quota in ("100000 100000", "18001 100000"):  # still more than planned
        replace_text(limit, f"{quota}\n")
        time.sleep(0.2)
        assert waiting.is_alive()

    replace_text(limit, "18000 100000\n")
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_client_that_is_told_to_stop_does_not_wait_for_its_quota(
    limit: Path, tmp_path: Path
) -> None:
    limit.write_text("max 100000\n")
    stop = threading.Event()
    stop.set()

    wait_for_quota(Cgroup(tmp_path), 0.18, stop)
