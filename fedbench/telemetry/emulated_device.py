"""What a client's metrics know of the device that it emulates, and the energy that follows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.records.clock import REAL_TIME, Dilation, EmulatedSeconds, WallSeconds
from fedbench.records.energy import Draw
from fedbench.telemetry.collectors import PhaseClock, phase_families
from fedbench.telemetry.companions import Companions
from fedbench.telemetry.families import family
from fedbench.telemetry.work import CLIENT_PHASES, ClientPhase

_BUSY: tuple[ClientPhase, ...] = ("training", "evaluating")
_IDLE = tuple(phase for phase in CLIENT_PHASES if phase not in _BUSY)


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
    """Models the energy of the emulated device when Prometheus asks, and yields the phases with it.

    Busy are the phases in which it trains or evaluates; `companions` are the other clients of its
    computer, None where it has none. The device has to have watts.

    Phases and energy are of one look at the clock: whoever divides joules by seconds gets watts.
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
        phase, seconds = self._phases.read()
        yield from phase_families(phase, seconds)
        energy = self._watts.energy(
            idle=self._emulated(seconds[phase] for phase in _IDLE),
            busy=self._emulated(seconds[phase] for phase in _BUSY),
            share=None if share is None else self._emulated([share]),
        )
        yield family(
            "fedbench_energy_joules_total", {("idle",): energy.idle, ("busy",): energy.busy}
        )
        yield family(
            "fedbench_device_watts",
            {("idle",): self._watts.idle, ("busy",): self._watts.busy(active)},
        )

    def _emulated(self, seconds: Iterable[float]) -> EmulatedSeconds:
        """Add wall seconds up, as exactly as a float can: so the sum grows as they do."""
        return self._dilation.emulated(WallSeconds(math.fsum(seconds)))
