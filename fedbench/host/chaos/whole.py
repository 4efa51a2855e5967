"""What can become of a whole computer or federation."""

from __future__ import annotations

from fedbench.engines.containers import teardown
from fedbench.host.chaos.victim import Fault
from fedbench.host.setup.locks import federation_lock


class Clock(Fault):
    """The clock jumps, which it does for a whole computer and for no container alone."""

    def impossible(self) -> str | None:
        """Say so."""
        return "a container has its host's clock; tests/server has clocks that jump"


class Down(Fault):
    """`fedbench down`, in mid-run."""

    def begin(self) -> None:
        """Do it."""
        with federation_lock():
            teardown.down(self.victim.stack.places, lambda _: None, volumes=False)
