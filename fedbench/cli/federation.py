"""Commands about a federation: it is brought up, runs experiments, is joined, and goes down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from fedbench.cli import checkout
from fedbench.cli.options import Data, Detach, ExperimentName, Json, ProfileName, Settings
from fedbench.cli.output import console, follow_run, print_json, print_not_held, print_urls, say
from fedbench.config import load_device, load_experiment, split_overrides
from fedbench.engines.containers.runtime.stack import Stack, require
from fedbench.host.report.tables import run_tables as reports
from fedbench.host.report.tables.energy import energy_table
from fedbench.records import Summary, quota_corrections
from fedbench.records.runs import Run
from fedbench.telemetry import rapl


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
    stack = checkout.bring_up(federation, devices, chosen, data)
    _run(stack, lambda runner: runner.create(chosen, data), detach, as_json)


def run(
    experiment: ExperimentName = "digits",
    data: Data = None,
    settings: Settings = None,
    resume: Annotated[str | None, typer.Option(help="go on with this run instead")] = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run an experiment on the federation that is up."""
    stack = require(checkout.places)
    if resume is not None:
        if settings or data:
            raise typer.BadParameter("a run that goes on keeps its experiment and its data")
        _run(stack, lambda runner: runner.resume(resume), detach, as_json)
        return
    overrides, misplaced = split_overrides(settings or [])
    if misplaced:
        raise typer.BadParameter(f"{misplaced[0]} belongs to the profile: use `fedbench up`")
    chosen = load_experiment(experiment, overrides)
    _run(stack, lambda runner: runner.create(chosen, data), detach, as_json)


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
    print_urls(stack)


def down(
    volumes: Annotated[bool, typer.Option(help="forget the recorded metrics, too")] = False,
) -> None:
    """Take the federation down; runs are kept."""
    from fedbench.engines.containers import teardown

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
    container = joining.join(checkout.places, request, say)
    console.print(
        f"{request.name} joined {server} as container {container}; it takes part from the next "
        f"round on. `docker rm -f {container}` ends it.",
        highlight=False,
    )


def _run(stack: Stack, prepare: Callable[[Any], Run], detach: bool, as_json: bool) -> None:
    from fedbench.engines.containers.engine import Runner
    from fedbench.engines.containers.runtime import docker_containers

    runner = Runner(stack, docker_containers.connect(say), say)
    chosen = prepare(runner)
    process = runner.start(chosen)
    say(f"run {chosen.id}")
    if detach:
        say("it goes on by itself: `make status`, `fedbench report`")
        return
    _print_summary(follow_run(stack, runner, chosen, process), stack, as_json)


def _print_summary(summary: Summary, stack: Stack, as_json: bool) -> None:
    if as_json:
        print_json(summary.model_dump())
        return
    tables = (
        reports.device_table,
        reports.epoch_table,
        reports.resource_table,
        energy_table,
        reports.server_table,
    )
    for header, rows in (table(summary) for table in tables):
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    folder = checkout.places.runs / summary.run
    for line in quota_corrections.described(quota_corrections.read(folder)):
        console.print(f"corrected: {line}", markup=False, highlight=False, soft_wrap=True)
    for line in rapl.described(rapl.read(folder)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_not_held(reports.not_held(summary))
    if summary.dilation > 1:
        console.print(f"emulated seconds are wall seconds / {summary.dilation:g}", highlight=False)
    console.print(f"recorded in {folder}", highlight=False, soft_wrap=True)
    print_urls(stack)
