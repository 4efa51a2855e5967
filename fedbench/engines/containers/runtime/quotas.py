"""The CPU quotas of the clients that are up: lifted, put in force, corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import docker
from docker.errors import APIError
from docker.models.containers import Container

from fedbench.engines.containers.runtime import cgroup_parents
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError
from fedbench.host.plan.plan import MIN_QUOTA, ClientPlan

_UNLIMITED = -1


class Quotas:
    """Those of one stack's containers, as they were found.

    Clients of one computer have the same quota, and so has the cgroup that holds them all.
    """

    def __init__(
        self, stack: Stack, client: docker.DockerClient, found: Mapping[str, Container]
    ) -> None:
        self._stack = stack
        self._client = client
        self._found = found
        self._plans = {plan.name: plan for plan in stack.clients}

    def lift(self, names: Iterable[str]) -> None:
        """Lifts the quotas of the named clients, and of those on the same computers.

        Raises:
            DockerError: a quota cannot be changed.
        """
        computers = {self._plans[name].computer for name in names}
        self._set({p.name: _UNLIMITED for p in self._stack.clients if p.computer in computers})

    def enforce(self, names: Iterable[str]) -> None:
        """Puts the planned quotas of the named clients in force where they were lifted.

        Those of one computer wait for each other.

        Raises:
            DockerError: a quota cannot be changed.
        """
        ready = set(names)
        waiting = {plan.computer for plan in self._stack.clients if plan.name not in ready}
        lifted = {
            self._plans[name].computer
            for name in ready & self._found.keys()
            if self._found[name].attrs["HostConfig"]["CpuQuota"] <= 0
        }
        computers = lifted - waiting
        self._set({p.name: p.quota for p in self._stack.clients if p.computer in computers})

    def correct(self, computer: str, cpus: float) -> None:
        """Gives a computer's clients a quota of so many CPUs.

        Raises:
            DockerError: a quota cannot be changed.
        """
        clients = [plan for plan in self._stack.clients if plan.computer == computer]
        self._set({plan.name: max(round(cpus * plan.period), MIN_QUOTA) for plan in clients})

    def in_force(self) -> dict[str, float]:
        """The quota of each computer as it is, in CPUs; none of one without."""
        limits = {
            plan.computer: self._found[plan.name].attrs["HostConfig"]
            for plan in self._stack.clients
            if plan.name in self._found
        }
        return {
            computer: limit["CpuQuota"] / limit["CpuPeriod"]
            for computer, limit in limits.items()
            if limit["CpuQuota"] > 0
        }

    def _set(self, quotas: Mapping[str, int]) -> None:
        if not quotas:
            return
        quotas = {name: quota for name, quota in quotas.items() if name in self._found}
        groups = {self._plans[name].group: name for name in quotas if self._plans[name].group}
        tops = {
            self._found[name]: (self._plans[name].period, quotas[name]) for name in groups.values()
        }
        # A child's quota may not exceed its parent's (cgroup v1): the parent has none meanwhile.
        self._parents({container: (period, _UNLIMITED) for container, (period, _) in tops.items()})
        for name, quota in quotas.items():
            _update(self._found[name], self._plans[name], quota)
        self._parents(tops)

    def _parents(self, tops: Mapping[Container, tuple[int, int]]) -> None:
        if tops:
            cgroup_parents.set_quotas(self._client, self._stack.image, tops)


def _update(container: Container, plan: ClientPlan, quota: int) -> None:
    try:
        container.update(cpu_period=plan.period, cpu_quota=quota)
    except APIError as error:
        raise DockerError(
            f"{container.name}: its CPU quota cannot be changed: {error.explanation}",
            "`make down` takes the federation down",
        ) from None
