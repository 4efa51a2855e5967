from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from devices import served

from fedbench.client import worker
from fedbench.client.settings import Settings
from fedbench.client.worker import Stop, relay, stay_connected, wait_for_quota
from fedbench.records import replace_text
from fedbench.server.registry import Registry
from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.metrics import CONTAINER, STOCK

HERE = Path(__file__).parent


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    """A file like the one in which the kernel keeps a container's quota, on a host of 4 cores."""
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "cpuset.cpus.effective").write_text("0-3\n")
    return folder / "cpu.max"


@pytest.mark.parametrize("quota", ["18000 100000", "1000 1000000", "400000 100000"])
def test_a_client_under_its_quota_does_not_wait(quota: str, limit: Path, tmp_path: Path) -> None:
    limit.write_text(f"{quota}\n")

    wait_for_quota(Cgroup(tmp_path), threading.Event())


def test_a_client_waits_for_its_quota(limit: Path, tmp_path: Path) -> None:
    limit.write_text("max 100000\n")
    arguments = (Cgroup(tmp_path), threading.Event())
    waiting = threading.Thread(target=wait_for_quota, args=arguments, daemon=True)
    waiting.start()
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

    wait_for_quota(Cgroup(tmp_path), stop)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings("pc", "legacy-pc", "localhost:1", ready=tmp_path / "ready")


def test_a_client_that_lost_its_server_is_another_instance_of_the_same_process(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0)
    stop, instances = Stop(), []

    def connect(settings: Settings) -> bool:
        instances.append(settings.instance)
        stop.on_signal(signal.SIGTERM if len(instances) == 3 else signal.SIGINT, None)
        assert stop.cancelled.is_set(), "work for a server that is gone is given up"
        return True

    stay_connected(connect, settings, stop)
    assert len(set(instances)) == 3
    assert instances[0] == settings.instance
    assert stop.told


def test_a_client_that_cannot_connect_ends(settings: Settings) -> None:
    """Its container starts again, later each time."""
    stop, tries = Stop(), []
    stay_connected(lambda _: bool(tries.append(1)), settings, stop)
    assert tries == [1]
    assert not stop.told


def test_what_the_stock_node_prints_is_logged_at_its_own_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "flwr")
    relay(
        [
            "\x1b[92mINFO \x1b[0m:      Starting Flower SuperNode\n",
            "\x1b[91mERROR \x1b[0m:     gone\n",
            "Traceback: x\n",
        ]
    )
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "Starting Flower SuperNode"), ("ERROR", "gone"), ("INFO", "Traceback: x"),
    ]  # fmt: skip


@pytest.fixture
def stock(tmp_path: Path, certificates: Path) -> dict[str, str]:
    """The environment of a client whose `flower-supernode` runs on and says nothing."""
    supernode = tmp_path / "bin/flower-supernode"
    supernode.parent.mkdir()
    supernode.write_text("#!/bin/sh\nexec sleep 60\n")
    supernode.chmod(0o755)
    (tmp_path / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    return {
        "PATH": f"{supernode.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(HERE.parents[1]),
        "FEDBENCH_CLIENT": "pc",
        "FEDBENCH_DEVICE": "legacy-pc",
        "FEDBENCH_NODE": "stock",
        "FEDBENCH_METRICS_PORT": str(port),
        "FEDBENCH_DILATION": "2",
        "FEDBENCH_WATTS": "10,40",
    }


def test_a_stock_node_shows_only_what_is_known_of_it(
    stock: dict[str, str], tmp_path: Path, certificates: Path
) -> None:
    """It trains in processes of Flower's own: what this one would say of that is wrong."""
    argv = [sys.executable, str(HERE / "native_client.py"), str(tmp_path)]
    connected = "\nfedbench_client_connected 1.0\n"

    def page() -> str:
        with suppress(httpx.ConnectError):
            return httpx.get(f"http://127.0.0.1:{stock['FEDBENCH_METRICS_PORT']}/").text
        return ""

    with served(Registry(lambda _: None), certificates) as address:
        process = subprocess.Popen(argv, env=stock | {"FEDBENCH_SERVER": address})
        try:
            until(lambda: connected in page())
            shown = set(re.findall(r"^# TYPE (\S+)", page(), re.M))
        finally:
            process.terminate()
            assert process.wait(20) == 0
    names = {metric.name for metric in STOCK + CONTAINER}
    assert {name for name in names if "_gpu_" not in name} <= shown <= names


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
