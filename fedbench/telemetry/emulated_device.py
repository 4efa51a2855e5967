"""What a client's metrics know of the device that it emulates, and the energy that follows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.records.clock import REAL_TIME, Dilation, WallSeconds
from fedbench.records.energy import Draw
from fedbench.telemetry.collectors import PhaseClock
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.families import family


@dataclass(frozen=True)
class EmulatedDevice:
    """Wall seconds per emulated second, and the client's watts, None where nobody knows them."""

    dilation: Dilation = REAL_TIME
    watts: Draw | None = None

    @classmethod
    def from_environment(cls) -> EmulatedDevice:
        """Read what the plan or `fedbench join` says; without it, make it a real device."""
        return cls(Dilation(os.environ.get("FEDBENCH_DILATION", "1")), Draw.from_environment())


REAL_DEVICE = EmulatedDevice()


class EnergyCollector(Collector):
    """Models the energy of the emulated device when Prometheus asks.

    Busy are the phases in which it trains or evaluates; `companions` are the other clients of its
    computer, None where it has none. The device has to have watts.
    """

    def __init__(
        self, phases: PhaseClock, device: EmulatedDevice, companions: Companions | None
    ) -> None:
        assert device.watts  # noqa: S101 (asked for by the caller)
        self._watts = device.watts
        self._dilation = device.dilation
        self._phases = phases
        self._companions = companions

    def collect(self) -> Iterator[Metric]:
        """Read the phases' clock, and the client's part of its busy time."""
        share, active = self._companions.usage() if self._companions else (None, 1)
        _, seconds = self._phases.read()
        busy = seconds["training"] + seconds["evaluating"]
        emulated = self._dilation.emulated
        energy = self._watts.energy(
            seconds=emulated(WallSeconds(sum(seconds.values()))),
            busy=emulated(WallSeconds(busy)),
            share=None if share is None else emulated(WallSeconds(share)),
        )
        yield family(
            "fedbench_energy_joules_total", {("idle",): energy.idle, ("busy",): energy.busy}
        )
        yield family(
            "fedbench_device_watts",
            {("idle",): self._watts.idle, ("busy",): self._watts.busy(active)},
        )
