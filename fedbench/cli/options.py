"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbench.config.model_names import parse_model
from fedbench.engines.engine import EngineName

ProfileName = Annotated[str, typer.Argument(help="name in configs/profiles, or a YAML file")]
ExperimentName = Annotated[
    str, typer.Option("--experiment", "-e", help="name in configs/experiments, or a YAML file")
]
Data = Annotated[
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


Engine = Annotated[
    EngineName,
    typer.Option(help="on emulated devices, or in one program for accuracies alone"),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="processes that train at once, in-process")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", parser=_model, metavar="NAME", help="the study's by default"),
]
