"""The commands; the only module that prints or exits."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
import yaml
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fedbench.config import (
    Device,
    Experiment,
    Profile,
    available,
    load_device,
    load_devices,
    load_experiment,
    load_profile,
    parse_name,
    split_overrides,
)
from fedbench.errors import FedbenchError, RunError
from fedbench.host import corrections, rapl, sweep_table
from fedbench.host import report as reports
from fedbench.host import reproduce as repeating
from fedbench.host.datasets import local_cifar10
from fedbench.host.energy import energy_table
from fedbench.host.fidelity import Fidelity
from fedbench.host.reference import PaperRun
from fedbench.host.reporting import Form
from fedbench.host.runs import Run, RunStore
from fedbench.host.stack import Places, Stack, require
from fedbench.host.sweep import Study, load_study
from fedbench.naming import MODELS, parse_model
from fedbench.records import Summary, replace_text

if TYPE_CHECKING:  # slow imports
    from fedbench.host.runner import Runner
    from fedbench.host.sweeping import Sweeping

app = typer.Typer(
    help="A federation of unequal computers on one machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# A pipe has no width of its own: room for whole words.
console = Console(width=None if sys.stdout.isatty() else 140)
progress = Console(stderr=True)
places = Places(Path(__file__).resolve().parent.parent)

ProfileName = Annotated[str, typer.Argument(help="name in configs/profiles, or a YAML file")]
ExperimentName = Annotated[
    str, typer.Option("--experiment", "-e", help="name in configs/experiments, or a YAML file")
]
Source = Annotated[
    Path | None,
    typer.Option("--data", help="folder of Parquet files or of images as <class>/..."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="override any key, e.g. --set rounds=5")
]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
Detach = Annotated[bool, typer.Option("--detach", help="return as soon as the run has started")]


def _model(value: str) -> str:
    try:
        return parse_model(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", parser=_model, metavar="NAME", help="the study's by default"),
]


@app.command()
def up(
    profile: ProfileName = "heterogeneous",
    experiment: ExperimentName = "digits",
    data: Source = None,
    settings: Settings = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Bring a federation up and run an experiment on it; the federation stays up."""
    chosen, federation, devices = _load(profile, experiment, settings)
    stack = _bring_up(federation, devices, chosen, data)
    _run(stack, lambda runner: runner.create(chosen, data), detach, as_json)


