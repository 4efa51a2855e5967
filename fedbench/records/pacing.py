"""How each client keeps its device's pace.

The client says it to the server, which writes it into the folder of the run that goes on; the run's
governor reads it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from fedbench.errors import DamagedFileError
from fedbench.records.files import Record, read_record

FILE = "pacing.json"

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Pacing(Record):
    """What a client did since it started, in wall seconds.

    `wall` is the time that passed, `training` the part of it in which it trained, `cpu` the CPU
    time of its container. `late` is by how much it is behind its device right now.
    """

    wall: Seconds
    training: Seconds
    cpu: Seconds
    late: Seconds


class _PacingFile(RootModel[dict[str, Pacing]]):
    """The clients by name."""


def write(folder: Path, clients: Mapping[str, Pacing]) -> None:
    """Write what each client did into a run's folder, in the place of what was known."""
    # It is out of date in a moment: the disk need not have it.
    aside = folder / f"{FILE}.new"
    aside.write_text(_PacingFile(dict(clients)).model_dump_json(), encoding="utf-8")
    aside.replace(folder / FILE)


def read(folder: Path) -> dict[str, Pacing]:
    """Return what each client did, by name; nothing where the server has not said it yet."""
    try:
        return read_record(folder / FILE, _PacingFile).root
    except DamagedFileError:  # the server writes it anew in a moment
        return {}
