from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from fedbench.client.worker import relay, wait_for_quota
from fedbench.records import replace_text
from fedbench.telemetry.cgroup import Cgroup


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
