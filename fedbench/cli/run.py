"""The command that executes an experiment: in containers, or in one program."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer
from rich.table import Table

from fedbench.cli import checkout, engines
from fedbench.cli.options import Data, Detach, Engine, Json, Settings, Workers
from fedbench.cli.output import console, follow_run, print_json, print_not_held, print_urls, say
from fedbench.config import load_experiment, load_profile, split_overrides
from fedbench.engines.containers.runtime.stack import Stack, require
from fedbench.engines.engine import Engine as AnyEngine
from fedbench.engines.engine import EngineName
from fedbench.host.report.tables import run_tables
from fedbench.host.setup.locks import federation_lock
from fedbench.records import Summary, quota_corrections
from fedbench.records.runs import Run, RunStore
from fedbench.telemetry import rapl

PROFILE = "heterogeneous"


def run(
    experiment: Annotated[
        str | None, typer.Argument(help="name in configs/experiments, or a YAML file [digits]")
    ] = None,
    named: Annotated[
        str | None, typer.Option("--experiment", "-e", help="the same, as an option")
    ] = None,
    engine: Engine = "containers",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="whose clients take part: in containers those that are up, or else brings them "
            f"up; in-process {PROFILE} by default",
        ),
    ] = None,
    data: Data = None,
    settings: Settings = None,
    resume: Annotated[str | None, typer.Option(help="go on with this run instead")] = None,
    workers: Workers = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run an experiment: on the federation that is up, or in one program without Docker."""
    if experiment and named and experiment != named:
        raise typer.BadParameter(f"two experiments: {experiment} and --experiment {named}")
    if resume is not None and (experiment or named or settings or data or profile):
        raise typer.BadParameter("a run that goes on keeps its experiment and its data")
    with _alone(engine, resume):
        if resume is None:
            chosen = experiment or named or "digits"
            executor, made, stack = _create(chosen, engine, profile, data, settings, workers)
        else:
            executor, made, stack = _resume(resume, workers)
        executor.start(made)
    end(executor, made, stack, detach=detach, as_json=as_json)


def end(engine: AnyEngine, run: Run, stack: Stack | None, *, detach: bool, as_json: bool) -> None:
    """Follow a run that was started, unless `detach`, and print its tables or its summary."""
    if detach:
        say(f"run {run.id}")
        say("it goes on by itself: `make status`, `fedbench report`")
        return
    _print_summary(follow_run(engine, run, stack), stack, as_json)


def _alone(engine: EngineName, resume: str | None) -> AbstractContextManager[None]:
    """Keep others from the federation, if it is to make the run."""
    store = RunStore(checkout.places.runs)
    in_containers = store.find(resume).emulates if resume is not None else engine == "containers"
    return federation_lock() if in_containers else nullcontext()


def _create(
    experiment: str,
    engine: EngineName,
    profile: str | None,
    data: Data,
    settings: Settings,
    workers: int | None,
) -> tuple[AnyEngine, Run, Stack | None]:
    for_experiment, for_profile = split_overrides(settings or [])
    if engine == "in-process":
        chosen = load_experiment(experiment, for_experiment)
        program = engines.in_process(load_profile(profile or PROFILE, for_profile), workers)
        return program, program.create(chosen, data), None
    if profile:
        chosen = load_experiment(experiment, for_experiment)
        stack = checkout.ensure_up(profile, for_profile, chosen, data)
    else:
        stack = require(checkout.places)
        if for_profile:
            raise typer.BadParameter(f"{for_profile[0]} belongs to the profile: use `fedbench up`")
        chosen = load_experiment(experiment, for_experiment)
    containers = engines.in_containers(stack)
    return containers, containers.create(chosen, data), stack


def _resume(name: str, workers: int | None) -> tuple[AnyEngine, Run, Stack | None]:
    """Go on with a run in the engine that it was made by."""
    known = RunStore(checkout.places.runs).find(name)
    if not known.emulates:
        program = engines.in_process(known.profile(), workers)
        return program, program.resume(name), None
    stack = require(checkout.places)
    containers = engines.in_containers(stack)
    return containers, containers.resume(name), stack


def _print_summary(summary: Summary, stack: Stack | None, as_json: bool) -> None:
    if as_json:
        print_json(summary.model_dump())
        return
    tables = (
        run_tables.device_table,
        run_tables.epoch_table,
        run_tables.resource_table,
        run_tables.energy_table,
        run_tables.server_table,
    )
    for header, rows in (run_tables.shown(table(summary), summary) for table in tables):
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    folder = checkout.places.runs / summary.run
    for line in quota_corrections.described(quota_corrections.read(folder)):
        console.print(f"corrected: {line}", markup=False, highlight=False, soft_wrap=True)
    for line in rapl.described(rapl.read(folder)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_not_held(run_tables.not_held(summary))
    if summary.dilation > 1:
        console.print(f"emulated seconds are wall seconds / {summary.dilation:g}", highlight=False)
    console.print(f"recorded in {folder}", highlight=False, soft_wrap=True)
    if stack:
        print_urls(stack)
