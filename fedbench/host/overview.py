"""What is up right now, and what it logged."""

from __future__ import annotations

from collections.abc import Iterator
from subprocess import PIPE, STDOUT, Popen
from typing import Any

from docker.models.containers import Container

from fedbench.errors import DockerError, FedbenchError, RunError
from fedbench.host import bootstrap
from fedbench.host.runs import RunStore
from fedbench.host.stack import Stack


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


def logs(stack: Stack, service: str | None, *, follow: bool, tail: int) -> Iterator[str]:
    """Lines of the containers' logs.

    Raises:
        FedbenchError: there is no such service.
        DockerError: the command failed.
    """
    monitoring = ["prometheus", *(["grafana"] if stack.grafana_url else [])]
    known = ["server", *monitoring, *(client.name for client in stack.clients)]
    if service is not None and service not in known:
        raise FedbenchError(f"no service {service!r}", f"there are {', '.join(known)}")
    arguments = ["logs", "--no-color", "--tail", str(tail)]
    arguments += ["--follow"] if follow else []
    argv = stack.compose.command(*arguments, *([service] if service else []))
    with Popen(
        argv,
        env=stack.compose.environment(),
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 (asked for above)
        for line in process.stdout:
            yield line.rstrip("\n")
    if process.returncode:
        raise DockerError("`docker compose logs` failed", "see what it printed above")


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
