"""Commands of studies: grids of runs, the paper's tables, and how true the emulation is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedbench.cli import checkout, engines
from fedbench.cli.options import Data, Engine, Json, Models, ProfileName, Settings, Workers
from fedbench.cli.output import console, follow_run, print_json, print_not_held, print_table, say
from fedbench.config import Experiment, Profile, load_devices, load_profile
from fedbench.engines.engine import Engine as AnyEngine
from fedbench.engines.engine import EngineName
from fedbench.errors import RunError
from fedbench.host.report.tables.paper import PaperRun
from fedbench.host.studies import reproduce as paper_runs
from fedbench.host.studies import sweep_table
from fedbench.host.studies.fidelity import Fidelity, fidelity_tables
from fedbench.host.studies.sweep_grid import Study, load_study
from fedbench.records import Summary, replace_text
from fedbench.records.runs import Run, RunStore

if TYPE_CHECKING:  # a slow import
    from fedbench.host.studies.sweep import SweepRuns


def sweep(
    names: Annotated[list[str], typer.Argument(help="names in configs/sweeps, or YAML files")],
    engine: Engine = "containers",
    data: Data = None,
    settings: Settings = None,
    workers: Workers = None,
    output: Annotated[
        Path | None, typer.Option(help="write the table into this CSV file, too")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a grid of experiments for one federation; what is finished is skipped."""
    studies = [load_study(name, settings or ()) for name in names]
    if len({study.sweep.name for study in studies}) < len(studies):
        raise typer.BadParameter("two sweeps have one name, and with it one folder")
    sweeps = [_prepare(study, engine, data) for study in studies]
    try:
        with checkout.saying_what_stays_up():
            for each in sweeps:
                _run_sweep(each, engine, data, workers)
    finally:
        found = {each.name: each.rows() for each in sweeps}
        if output:
            output.write_text(sweep_table.sweeps_csv(found), encoding="utf-8")
    if as_json:
        rows = [{"sweep": name, **row.model_dump()} for name, rows in found.items() for row in rows]
        print_json(rows)
    else:
        for each in sweeps:
            print_table(*sweep_table.table(each.rows()))
            console.print(f"recorded in {each.folder}", highlight=False, soft_wrap=True)
    if failures := [line for each in sweeps for line in each.failures()]:
        raise RunError(
            f"{len(failures)} runs failed\n" + "\n".join(failures),
            "the same command tries them again, and nothing else; `make logs` shows why",
        )


