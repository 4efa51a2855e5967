"""The supervisor with real processes, a real server for devices and a fake cgroup tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from devices import served

from fedbench.server.registry import Registry

HERE = Path(__file__).parent
NODE = 77
LIMIT = "killed for memory: its limit is 300 MiB (device legacy-pc)"


@pytest.fixture(params=["v1", "v2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, certificates: Path) -> Path:
    """What the client sees of its container, on a host with cgroup v1 or v2."""
    cgroup = tmp_path / "sys/fs/cgroup"
    kills, limit = cgroup / "memory.events", cgroup / "memory.max"
    if request.param == "v1":
        kills, limit = cgroup / "memory/memory.oom_control", cgroup / "memory/memory.limit_in_bytes"
    kills.parent.mkdir(parents=True)
    kills.write_text("under_oom 0\noom_kill 2\n")  # of earlier starts
    limit.write_text(f"{300 * 2**20}\n")
    (tmp_path / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    return tmp_path


class Federation:
    """A server for devices, and one client."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self._folder = folder
        self._certificates = certificates
        self.signed_off: list[int] = []
        self.registry = Registry(self.signed_off.append)

    @contextmanager
    def client(
        self, *starts: str, node: str = "fedbench", server: str | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Runs as long as the block lasts at most."""
        with served(self.registry, self._certificates) as address:
            environment = os.environ | {
                "PYTHONPATH": str(HERE.parents[1]),
                "FEDBENCH_CLIENT": "pc",
                "FEDBENCH_DEVICE": "legacy-pc",
                "FEDBENCH_SERVER": server or address,
                "FEDBENCH_NODE": node,
            }
            argv = [sys.executable, str(HERE / "supervised.py"), str(self._folder), *starts]
            with subprocess.Popen(argv, env=environment) as process:
                try:
                    yield process
                finally:
                    process.kill()

    def started(self) -> list[str]:
        file = self._folder / "started"
        return file.read_text().split() if file.exists() else []

    def ready(self) -> bool:
        return (self._folder / "ready").exists()


@pytest.fixture
def federation(folder: Path, certificates: Path) -> Federation:
    return Federation(folder, certificates)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_kill_for_memory_is_reported_and_the_client_starts_again(federation: Federation) -> None:
    with federation.client("out-of-memory", "out-of-memory", "works") as process:
        until(lambda: "works" in federation.started())

        assert federation.signed_off == [NODE, NODE]
        assert federation.registry.reason(NODE, "pc") == LIMIT
        assert [target["labels"] for target in federation.registry.targets()] == [
            {"client": "pc", "device": "legacy-pc"}
        ]
        assert federation.ready()
        process.terminate()
        assert process.wait(20) == 0
    assert not federation.ready()
    assert federation.signed_off == [NODE, NODE]


def test_a_client_that_died_of_something_else_is_reported_and_ends(federation: Federation) -> None:
    with federation.client("killed") as process:
        assert process.wait(30) == 128 + signal.SIGKILL

    assert federation.signed_off == [NODE]
    assert federation.registry.reason(NODE, "pc") == "the client's process died (signal 9)"
    assert not federation.ready()


def test_a_client_too_small_to_connect_ends(federation: Federation) -> None:
    with federation.client("too-small") as process:
        assert process.wait(30) == 128 + signal.SIGKILL

    assert federation.started() == ["too-small"]
    assert federation.signed_off == []


def test_a_client_that_lost_its_connection_says_goodbye_and_ends(federation: Federation) -> None:
    with federation.client("connection-lost") as process:
        assert process.wait(30) == 1

    assert federation.registry.targets() == []
    assert federation.signed_off == []


def test_the_stock_node_is_reported_when_a_process_of_its_is_killed(
    federation: Federation,
) -> None:
    """Which of its processes it was nobody can tell; all of them start again."""
    with federation.client("other-out-of-memory", "works", node="stock") as process:
        until(lambda: federation.started() == ["other-out-of-memory", "works"])

        assert federation.registry.reason(NODE, "pc") == LIMIT
        process.terminate()
        assert process.wait(20) == 0


def test_a_kill_of_another_process_is_not_the_clients_business(federation: Federation) -> None:
    """Such as one of `docker exec`."""
    with federation.client("other-out-of-memory") as process:
        until(lambda: federation.started() == ["other-out-of-memory"])
        process.terminate()
        assert process.wait(20) == 0

    assert federation.signed_off == []
    assert federation.registry.reason(NODE, "pc") is None


def test_a_server_that_is_gone_changes_nothing(
    federation: Federation, capfd: pytest.CaptureFixture[str]
) -> None:
    with federation.client("killed-offline", server="localhost:1") as process:
        assert process.wait(30) == 128 + signal.SIGKILL

    assert "could not tell the server" in capfd.readouterr().err
    assert not federation.ready()


def test_what_waits_imports_little() -> None:
    """It shares the device's memory with the training."""
    code = "import sys, fedbench.client.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "flwr", "httpx", "ssl", "pydantic", "numpy", "prometheus_client"}

    assert heavy & set(done.stdout.split()) == set()
