"""What a client's metrics know of the device that it emulates, and the energy that follows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.telemetry.collectors import PhaseClock
from fedbench.telemetry.energy import modelled
from fedbench.telemetry.families import family


@dataclass(frozen=True)
class EmulatedDevice:
    """Wall seconds per emulated second, and watts (idle, load), None where nobody knows them."""

    dilation: float = 1.0
    watts: tuple[float, float] | None = None

    @classmethod
    def from_environment(cls) -> EmulatedDevice:
        """As the plan or `fedbench join` says it; a real device of unknown watts without them."""
        dilation = float(os.environ.get("FEDBENCH_DILATION", "1"))
        if "FEDBENCH_WATTS" not in os.environ:
            return cls(dilation)
        idle, load = os.environ["FEDBENCH_WATTS"].split(",")
        return cls(dilation, (float(idle), float(load)))


REAL_DEVICE = EmulatedDevice()


class EnergyCollector(Collector):
    """Models the energy of the emulated device when Prometheus asks.

    Busy are the phases in which it trains or evaluates. The device has to have watts.
    """

    def __init__(self, phases: PhaseClock, device: EmulatedDevice) -> None:
        assert device.watts  # noqa: S101 (asked for by the caller)
        self._idle_watts, self._load_watts = device.watts
        self._dilation = device.dilation
        self._phases = phases

    def collect(self) -> Iterator[Metric]:
        """Read the phases' clock."""
        _, seconds = self._phases.read()
        busy = seconds["training"] + seconds["evaluating"]
        energy = modelled(
            self._idle_watts,
            self._load_watts,
            busy=busy / self._dilation,
            seconds=sum(seconds.values()) / self._dilation,
        )
        yield family(
            "fedbench_energy_joules_total", {("idle",): energy.idle, ("busy",): energy.busy}
        )
        yield family(
            "fedbench_device_watts", {("idle",): self._idle_watts, ("busy",): self._load_watts}
        )