@app.command()
def run(
    experiment: ExperimentName = "digits",
    data: Source = None,
    settings: Settings = None,
    resume: Annotated[str | None, typer.Option(help="go on with this run instead")] = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run an experiment on the federation that is up."""
    stack = require(places)
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


@app.command()
def sweep(
    names: Annotated[list[str], typer.Argument(help="names in configs/sweeps, or YAML files")],
    data: Source = None,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="write the table into this CSV file, too")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a grid of experiments on one federation; what is finished is skipped."""
    studies = [load_study(name, settings or ()) for name in names]
    if len({study.sweep.name for study in studies}) < len(studies):
        raise typer.BadParameter("two sweeps have one name, and with it one folder")
    sweeps = [_prepare(study, data) for study in studies]
    try:
        for each in sweeps:
            _run_sweep(each, data)
    finally:
        found = {each.name: each.rows() for each in sweeps}
        if output:
            output.write_text(sweep_table.as_csv(found), encoding="utf-8")
    if as_json:
        rows = [{"sweep": name, **row.model_dump()} for name, rows in found.items() for row in rows]
        _print_json(rows)
    else:
        for each in sweeps:
            _print_table(*sweep_table.table(each.rows()))
            console.print(f"recorded in {each.folder}", highlight=False, soft_wrap=True)
    if failures := [line for each in sweeps for line in each.failures()]:
        raise RunError(
            f"{len(failures)} runs failed\n" + "\n".join(failures),
            "the same command tries them again, and nothing else; `make logs` shows why",
        )


@app.command()
def plan(
    profile: ProfileName = "heterogeneous", settings: Settings = None, as_json: Json = False
) -> None:
    """Print the compose project that `up` would start; touches nothing."""
    from fedbench.host import planning

    _, federation, devices = _load(profile, "digits", settings)
    planned, project = planning.preview(places, federation, devices)
    for note in planned.notes:
        _say(f"note: {note}")
    console.print(
        json.dumps(project, indent=2) if as_json else yaml.safe_dump(project, sort_keys=False),
        soft_wrap=True, highlight=False, markup=False,
    )  # fmt: skip


@app.command()
def fidelity(
    profile: ProfileName = "table2",
    short: Annotated[bool, typer.Option("--short", help="measure less, in a few minutes")] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Check emulated epoch times against the real ones; fails where an error is beyond its bar."""
    from fedbench.host import bootstrap
    from fedbench.host.measuring import Measuring

    chosen, federation, devices = _load(profile, "fidelity", settings)
    stack = _bring_up(federation, devices, chosen, None)
    measuring = Measuring(stack, bootstrap.ensure_docker(_say), _say, short=short)
    result = measuring.measure()
    path = result.write(places.runs)
    if as_json:
        _print_json(result.model_dump())
    else:
        _print_fidelity(result)
        console.print(f"recorded in {path}", highlight=False, soft_wrap=True)
    result.require_bars()


@app.command()
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
    engine: Annotated[
        repeating.Engine,
        typer.Option(help="on emulated devices, or in one program for accuracies alone"),
    ] = "containers",
    data: Source = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="processes that train at once, in-process")
    ] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="train for accuracy, at the paper's cost")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="repeat runs that are there")] = False,
    output: Annotated[
        Path | None, typer.Option("--json", help="write the figures into this file, too")
    ] = None,
) -> None:
    """Repeat the paper's runs, and print its tables with ours beside; goes on where it stopped."""
    originals = repeating.choose(what, run, models or [])
    source = data or local_cifar10(places.root)
    found: list[tuple[PaperRun, Summary]] = []
    rows: list[repeating.Beside] = []
    for original in originals:
        chosen = repeating.experiment(original, scale, rounds, seed, tuned=tuned)
        profile = load_profile(original.profile)
        prepare = partial(_runner, profile, chosen, source, engine, workers)
        summary = repeating.Reproduction(
            prepare, RunStore(places.runs), engine, _say, fresh=fresh
        ).run(original, chosen, source)
        found.append((original, summary))
        rows += repeating.beside(original, summary, scale, engine)
        if output:  # a long table is there as far as it came
            replace_text(output, json.dumps([row.model_dump() for row in rows], indent=2) + "\n")
    for original, summary in found:
        console.print(f"\n{original.model}, run {summary.run}", highlight=False)
        _print_table(*repeating.curves(original, summary))
    console.print()
    _print_table(*repeating.table(rows))
    for line in repeating.caveats(scale, rounds, engine, tuned=tuned):
        _say(f"note: {line}")


def _runner(
    profile: Profile,
    chosen: Experiment,
    source: Path | None,
    engine: repeating.Engine,
    workers: int | None,
) -> Any:
    from fedbench.host import bootstrap
    from fedbench.host.inprocess import InProcess
    from fedbench.host.runner import Runner

    if engine == "in-process":
        return InProcess(places, profile, _say, workers)
    stack = _bring_up(profile, load_devices(profile), chosen, source)
    return Runner(stack, bootstrap.ensure_docker(_say), _say)


@app.command()
def status(as_json: Json = False) -> None:
    """Show the containers of the federation that is up, its run and its dashboards."""
    from fedbench.host import overview

    stack = require(places)
    state = overview.status(stack)
    if as_json:
        _print_json(state)
        return
    table = Table("service", "state", "health", "cpus", "memory limit")
    for row in state["containers"]:
        table.add_row(*(str(row[key]) for key in ("service", "state", "health", "cpus", "memory")))
    console.print(table)
    if state["run"]:
        console.print(f"run {state['run']}: {state['run_status']}", highlight=False)
    _print_urls(stack)


@app.command()
def logs(
    client: Annotated[str | None, typer.Argument(help="one service; all by default")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing")] = False,
    tail: Annotated[int, typer.Option(help="lines per container")] = 200,
) -> None:
    """Print what the containers logged."""
    from fedbench.host import overview

    for line in overview.logs(require(places), client, follow=follow, tail=tail):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def down(
    volumes: Annotated[bool, typer.Option(help="forget the recorded metrics, too")] = False,
) -> None:
    """Take the federation down; runs are kept."""
    from fedbench.host import teardown

    teardown.down(places, _say, volumes=volumes)


@app.command()
def join(
    server: Annotated[str, typer.Option(help="host:port of the federation's server")],
    device: Annotated[str, typer.Option(help="name in configs/devices, or a YAML file")],
    name: Annotated[
        str | None, typer.Option(help="the client's name; the device's by default")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="the federation's ca.pem")] = None,
    data: Source = None,
    samples: Annotated[int | None, typer.Option(help="training images it holds")] = None,
    metrics_port: Annotated[int, typer.Option(help="port on this host for its metrics")] = 9101,
) -> None:
    """Join a running federation from this computer, within a device's limits."""
    from fedbench.host import joining

    profile = load_device(device)
    request = joining.Request(
        server, profile, name or profile.name, ca, data, samples, metrics_port
    )
    container = joining.join(places, request, _say)
    console.print(
        f"{request.name} joined {server} as container {container}; it takes part from the next "
        f"round on. `docker rm -f {container}` ends it.",
        highlight=False,
    )


@app.command()
def data(
    profile: ProfileName = "heterogeneous",
    experiment: ExperimentName = "digits",
    source: Source = None,
    settings: Settings = None,
    picture: Annotated[
        Path | None, typer.Option(help="draw who holds what into this .svg or .png file")
    ] = None,
    as_json: Json = False,
) -> None:
    """Partition an experiment's data for a profile, and show who holds what."""
    from fedbench.host import data as partitions
    from fedbench.host.plan import client_names

    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise typer.BadParameter(f"{picture}: expected a .svg or .png file")
    chosen, federation, _ = _load(profile, experiment, settings)
    prepared = partitions.prepare(
        chosen, client_names(federation), places.data, source=source, say=_say
    )
    held = partitions.table(prepared, places.data)
    if picture is not None:
        _draw(held, chosen, picture)
    if as_json:
        _print_json({"key": prepared.key, "test": prepared.test_samples, "train": held})
        return
    header, rows = partitions.rows(held)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"{prepared.test_samples} test images on every client", highlight=False)


@app.command()
def devices(
    name: Annotated[str | None, typer.Argument(help="one of them; all by default")] = None,
    as_json: Json = False,
) -> None:
    """Show the devices that can be emulated; of one, every figure and where it was read."""
    from fedbench.host import devices as profiles

    chosen = [load_device(each) for each in ([name] if name else available("device"))]
    if as_json:
        _print_json([{**d.model_dump(), "estimated": d.estimated()} for d in chosen])
    elif name:
        _print_device(chosen[0])
    else:
        header, rows = profiles.table(chosen)
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print(
            "samples/s of MobileNets, ~ where estimated; "
            "`fedbench devices NAME` says where a device's figures were read",
            style="dim", highlight=False,
        )  # fmt: skip


@app.command()
def report(
    names: Annotated[list[str] | None, typer.Argument(help="runs; the newest by default")] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="as FILE's name ends; else markdown")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="write it into this file instead")] = None,
    as_json: Json = False,
) -> None:
    """Report runs, several side by side: Markdown, CSV, or one HTML page that needs no network."""
    from fedbench.host import reporting

    store = RunStore(places.runs)
    runs = [store.find(name) for name in dict.fromkeys(names or [])] or [store.find(None)]
    if as_json:
        dumps = [run.summary().model_dump() for run in runs]
        _print_json(dumps if len(dumps) > 1 else dumps[0])
        return
    text = reporting.text(runs, form or reporting.form_of(output))
    if output is None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    replace_text(output, text)
    _say(f"wrote {output}")


