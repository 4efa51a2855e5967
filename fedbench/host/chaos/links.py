"""What can become of a container's link to its network."""

from __future__ import annotations

from contextlib import suppress

from fedbench.engines.containers.runtime import networks
from fedbench.errors import DockerError
from fedbench.host.chaos.victim import Fault
from fedbench.host.plan.networks import unapplied


class Cut(Fault):
    """The victim's link is down, as if its cable was pulled."""

    def begin(self) -> None:
        """Do it."""
        self._switch(up=False)

    def end(self) -> None:
        """Undo it."""
        with suppress(DockerError):  # a container that started again has a link that is up
            self._switch(up=True)

    def _switch(self, *, up: bool) -> None:
        victim = self.victim
        networks.switch(victim.containers, victim.stack.image, victim.container(), up=up)


class Link(Fault):
    """The victim's link is slow, late or lossy."""

    def impossible(self) -> str | None:
        """Say what the kernel lacks for it."""
        assert self.scenario.network  # noqa: S101 (the scenario is checked)
        kernel = networks.probe(self.victim.containers, self.victim.stack.image)
        return "; ".join(unapplied(self.scenario.network, kernel)) or None

    def begin(self) -> None:
        """Do it."""
        victim = self.victim
        pair = (victim.container(), self.scenario.network)
        networks.shape(victim.containers, victim.stack.image, [pair])

    def end(self) -> None:
        """Undo it."""
        victim = self.victim
        pair = (victim.container(), victim.stack.networks.get(victim.service))
        with suppress(DockerError):  # it is gone
            networks.shape(victim.containers, victim.stack.image, [pair])
