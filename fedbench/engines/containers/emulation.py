"""What a run is told of its devices: how fast each has to be, and what it was given for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedbench.config import Device, ModelName
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.plan import targets
from fedbench.host.plan.targets import HostSpeeds
from fedbench.host.say import Say
from fedbench.host.speed import calibration
from fedbench.learning.pace import Speed
from fedbench.records.facts import EmulatedDevices


def calibrated(
    containers: Containers,
    image: str,
    devices: Iterable[Device],
    model: ModelName,
    cache: Path,
    say: Say,
) -> HostSpeeds:
    """Return how fast this host trains the model, and those that the devices have figures of.

    Raises:
        ConfigError: there is no such model, or it cannot be trained.
        DockerError: it is not known yet, and cannot be measured.
    """
    models = targets.workloads(devices, model)
    cores = containers.host().cpus
    return calibration.calibrate(containers, image, models, cache, say, cores=cores)


def calibrated_for(stack: Stack, containers: Containers, say: Say, model: ModelName) -> HostSpeeds:
    """Return the same for the devices of a stack."""
    devices, cache = stack.devices.values(), stack.places.calibration
    return calibrated(containers, stack.image, devices, model, cache, say)


def speeds_for(
    stack: Stack, containers: Containers, say: Say, model: ModelName
) -> Mapping[str, Speed]:
    """Return what each device of the stack trains of the model, in samples per emulated second.

    Of the model that the stack was planned for these are the plan's own: its quotas are made for
    them. A later calibration would only make targets that nobody planned for.

    Raises:
        ConfigError, DockerError: as `calibrated`, of another model.
    """
    if model == stack.model:
        return stack.speeds
    host = calibrated_for(stack, containers, say, model)
    return targets.speeds(stack.devices.values(), model, host)


def emulated_devices(stack: Stack, speeds: Mapping[str, Speed]) -> EmulatedDevices:
    """Return what a run of devices with these speeds is told of them.

    A client on a GPU keeps its device's pace as well; one whose device has no speed has none.
    """
    clients_on = Counter(client.computer for client in stack.clients)
    paced = [client for client in stack.clients if stack.devices[client.device].speed]
    return EmulatedDevices(
        dilation=stack.dilation,
        targets={
            client.name: speeds[client.device].of_each(clients_on[client.computer])
            for client in paced
        },
        pace={
            client.name: Speed(*map(stack.dilation.wall_rate, speeds[client.device]))
            for client in paced
        },
        shares={client.name: client.need for client in stack.clients},
        computers={client.name: client.computer for client in stack.clients},
    )


def device_watts(stack: Stack) -> dict[str, tuple[float, float]]:
    """Return the watts, idle and under load, of each device that has figures of it."""
    return {
        name: (device.watts.idle, device.watts.load)
        for name, device in stack.devices.items()
        if device.watts
    }