@app.command()
def calibrate(
    models: Models = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="measure what is known, too")] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast this host trains each model; what is known is not measured again."""
    from fedbench.host import bootstrap, calibrate
    from fedbench.host.stack import host_facts

    client = bootstrap.ensure_docker(_say)
    image = bootstrap.ensure_client_image(client, _say, root=places.root)
    speeds = calibrate.calibrate(
        client, image, models or MODELS, places.calibration, _say,
        cores=host_facts(client).cpus, fresh=fresh,
    )  # fmt: skip
    if as_json:
        _print_json({model: speed.model_dump(mode="json") for model, speed in speeds.items()})
        return
    _print_table(*calibrate.table(speeds.values()))
    for speed in speeds.values():
        if speed.note:
            _say(f"note: {speed.model}: {speed.note}")


@app.command("profile-this-device")
def profile_this_device(
    name: Annotated[
        str | None, typer.Option(help="the device's name; this computer's by default")
    ] = None,
    models: Models = None,
    in_image: Annotated[
        bool | None,
        typer.Option("--image/--bare", help="in the image, the default where Docker is, or not"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="write it into this file instead")] = None,
) -> None:
    """Measure this computer, and print it as a device profile."""
    from fedbench.host import profiling

    chosen = _device_name(name or profiling.default_name())
    runner = profiling.find_runner(places.root, _say, in_image=in_image)
    values = profiling.profile(runner, chosen, models or MODELS, _say)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    if output is None:
        console.print(text, soft_wrap=True, highlight=False, markup=False, end="")
        return
    output.write_text(text, encoding="utf-8")
    _say(f"wrote {output}; `fedbench join --device {output}` uses it")


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help="a run on real devices")],
    run_b: Annotated[str, typer.Argument(help="its emulated twin")],
    as_json: Json = False,
) -> None:
    """Set an emulated run against one on real devices: the error of each client and metric."""
    from fedbench.host import compare

    store = RunStore(places.runs)
    twins = compare.compare(store.find(run_a), store.find(run_b))
    if as_json:
        _print_json(twins.model_dump())
        return
    _print_table(*compare.table(twins))
    for line in twins.unpaired:
        _say(f"note: {line}")


def _device_name(name: str) -> str:
    try:
        return parse_name(name)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--name") from None


def _load(
    profile: str, experiment: str, settings: list[str] | None
) -> tuple[Experiment, Profile, dict[str, Device]]:
    for_experiment, for_profile = split_overrides(settings or [])
    federation = load_profile(profile, for_profile)
    chosen = load_experiment(experiment, for_experiment)
    return chosen, federation, load_devices(federation)


def _bring_up(
    profile: Profile, devices: dict[str, Device], experiment: Experiment, source: Path | None
) -> Stack:
    from fedbench.host import planning

    return planning.bring_up(places, profile, devices, experiment, source, _say)


def _run(stack: Stack, prepare: Callable[[Any], Run], detach: bool, as_json: bool) -> None:
    from fedbench.host import bootstrap
    from fedbench.host.runner import Runner

    runner = Runner(stack, bootstrap.ensure_docker(_say), _say)
    chosen = prepare(runner)
    process = runner.start(chosen)
    _say(f"run {chosen.id}")
    if detach:
        _say("it goes on by itself: `make status`, `fedbench report`")
        return
    _print_summary(_follow(stack, runner, chosen, process), stack, as_json)


def _prepare(study: Study, source: Path | None) -> Sweeping:
    from fedbench.host import data as partitions
    from fedbench.host.plan import client_names
    from fedbench.host.sweeping import Sweeping

    clients = client_names(study.profile)

    def prepare(experiment: Experiment) -> partitions.Prepared:
        return partitions.prepare(experiment, clients, places.data, source=source, say=_say)

    return Sweeping(study, RunStore(places.runs), prepare, _say)


def _run_sweep(each: Sweeping, source: Path | None) -> None:
    from fedbench.host import bootstrap, starting
    from fedbench.host.runner import Runner

    each.announce()
    if not each.pending():
        return
    study = each.study
    # Always by the first, so that a sweep that goes on finds the federation that it began on.
    stack = _bring_up(study.profile, study.devices, study.points[0].experiment, source)
    client = bootstrap.ensure_docker(_say)
    runner = Runner(stack, client, _say)

    def execute(run: Run) -> Summary:
        process = runner.start(run)
        _say(f"run {run.id}")
        try:
            return _follow(stack, runner, run, process)
        except RunError:
            # What died with the run is started again by Docker: the next one waits for it.
            starting.wait_ready(stack, client, _say)
            raise

    each.run(runner, source, execute)


def _follow(stack: Stack, runner: Runner, run: Run, process: subprocess.Popen[bytes]) -> Summary:
    from fedbench.host.live import Lines, View
    from fedbench.host.prometheus import Prometheus

    live = Live(console=progress, auto_refresh=False) if progress.is_terminal else None
    with live or nullcontext():
        names = [client.name for client in stack.clients]
        look = (
            View(run, names, Prometheus(stack.prometheus_url), live) if live else Lines(run, _say)
        )
        return runner.follow(run, process, look)


def _draw(held: dict[str, dict[str, int]], experiment: Experiment, file: Path) -> None:
    from fedbench.host import picture

    data = experiment.data
    title = f"{data.name}, {data.partition.title}: training images of {len(held)} clients"
    picture.draw(held, f"{title}, seed {experiment.seed}", file)
    _say(f"drawn into {file}")


def _print_device(device: Device) -> None:
    console.print(f"{device.name}: {device.description}", highlight=False, markup=False)
    for key, value in device.figures().items():
        source = device.sources.get(key, "estimated")
        console.print(
            f"{key:<26} {value:<16} {source}", highlight=False, markup=False, soft_wrap=True
        )


def _print_fidelity(result: Fidelity) -> None:
    for title, rows in reports.fidelity_tables(result):
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1]:
            table.add_row(*row)
        console.print(table)
    console.print(
        f"seconds are emulated ones, of an epoch of 50,000 images; dilation {result.dilation:g}",
        highlight=False,
    )
    _print_not_held(result.not_held)


def _print_not_held(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(f"did not hold: {line}", markup=False, highlight=False, soft_wrap=True)


def _print_summary(summary: Summary, stack: Stack, as_json: bool) -> None:
    if as_json:
        _print_json(summary.model_dump())
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
    for line in corrections.described(corrections.read(places.runs / summary.run)):
        console.print(f"corrected: {line}", markup=False, highlight=False, soft_wrap=True)
    for line in rapl.described(rapl.read(places.runs / summary.run)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    _print_not_held(reports.not_held(summary))
    if summary.dilation > 1:
        console.print(f"emulated seconds are wall seconds / {summary.dilation:g}", highlight=False)
    console.print(f"recorded in {places.runs / summary.run}", highlight=False, soft_wrap=True)
    _print_urls(stack)


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*header, box=box.MARKDOWN)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_urls(stack: Stack) -> None:
    grafana = stack.grafana_url or "left out (its image could not be had)"
    console.print(f"Prometheus {stack.prometheus_url}   Grafana {grafana}", highlight=False)


def _print_json(value: object) -> None:
    console.print_json(json.dumps(value))


def _say(line: str) -> None:
    progress.print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Runs a command; turns errors into a message and an exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except FedbenchError as error:
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        code = 130
    except Exception as error:  # a defect of fedbench: its traceback is for the bug report
        log = places.state / "crash.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        _say(f"error: fedbench failed: {type(error).__name__}: {error}")
        _say(f"hint: this is a defect; please report it with {log}")
        code = 70
    sys.exit(code)
