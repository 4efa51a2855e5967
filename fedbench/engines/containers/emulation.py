"""What a run is told of its devices: how fast each has to be, and what it was given for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedbench.config import Device, ModelName
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.stack import Stack, host_facts
from fedbench.host.plan import targets as workloads
from fedbench.host.plan.targets import HostSpeeds
from fedbench.host.setup.machine import Say
from fedbench.host.speed import calibration


def calibrated(
    containers: Containers,
    image: str,
    devices: Iterable[Device],
    model: ModelName,
    cache: Path,
    say: Say,
) -> HostSpeeds:
    """How fast this host trains the model, and those that the devices have figures of.

    Raises:
        ConfigError: there is no such model, or it cannot be trained.
        DockerError: it is not known yet, and cannot be measured.
    """
    models = workloads.workloads(devices, model)
    cores = host_facts(containers).cpus
    return calibration.calibrate(containers, image, models, cache, say, cores=cores)


def calibrated_for(stack: Stack, containers: Containers, say: Say, model: ModelName) -> HostSpeeds:
    """The same for the devices of a stack."""
    devices, cache = stack.devices.values(), stack.places.calibration
    return calibrated(containers, stack.image, devices, model, cache, say)


def emulation_facts(stack: Stack, model: ModelName, host: HostSpeeds) -> dict[str, Any]:
    """The key `emulation` of `run.json`.

    `targets` are samples per emulated second of each client while all of its computer train,
    `pace` what it keeps to, in samples per wall second: alone, and of all of its computer together;
    `shares` the host CPUs that this takes, `computers` which one each is on. A client on a GPU
    keeps its device's pace as well.
    """
    clients_on = Counter(client.computer for client in stack.clients)
    targets, pace = {}, {}
    for client in stack.clients:
        speed = workloads.speed(stack.devices[client.device], model, host)
        targets[client.name] = speed.of_each(clients_on[client.computer])
        if stack.devices[client.device].speed:
            wall = [speed.single / stack.dilation, speed.together / stack.dilation]
            pace[client.name] = wall
    return {
        "dilation": stack.dilation,
        "targets": {name: targets[name] for name in pace},
        "pace": pace,
        "shares": {client.name: client.need for client in stack.clients},
        "computers": {client.name: client.computer for client in stack.clients},
    }


def device_watts(stack: Stack) -> dict[str, list[float]]:
    """The key `watts` of `run.json`: idle and under load, of each device that has figures of it."""
    return {
        name: [device.watts.idle, device.watts.load]
        for name, device in stack.devices.items()
        if device.watts
    }
