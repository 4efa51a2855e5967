"""Commands about a federation: it is brought up, runs experiments, is joined, and goes down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from fedbench.cli import checkout, engines
from fedbench.cli.options import Data, Detach, ExperimentName, Json, ProfileName, Settings
from fedbench.cli.output import console, print_json, print_urls, say
from fedbench.cli.run import end
from fedbench.config import load_device
from fedbench.engines.containers.runtime.stack import require
from fedbench.host.setup.locks import federation_lock


def up(
    profile: ProfileName = "heterogeneous",
    experiment: ExperimentName = "digits",
    data: Data = None,
    settings: Settings = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Bring a federation up and run an experiment on it; the federation stays up."""
    chosen, federation, devices = checkout.load(profile, experiment, settings)
    with federation_lock():
        stack = checkout.bring_up(federation, devices, chosen, data)
        engine = engines.in_containers(stack)
        run = engine.create(chosen, data)
        engine.start(run)
    end(engine, run, stack, detach=detach, as_json=as_json)


def plan(
    profile: ProfileName = "heterogeneous", settings: Settings = None, as_json: Json = False
) -> None:
    """Print the compose project that `up` would start; touches nothing."""
    from fedbench.engines.containers import bring_up

    _, federation, devices = checkout.load(profile, "digits", settings)
    planned, project = bring_up.preview(checkout.places, federation, devices)
    for note in planned.notes:
        say(f"note: {note}")
    console.print(
        json.dumps(project, indent=2) if as_json else yaml.safe_dump(project, sort_keys=False),
        soft_wrap=True, highlight=False, markup=False,
    )  # fmt: skip


def status(as_json: Json = False) -> None:
    """Show the containers of the federation that is up, its run and its dashboards."""
    from fedbench.host.watch import overview

    stack = require(checkout.places)
    state = overview.status(stack)
    if as_json:
        print_json(state)
        return
    table = Table("service", "state", "health", "cpus", "memory limit")
    for row in state["containers"]:
        table.add_row(*(str(row[key]) for key in ("service", "state", "health", "cpus", "memory")))
    console.print(table)
    if state["run"]:
        console.print(f"run {state['run']}: {state['run_status']}", highlight=False)
    for problem in state["problems"]:
        console.print(f"problem: {problem}", highlight=False, markup=False, soft_wrap=True)
    print_urls(stack)


def down(
    volumes: Annotated[bool, typer.Option(help="forget the recorded metrics, too")] = False,
) -> None:
    """Take the federation down; runs are kept."""
    from fedbench.engines.containers import teardown

    with federation_lock():
        teardown.down(checkout.places, say, volumes=volumes)


def join(
    server: Annotated[str, typer.Option(help="host:port of the federation's server")],
    device: Annotated[str, typer.Option(help="name in configs/devices, or a YAML file")],
    name: Annotated[
        str | None, typer.Option(help="the client's name; the device's by default")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="the federation's ca.pem")] = None,
    data: Data = None,
    samples: Annotated[int | None, typer.Option(help="training images it holds")] = None,
    metrics_port: Annotated[int, typer.Option(help="port on this host for its metrics")] = 9101,
) -> None:
    """Join a running federation from this computer, within a device's limits."""
    from fedbench.engines.containers import join as joining

    profile = load_device(device)
    request = joining.Request(
        server, profile, name or profile.name, ca, data, samples, metrics_port
    )
    with federation_lock():
        container = joining.join(checkout.places, request, say)
    console.print(
        f"{request.name} joined {server} as container {container}; it takes part from the next "
        f"round on. `docker rm -f {container}` ends it.",
        highlight=False,
    )
