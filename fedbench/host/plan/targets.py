"""What each device trains of a model, from its profile's figures and this host's own speed. Pure.

A profile has the speed of one workload, rarely of all. That of another model is predicted: the
device's figure times how much faster or slower the host itself trains that model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fedbench.config import Device, ModelName
from fedbench.learning.pace import Speed


class HostSpeed(Protocol):
    """What this host trains of one model, as `fedbench calibrate` measured it."""

    @property
    def by_threads(self) -> Mapping[int, float]:
        """Samples/s by number of threads, each with a core of its own."""

    @property
    def busy(self) -> float:
        """Samples/s of one thread while every core is busy."""

    @property
    def step_cpu_seconds(self) -> float:
        """CPU time of a step of 32 samples."""

    @property
    def of_reference(self) -> float:
        """Its samples/s for each of MobileNetV2's, measured in turns."""


HostSpeeds = Mapping[str, HostSpeed]


@dataclass(frozen=True)
class Assumed:
    """A host that was not calibrated: `one` samples/s on one core, 1.7 times as many on two."""

    one: float

    @property
    def by_threads(self) -> Mapping[int, float]:
        """The same as `HostSpeed` has it."""
        return {2**doubling: self.one * 1.7**doubling for doubling in range(5)}

    @property
    def busy(self) -> float:
        """The same as `HostSpeed` has it."""
        return self.one

    @property
    def step_cpu_seconds(self) -> float:
        """The same as `HostSpeed` has it."""
        return 32 / self.one

    @property
    def of_reference(self) -> float:
        """The same as `HostSpeed` has it."""
        return self.one / _REFERENCE


_REFERENCE = 913.0


class _AssumedSpeeds(dict[str, HostSpeed]):
    """Any other model is taken to be as fast as MobileNetV2: `up` measures it."""

    def __missing__(self, model: str) -> HostSpeed:
        return Assumed(_REFERENCE)


ASSUMED: HostSpeeds = _AssumedSpeeds(
    mobilenet_v1=Assumed(830.0),
    mobilenet_v2=Assumed(_REFERENCE),
    mobilenet_v3_small=Assumed(1866.0),
    mobilenet_v3_large=Assumed(698.0),
)
"""A Xeon of 2023 (BENCHMARKS.md): to plan with where nothing was measured yet."""


def workload(device: Device, model: ModelName) -> ModelName:
    """Return the model whose speed says how fast the device is: `model` itself if known."""
    if model in device.speed or not device.speed:
        return model
    return "mobilenet_v2" if "mobilenet_v2" in device.speed else next(iter(device.speed))


def workloads(devices: Iterable[Device], model: ModelName) -> list[ModelName]:
    """Return all models that the host has to be calibrated for."""
    return sorted({model, *(workload(device, model) for device in devices)})


def speed(device: Device, model: ModelName, host: HostSpeeds) -> Speed:
    """Return the samples per emulated second of one client on the device, and of several together.

    A device without a speed is taken to have cores like the host's.
    """
    known = workload(device, model)
    if not device.speed:
        single = _of_cores(device.cores, host[model].by_threads)
        return Speed(single, single)
    ratio = host[model].of_reference / host[known].of_reference
    single = device.speed[known] * ratio
    return Speed(single, device.capacity.get(known, device.speed[known]) * ratio)


def speeds(devices: Iterable[Device], model: ModelName, host: HostSpeeds) -> dict[str, Speed]:
    """Return what each of the devices trains, as `speed` has it, by the device's name."""
    return {device.name: speed(device, model, host) for device in devices}


def loaded(host: HostSpeed) -> dict[int, float]:
    """Return the samples/s by threads, less what busy neighbours cost."""
    cost = min(1.0, host.busy / host.by_threads[1])
    return {threads: speed * cost for threads, speed in host.by_threads.items()}


def _of_cores(cores: float, by_threads: Mapping[int, float]) -> float:
    fitting = [speed for threads, speed in by_threads.items() if threads <= cores]
    return max(fitting, default=cores * by_threads[1])
