"""The CPU quotas of the clients that are up: lifted, put in force, corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedbench.engines.containers.runtime import cgroup_parents
from fedbench.engines.containers.runtime.cgroup_parents import ParentQuota
from fedbench.engines.containers.runtime.containers import UNLIMITED, Containers
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.errors import DockerError
from fedbench.host.plan.plan import MIN_QUOTA, ClientPlan


class Quotas:
    """The quotas of a stack's clients, as they were when this was made.

    Clients of one computer have the same quota, and so has the cgroup that holds them all.
    """

    def __init__(self, stack: Stack, containers: Containers) -> None:
        self._stack = stack
        self._containers = containers
        self._services = stack.services(containers)
        self._plans = {plan.name: plan for plan in stack.clients}

    def lift(self, names: Iterable[str]) -> None:
        """Lift the quotas of the named clients, and of those on the same computers.

        Raises:
            DockerError: a quota cannot be changed.
        """
        computers = {self._plans[name].computer for name in names}
        self._set({p.name: UNLIMITED for p in self._stack.clients if p.computer in computers})

    def enforce(self, names: Iterable[str]) -> None:
        """Put the planned quotas of the named clients in force where they were lifted.

        Those of one computer wait for each other.

        Raises:
            DockerError: a quota cannot be changed.
        """
        ready = set(names)
        waiting = {plan.computer for plan in self._stack.clients if plan.name not in ready}
        lifted = {
            self._plans[name].computer
            for name in ready & self._services.keys()
            if self._services[name].cpus is None
        }
        computers = lifted - waiting
        self._set({p.name: p.quota for p in self._stack.clients if p.computer in computers})

    def renew(self, names: Iterable[str]) -> None:
        """Put in force what the named clients share with others of their computers.

        Docker keeps each container's quota, but knows nothing of the cgroup that holds several.

        Raises:
            DockerError: a quota cannot be changed.
        """
        groups = {self._plans[name].group for name in names} - {None}
        running = {
            plan.name: container
            for plan in self._stack.clients
            if plan.group in groups
            and (container := self._services.get(plan.name))
            and container.is_running
        }
        self._set({name: each.cpu_quota for name, each in running.items() if each.cpus})

    def correct(self, computer: str, cpus: float) -> None:
        """Give a computer's clients a quota of so many CPUs.

        Raises:
            DockerError: a quota cannot be changed.
        """
        clients = [plan for plan in self._stack.clients if plan.computer == computer]
        self._set({plan.name: max(round(cpus * plan.period), MIN_QUOTA) for plan in clients})

    def in_force(self) -> dict[str, float]:
        """Return each computer's quota in CPUs, but of those without one."""
        quotas = {}
        for plan in self._stack.clients:
            container = self._services.get(plan.name)
            if container and container.cpus is not None:
                quotas[plan.computer] = container.cpus
        return quotas

    def _set(self, quotas: Mapping[str, int]) -> None:
        there = {name: quota for name, quota in quotas.items() if name in self._services}
        groups = {self._plans[name].group: name for name in there if self._plans[name].group}
        # A child's quota may not exceed its parent's (cgroup v1): the parent has none meanwhile.
        self._parents([self._parent(name, UNLIMITED) for name in groups.values()])
        for name, quota in there.items():
            self._update(self._plans[name], quota)
        self._parents([self._parent(name, there[name]) for name in groups.values()])

    def _parent(self, name: str, quota: int) -> ParentQuota:
        return ParentQuota(self._services[name], self._plans[name].period, quota)

    def _parents(self, quotas: Sequence[ParentQuota]) -> None:
        if quotas:
            cgroup_parents.set_quotas(self._containers, self._stack.image, quotas)

    def _update(self, plan: ClientPlan, quota: int) -> None:
        try:
            self._containers.set_quota(self._services[plan.name], plan.period, quota)
        except DockerError as error:
            hint = "`make down` takes the federation down"
            raise DockerError(error.message, hint) from None
