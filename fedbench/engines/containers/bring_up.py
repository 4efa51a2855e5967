"""From validated configuration to a stack that is up.

Everything that can be refused is refused before anything is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from fedbench.config import Device, Experiment, ModelName, Profile, load_networks
from fedbench.engines.containers import startup
from fedbench.engines.containers.emulation import calibrated
from fedbench.engines.containers.engine import require_over
from fedbench.engines.containers.runtime import daemon, links, ports
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.networks import probe
from fedbench.engines.containers.runtime.stack import Stack, paths
from fedbench.host.data import prepare
from fedbench.host.plan.plan import HostFacts, Plan, client_names, computers, plan
from fedbench.host.plan.project import compose_project
from fedbench.host.say import Say
from fedbench.host.setup import bootstrap
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import logs
from fedbench.records.runs import RunStore


def preview(
    places: Places, profile: Profile, devices: Mapping[str, Device]
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan for this host and its compose project; nothing is written or started."""
    host = _facts()
    planned = plan(profile, devices, host)
    note = "this host's own speed is not looked at here: `up` calibrates, and plans anew"
    planned = replace(planned, notes=(*planned.notes, note))
    return planned, compose_project(planned, paths(places), PROJECT, host.cgroup_driver)


def bring_up(
    places: Places,
    profile: Profile,
    devices: Mapping[str, Device],
    experiment: Experiment,
    source: Path | None,
    say: Say,
) -> Stack:
    """Bring the federation up and wait until its clients are ready.

    Raises:
        FedbenchError: the profile, the data, Docker, a port or the host stands in the way; then
            nothing was started.
    """
    prepare.prepare(experiment, client_names(profile), places.data, source=source, say=say)
    with bootstrap.alone_on_host(say):  # until it has containers, for which Docker is kept
        containers = daemon.connect(say)
        stack, before = _start(places, profile, devices, experiment.model, containers, say)
    startup.lift_quotas(stack, containers, before)
    startup.wait_ready(stack, containers, say)
    links.enforce(stack, containers)
    return stack


def _start(
    places: Places,
    profile: Profile,
    devices: Mapping[str, Device],
    model: ModelName,
    containers: Containers,
    say: Say,
) -> tuple[Stack, startup.Starts]:
    """Start what is planned; return it, and the starts of containers that were there before."""
    host = containers.host()
    networks = load_networks(profile, devices)
    # Refuses names and GPUs that cannot be, before anything is built; the speed is measured later.
    made = computers(profile, devices, host, networks)
    known = Stack.load(places)
    if known:
        require_over(known, containers)
    ports.require_free(profile.ports, known.published(containers) if known else ())
    gpu = any(computer.gpu is not None for computer in made)
    images = bootstrap.ensure_images(containers, say, root=places.root, cuda=gpu)
    measured = calibrated(
        containers, images.fedbench, devices.values(), model, places.calibration, say
    )
    kernel = probe(containers, images.fedbench) if any(networks) else None
    planned = plan(profile, devices, host, measured, model, networks, kernel)
    for note in planned.notes:
        say(f"note: {note}")
    if images.grafana is None:
        say("note: Grafana is left out: its image could not be had")
    stack = Stack.write(places, planned, devices, asdict(images), host.cgroup_driver)
    say(f"starting {len(planned.clients)} clients, server and monitoring")
    RunStore(places.runs).end(PROJECT)
    logs.keep_all(places, containers, say)  # a container that has changed is replaced
    before = startup.starts(stack, containers)
    stack.compose.up()
    return stack, before


def _facts() -> HostFacts:
    # `plan` must work, and touch nothing, where Docker does not run: then this machine's facts.
    containers = daemon.find()
    if containers:
        return containers.host()
    return HostFacts(psutil.cpu_count() or 1, psutil.virtual_memory().total)
