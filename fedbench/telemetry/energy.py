"""Energy, modelled: what the device's profile says that it draws, for the time that it was busy.

It is of the emulated device, in its own seconds, and no measurement; a host's counters (RAPL) are
another number and never added to it. As Mathur et al. 2021 (arXiv:2104.03042), kJ per device.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Energy:
    """Joules that a device draws: `busy` while it trains or evaluates, else `idle`."""

    idle: float
    busy: float

    @property
    def total(self) -> float:
        """Of both."""
        return self.idle + self.busy


def modelled(idle_watts: float, load_watts: float, *, busy: float, seconds: float) -> Energy:
    """Energy over `seconds`, of which the device was `busy`; both are emulated seconds."""
    return Energy(idle_watts * max(seconds - busy, 0.0), load_watts * busy)
