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
    slow = containers()["legacy-pc"]
    limits = slow.attrs["HostConfig"]
    # Far too little, on a busy host as well: the client is late and uses it up.
    little = limits["CpuQuota"] // 2
    slow.update(cpu_period=limits["CpuPeriod"], cpu_quota=little)
    settings = ("rounds=1", "local_seconds=20", "clients=[legacy-pc]")
    done = fedbench("run", *(f"--set={setting}" for setting in settings))
    assert done.code == 0, done.output
    run = run_id(done.output)
    result = summary(run)
    assert result["status"] == "finished"
    assert [client["error"] for client in result["rounds"][0]["clients"]] == [None]
    folder = ROOT / "runs" / run
    assert text(folder / "governor.log") == ""
    assert '"computer": "legacy-pc"' in text(folder / "corrections.jsonl")
    assert containers()["legacy-pc"].attrs["HostConfig"]["CpuQuota"] > little
