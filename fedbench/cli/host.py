"""Commands that measure the computer that they run on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from fedbench.cli import checkout
from fedbench.cli.options import Json, Models
from fedbench.cli.output import console, print_json, print_table, say
from fedbench.config import parse_name
from fedbench.config.model_names import MODELS


def calibrate(
    models: Models = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="measure what is known, too")] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast this host trains each model; what is known is not measured again."""
    from fedbench.engines.containers.runtime import daemon
    from fedbench.host.setup import bootstrap
    from fedbench.host.speed import calibration

    with bootstrap.alone_on_host(say):
        containers = daemon.connect(say)
        image = bootstrap.ensure_client_image(containers, say, root=checkout.places.root)
        speeds = calibration.calibrate(
            containers, image, models or MODELS, checkout.places.calibration, say,
            cores=containers.host().cpus, fresh=fresh,
        )  # fmt: skip
    if as_json:
        print_json({model: speed.model_dump(mode="json") for model, speed in speeds.items()})
        return
    print_table(*calibration.table(speeds.values()))
    for speed in speeds.values():
        if speed.note:
            say(f"note: {speed.model}: {speed.note}")


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
    from fedbench.host.speed import profiling

    chosen = _device_name(name or profiling.default_name())
    runner = profiling.find_runner(checkout.places.root, say, in_image=in_image)
    values = profiling.profile(runner, chosen, models or MODELS, say)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    if output is None:
        console.print(text, soft_wrap=True, highlight=False, markup=False, end="")
        return
    output.write_text(text, encoding="utf-8")
    say(f"wrote {output}; `fedbench join --device {output}` uses it")


def _device_name(name: str) -> str:
    try:
        return parse_name(name)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--name") from None
