"""`run.json`: what the host tells the server, or the in-process engine, of a run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import Field

from fedbench.learning.pace import Speed
from fedbench.records.clock import REAL_TIME, Dilation
from fedbench.records.files import Moment, Record, read_record, replace_text

FILE = "run.json"


class EmulatedDevices(Record):
    """What the host planned for the devices of a run; clients that are real ones are in none.

    `targets`: samples per emulated second that each client should train while all of its computer
    do; `pace`: what it keeps to, in samples per wall second; `shares`: the host CPUs that were
    planned for it; `computers`: the emulated computer that it is on.
    """

    dilation: Dilation = REAL_TIME
    targets: dict[str, float] = Field(default_factory=dict)
    pace: dict[str, Speed] = Field(default_factory=dict)
    shares: dict[str, float] = Field(default_factory=dict)
    computers: dict[str, str] = Field(default_factory=dict)


class InProcessClient(Record):
    """A client of a run in one program: its name, its device's, and the folder of its data."""

    name: str
    device: str
    data: str


class InProcessFacts(Record):
    """What the in-process engine is told besides.

    `workers` processes train at once, None for as many as are best; `samples` are the training
    images of all clients together.
    """

    clients: list[InProcessClient] = Field(default_factory=list)
    workers: int | None = None
    samples: int = 0


class RunInputs(Record):
    """What the host prepared for a run; older versions left some of it out.

    `clients` is the number of clients that the run waits for, `data` the key of their images,
    `source` the folder that they came from where the user named one, `project` the compose project
    that it runs on. `watts` are idle and under load, by device.
    """

    project: str | None = None
    clients: int = 0
    classes: int = 0
    class_names: list[str] = Field(default_factory=list)
    data: str = ""
    source: str | None = None
    emulation: EmulatedDevices | None = None
    watts: dict[str, tuple[float, float]] = Field(default_factory=dict)
    engine: InProcessFacts | None = None


class RunFacts(RunInputs):
    """The same with the run's own name, and the names of what it was made of."""

    run: str
    experiment: str
    profile: str
    created: Moment

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the facts of the run in that folder.

        Raises:
            DamagedFileError: the file is missing, or is no such facts.
        """
        return read_record(folder / FILE, cls)

    def write(self, folder: Path) -> None:
        """Write them into the run's folder, without what nobody set."""
        text = self.model_dump_json(indent=2, exclude_unset=True)
        replace_text(folder / FILE, text + "\n")

    @property
    def created_at(self) -> datetime:
        """When the run was made."""
        return datetime.fromisoformat(self.created)

    @property
    def dilation(self) -> Dilation:
        """By how much the run's devices are slowed."""
        return self.emulation.dilation if self.emulation else REAL_TIME

    @property
    def emulates(self) -> bool:
        """True where the run is in containers: in one program its seconds are no device's."""
        return self.engine is None
