"""Looking carries nothing: with Prometheus stopped, a run goes through, and is governed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from docker.models.containers import Container
from harness import ROOT, fedbench, run_id, summary, text, until

pytestmark = pytest.mark.docker


@pytest.fixture
def without_prometheus(containers: Callable[[], dict[str, Container]]) -> Iterator[None]:
    prometheus = containers()["prometheus"]
    prometheus.stop(timeout=5)
    try:
        yield
    finally:
        prometheus.start()
        until(lambda: containers()["prometheus"].health == "healthy", "Prometheus is back")


def test_a_run_without_prometheus_is_governed_to_its_end(
    without_prometheus: None, containers: Callable[[], dict[str, Container]]
) -> None:
    laptop = containers()["laptop"]
    limits = laptop.attrs["HostConfig"]
    planned = limits["CpuQuota"] / limits["CpuPeriod"]
    # Far too much: the laptop does not need it, so that the governor takes it back.
    laptop.update(cpu_period=limits["CpuPeriod"], cpu_quota=2 * limits["CpuQuota"])
    settings = ("rounds=1", "local_seconds=30", "clients=[laptop]")
    done = fedbench("run", *(f"--set={setting}" for setting in settings))
    assert done.code == 0, done.output
    run = run_id(done.output)
    result = summary(run)
    assert result["status"] == "finished"
    assert [client["error"] for client in result["rounds"][0]["clients"]] == [None]
    folder = ROOT / "runs" / run
    assert text(folder / "governor.log") == ""
    assert '"computer": "laptop"' in text(folder / "corrections.jsonl")
    limits = containers()["laptop"].attrs["HostConfig"]
    assert limits["CpuQuota"] / limits["CpuPeriod"] < 2 * planned