def fidelity(
    profile: ProfileName = "table2",
    short: Annotated[bool, typer.Option("--short", help="measure less, in a few minutes")] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Check emulated epoch times against the real ones; fails where an error is beyond its bar."""
    from fedbench.engines.containers.runtime import daemon
    from fedbench.host.studies.fidelity_runs import FidelityRuns

    chosen, federation, devices = checkout.load(profile, "fidelity", settings)
    with checkout.saying_what_stays_up():
        stack = checkout.bring_up(federation, devices, chosen, None)
        result = FidelityRuns(stack, daemon.connect(say), say, short=short).measure()
    path = result.write(checkout.places.runs)
    if as_json:
        print_json(result.model_dump())
    else:
        _print_fidelity(result)
        console.print(f"recorded in {path}", highlight=False, soft_wrap=True)
    result.require_bars()


def reproduce(
    what: Annotated[str | None, typer.Argument(help="table2 or table3")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="a published run instead: rounds x epochs, as 10x5")
    ] = None,
    models: Models = None,
    scale: Annotated[
        float, typer.Option(min=0.0001, max=1, help="the part of the data; times are scaled")
    ] = 1.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="fewer rounds than the paper's")] = None,
    engine: Engine = "containers",
    data: Data = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Workers = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="train for accuracy, at the paper's cost")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="repeat runs that are there")] = False,
    output: Annotated[
        Path | None, typer.Option("--json", help="write the figures into this file, too")
    ] = None,
) -> None:
    """Repeat the paper's runs, and print its tables with ours beside; goes on where it stopped."""
    originals = paper_runs.choose(what, run, models or [])
    found: list[tuple[PaperRun, Summary]] = []
    rows: list[paper_runs.PaperComparison] = []
    for original in originals:
        chosen = paper_runs.experiment(original, scale, rounds, seed, tuned=tuned)
        profile = load_profile(original.profile)
        prepare = partial(_engine, engine, profile, chosen, data, workers)
        runs = RunStore(checkout.places.runs)
        made = paper_runs.Reproduction(prepare, runs, engine, say, fresh=fresh)
        with checkout.saying_what_stays_up():
            summary = made.run(original, chosen, data)
        found.append((original, summary))
        rows += paper_runs.compare_with_paper(original, summary, scale, engine)
        if output:  # a long table is there as far as it came
            replace_text(output, json.dumps([row.model_dump() for row in rows], indent=2) + "\n")
    for original, summary in found:
        console.print(f"\n{original.model}, run {summary.run}", highlight=False)
        print_table(*paper_runs.curves(original, summary))
    console.print()
    print_table(*paper_runs.table(rows))
    for line in paper_runs.caveats(scale, rounds, engine, tuned=tuned):
        say(f"note: {line}")


def compare(
    run_a: Annotated[str, typer.Argument(help="a run on real devices")],
    run_b: Annotated[str, typer.Argument(help="its emulated twin")],
    as_json: Json = False,
) -> None:
    """Set an emulated run against one on real devices: the error of each client and metric."""
    from fedbench.host.studies import compare

    store = RunStore(checkout.places.runs)
    twins = compare.compare(store.find(run_a), store.find(run_b))
    if as_json:
        print_json(twins.model_dump())
        return
    print_table(*compare.table(twins))
    for line in twins.unpaired:
        say(f"note: {line}")


def _engine(
    name: EngineName, profile: Profile, chosen: Experiment, source: Path | None, workers: int | None
) -> AnyEngine:
    if name == "in-process":
        return engines.in_process(profile, workers)
    stack = checkout.bring_up(profile, load_devices(profile), chosen, source)
    return engines.in_containers(stack)


def _prepare(study: Study, engine: EngineName, source: Path | None) -> SweepRuns:
    from fedbench.engines.in_process.engine import holders
    from fedbench.host.data.prepare import Prepared
    from fedbench.host.data.prepare import prepare as prepare_data
    from fedbench.host.plan.plan import client_names
    from fedbench.host.studies.sweep import SweepRuns

    places, clients = checkout.places, client_names(study.profile)

    def prepare(experiment: Experiment) -> Prepared:
        """Prepare the data as the engine will, which then finds it."""
        if engine == "in-process":
            names, root = holders(experiment, clients), places.in_process
        else:
            names, root = clients, places.data
        return prepare_data(experiment, names, root, source=source, say=say)

    return SweepRuns(study, RunStore(places.runs), prepare, say, engine)


def _run_sweep(
    each: SweepRuns, engine: EngineName, source: Path | None, workers: int | None
) -> None:
    each.announce()
    if not each.pending():
        return
    if engine == "in-process":
        program = engines.in_process(each.study.profile, workers)
        each.run(program, source, lambda run: follow_run(program, run, None))
    else:
        _run_in_containers(each, source)


def _run_in_containers(each: SweepRuns, source: Path | None) -> None:
    from fedbench.engines.containers import startup
    from fedbench.engines.containers.runtime import daemon

    study = each.study
    # Always by the first, so that a sweep that goes on finds the federation that it began on.
    stack = checkout.bring_up(study.profile, study.devices, study.points[0].experiment, source)
    containers = daemon.connect(say)
    engine = engines.in_containers(stack)

    def follow(run: Run) -> Summary:
        try:
            return follow_run(engine, run, stack)
        except RunError:
            # What died with the run is started again by Docker: the next one waits for it.
            startup.wait_ready(stack, containers, say)
            raise

    each.run(engine, source, follow)


def _print_fidelity(result: Fidelity) -> None:
    for title, rows in fidelity_tables(result):
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1]:
            table.add_row(*row)
        console.print(table)
    console.print(
        f"seconds are emulated ones, of an epoch of 50,000 images; dilation {result.dilation:g}",
        highlight=False,
    )
    print_not_held(result.not_held)
