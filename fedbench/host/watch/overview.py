"""What is up right now."""

from __future__ import annotations

from typing import Any

from docker.models.containers import Container

from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import RunError
from fedbench.host.setup import bootstrap
from fedbench.records.runs import RunStore


def status(stack: Stack) -> dict[str, Any]:
    """The stack's containers, its newest run and where to look."""
    client = bootstrap.ensure_docker(lambda _: None)
    containers = sorted(stack.containers(client).items())
    try:
        run = RunStore(stack.places.runs).find(None)
    except RunError:
        run = None
    return {
        "profile": stack.profile.name,
        "dilation": stack.dilation,
        "containers": [_row(service, container) for service, container in containers],
        "run": run and run.id,
        "run_status": run and run.state(),
        "prometheus": stack.prometheus_url,
        "grafana": stack.grafana_url,
    }


def _row(service: str, container: Container) -> dict[str, Any]:
    limits, state = container.attrs["HostConfig"], container.attrs["State"]
    quota = limits["CpuQuota"] / limits["CpuPeriod"] if limits["CpuQuota"] > 0 else "all"
    memory = limits["Memory"]
    return {
        "service": service,
        "state": state["Status"],
        "health": state.get("Health", {}).get("Status", "-"),
        "cpus": limits["CpusetCpus"] or quota,
        "memory": f"{memory / 2**20:.0f} MiB" if memory else "-",
        "killed_for_memory": state["OOMKilled"],
    }
