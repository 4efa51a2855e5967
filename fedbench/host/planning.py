"""From validated configuration to a stack that is up.

Everything that can be refused is refused before anything is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from fedbench.config import Device, Experiment, Profile
from fedbench.host import bootstrap, data, ports, starting
from fedbench.host.machine import Say
from fedbench.host.plan import HostFacts, Plan, client_names, compose_project, plan
from fedbench.host.stack import PROJECT, Places, Stack, host_facts


def preview(
    places: Places, profile: Profile, devices: Mapping[str, Device]
) -> tuple[Plan, dict[str, Any]]:
    """The plan for this host and its compose project; nothing is written or started."""
    planned = plan(profile, devices, _facts())
    return planned, compose_project(planned, places.paths(), PROJECT)


def bring_up(
    places: Places,
    profile: Profile,
    devices: Mapping[str, Device],
    experiment: Experiment,
    source: Path | None,
    say: Say,
) -> Stack:
    """Brings the federation up and waits until its clients are ready.

    Raises:
        FedbenchError: the profile, the data, Docker, a port or the host stands in the way; then
            nothing was started.
    """
    data.prepare(experiment, client_names(profile), places.data, source=source, say=say)
    client = bootstrap.ensure_docker(say)
    planned = plan(profile, devices, host_facts(client))
    known = Stack.load(places)
    ports.require_free(profile.ports, known.published(client) if known else ())
    gpu = any(planned_client.gpu is not None for planned_client in planned.clients)
    images = bootstrap.ensure_images(client, say, root=places.root, cuda=gpu)
    for note in planned.notes:
        say(f"note: {note}")
    if images.grafana is None:
        say("note: Grafana is left out: its image could not be had")
    stack = Stack.write(places, planned, asdict(images))
    say(f"starting {len(planned.clients)} clients, server and monitoring")
    before = starting.starts(stack, client)
    stack.compose.up()
    starting.lift_quotas(stack, client, before)
    starting.wait_ready(stack, client, say)
    return stack


def _facts() -> HostFacts:
    # `plan` must work, and touch nothing, where Docker does not run: then this machine's facts.
    client = bootstrap.find_docker()
    if client:
        return host_facts(client)
    return HostFacts(psutil.cpu_count() or 1, psutil.virtual_memory().total)
