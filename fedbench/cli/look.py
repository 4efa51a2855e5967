"""Commands that show what is there: data, devices, reports of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbench.cli import checkout
from fedbench.cli.options import Data, ExperimentName, Json, ProfileName, Settings
from fedbench.cli.output import console, print_json, say
from fedbench.config import Device, Experiment, available, load_device
from fedbench.host.report.documents import Form
from fedbench.records import replace_text
from fedbench.records.runs import RunStore


def data(
    profile: ProfileName = "heterogeneous",
    experiment: ExperimentName = "digits",
    source: Data = None,
    settings: Settings = None,
    picture: Annotated[
        Path | None, typer.Option(help="draw who holds what into this .svg or .png file")
    ] = None,
    as_json: Json = False,
) -> None:
    """Partition an experiment's data for a profile, and show who holds what."""
    from fedbench.host.data import prepare
    from fedbench.host.plan.plan import client_names

    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise typer.BadParameter(f"{picture}: expected a .svg or .png file")
    chosen, federation, _ = checkout.load(profile, experiment, settings)
    prepared = prepare.prepare(
        chosen, client_names(federation), checkout.places.data, source=source, say=say
    )
    held = prepare.table(prepared, checkout.places.data)
    if picture is not None:
        _draw(held, chosen, picture)
    if as_json:
        print_json({"key": prepared.key, "test": prepared.test_samples, "train": held})
        return
    header, rows = prepare.rows(held)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"{prepared.test_samples} test images on every client", highlight=False)


def devices(
    name: Annotated[str | None, typer.Argument(help="one of them; all by default")] = None,
    as_json: Json = False,
) -> None:
    """Show the devices that can be emulated; of one, every figure and where it was read."""
    from fedbench.host.report.tables.device_profiles import device_profile_table

    chosen = [load_device(each) for each in ([name] if name else available("device"))]
    if as_json:
        print_json([{**d.model_dump(), "estimated": d.estimated()} for d in chosen])
    elif name:
        _print_device(chosen[0])
    else:
        header, rows = device_profile_table(chosen)
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print(
            "samples/s of MobileNets, ~ where estimated; "
            "`fedbench devices NAME` says where a device's figures were read",
            style="dim", highlight=False,
        )  # fmt: skip


def report(
    names: Annotated[list[str] | None, typer.Argument(help="runs; the newest by default")] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="as FILE's name ends; else markdown")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="write it into this file instead")] = None,
    as_json: Json = False,
) -> None:
    """Report runs, several side by side: Markdown, CSV, or one HTML page that needs no network."""
    from fedbench.host.report import documents

    store = RunStore(checkout.places.runs)
    runs = [store.find(name) for name in dict.fromkeys(names or [])] or [store.find(None)]
    if as_json:
        dumps = [run.summary().model_dump() for run in runs]
        print_json(dumps if len(dumps) > 1 else dumps[0])
        return
    text = documents.text(runs, form or documents.form_of(output))
    if output is None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    replace_text(output, text)
    say(f"wrote {output}")


def _draw(held: dict[str, dict[str, int]], experiment: Experiment, file: Path) -> None:
    from fedbench.host.data import picture

    data = experiment.data
    title = f"{data.name}, {data.partition.title}: training images of {len(held)} clients"
    picture.draw(held, f"{title}, seed {experiment.seed}", file)
    say(f"drawn into {file}")


def _print_device(device: Device) -> None:
    console.print(f"{device.name}: {device.description}", highlight=False, markup=False)
    for key, value in device.figures().items():
        source = device.sources.get(key, "estimated")
        console.print(
            f"{key:<26} {value:<16} {source}", highlight=False, markup=False, soft_wrap=True
        )
