"""Energy, modelled: what the device's profile says that it draws, for the time that it was busy.

It is of the emulated device, in its own seconds, and no measurement; a host's counters (RAPL) are
another number and never added to it. As Mathur et al. 2021 (arXiv:2104.03042), kJ per device.

A computer of n clients draws idle watts all the time, and load watts while any of them is busy.
One client's part of that, over T seconds:

    joules = idle / n * T + (load - idle) * S        S = the integral of 1/k over its busy time

with k the clients that are busy on its computer at the moment (`telemetry/companions.py`). So a
computer's clients never draw more than load * T together, and one alone draws what it always did.

A live counter asks for joules again and again. It must never fall, not by a float's last digit, or
Prometheus takes it for one that began anew. So idle seconds are given, and not what is left of T.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from fedbench.records.clock import EmulatedSeconds

_VARIABLE = "FEDBENCH_WATTS"


@dataclass(frozen=True)
class Energy:
    """Joules that a client draws: `busy` while it trains or evaluates, else `idle`."""

    idle: float
    busy: float

    @property
    def total(self) -> float:
        """Joules of both together."""
        return self.idle + self.busy


@dataclass(frozen=True)
class Draw:
    """Watts of a client: `idle` its part of its computer's, `load` while it alone is busy there."""

    idle: float
    load: float

    @classmethod
    def of(cls, idle: float, load: float, clients: int = 1) -> Draw:
        """Return the draw of each of so many clients of a computer with these watts."""
        return cls(idle / clients, idle / clients + load - idle)

    @classmethod
    def from_environment(cls) -> Draw | None:
        """Read what `environment` wrote; None where nobody knows."""
        if _VARIABLE not in os.environ:
            return None
        idle, load = os.environ[_VARIABLE].split(",")
        return cls(float(idle), float(load))

    def environment(self) -> dict[str, str]:
        """Return what tells a client's container."""
        return {_VARIABLE: f"{self.idle:g},{self.load:g}"}

    def busy(self, active: int = 1) -> float:
        """Return the watts while the client is one of so many that are busy on its computer."""
        return self.idle + (self.load - self.idle) / active

    def energy(
        self,
        *,
        idle: EmulatedSeconds,
        busy: EmulatedSeconds,
        share: EmulatedSeconds | None = None,
    ) -> Energy:
        """Return the energy of a client that was `idle` and `busy` for so long; all are emulated.

        `share` is what it has of its busy seconds as its own; all of them by default. Where none of
        the three falls, neither energy does.
        """
        alone = busy if share is None else min(share, busy)  # two clocks may differ by a little
        return Energy(self.idle * idle, self.idle * busy + (self.load - self.idle) * alone)
