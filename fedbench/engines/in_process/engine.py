"""Runs in one program of this host instead of containers: for accuracies alone.

The same data, the same rounds and the same ClientApp (`__main__.py`), on this host's CPUs
or its GPU. Nothing is emulated: what an epoch takes says nothing of any device.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from fedbench import __version__
from fedbench.config import Experiment, Profile
from fedbench.engines.engine import ProcessEngine, spawn
from fedbench.errors import HostError, RunError
from fedbench.host.data import prepare
from fedbench.host.plan.plan import client_devices, require_known
from fedbench.host.say import Say
from fedbench.host.setup.machine import cpu_model
from fedbench.host.setup.places import Places
from fedbench.records import replace_text
from fedbench.records.facts import InProcessClient, InProcessFacts, RunInputs
from fedbench.records.runs import Run, RunStore

_PROGRAM = "fedbench.engines.in_process"


class InProcessEngine(ProcessEngine):
    """Executes runs for the clients of one profile.

    `workers` processes train at once: by default as many as are best here.

    Raises:
        HostError: torch or Flower is not installed here.
    """

    def __init__(
        self, places: Places, profile: Profile, say: Say, workers: int | None = None
    ) -> None:
        missing = [name for name in ("torch", "flwr") if importlib.util.find_spec(name) is None]
        if missing:
            raise HostError(
                f"{missing[0]} is not installed here, and in-process clients train with it",
                "`make reproduce` sets it up, or: .venv/bin/pip install --editable '.[node]'",
            )
        super().__init__(say)
        self._profile = profile
        self._devices = client_devices(profile)
        self._store = RunStore(places.runs)
        self._data = places.in_process
        self._workers = workers

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        """Partition the data and make the run's folder.

        Raises:
            DataError, ConfigError: the data or the initial weights cannot be used.
        """
        require_known(experiment, list(self._devices))
        names = list(experiment.clients or self._devices)
        copies = holders(experiment, self._devices)
        prepared = prepare.prepare(experiment, copies, self._data, source=source, say=self._say)
        holding = dict(zip(names, copies * len(names), strict=False))
        clients = [
            InProcessClient(
                name=name,
                device=self._devices[name],
                data=str((self._data / holding[name]).absolute()),
            )
            for name in names
        ]
        inputs = RunInputs(
            clients=len(names),
            classes=len(prepared.classes),
            class_names=list(prepared.classes),
            data=prepared.key,
            engine=InProcessFacts(
                clients=clients,
                workers=self._workers,
                samples=sum(prepared.samples[holding[name]] for name in names),
            ),
        )
        run = self._store.create(experiment, self._profile, inputs)
        replace_text(run.path / "versions.json", json.dumps(_versions(), indent=2) + "\n")
        return run

    def resume(self, name: str | None) -> Run:
        """Make an ended run in one program, or the newest run, ready to go on.

        Raises:
            RunError: there is no such run, it is finished, or it was made in containers or for
                another federation.
        """
        run = self._store.find(name)
        if run.emulates:
            raise RunError(
                f"run {run.id} was made in containers", f"make run RESUME={run.id} goes on with it"
            )
        if run.profile() != self._profile:
            raise RunError(f"run {run.id} belongs to another federation ({run.profile().name})")
        run.prepare_resume()
        return run

    def launch(self, run: Run) -> subprocess.Popen[bytes]:
        """Start the program; it ends when the run does."""
        argv = [sys.executable, "-m", _PROGRAM, str(run.path.absolute())]
        return spawn(argv, run.path / "engine.log")

    def how_to_go_on(self, run: Run) -> str:
        """Name the command that goes on."""
        return f"`make run RESUME={run.id} ENGINE=in-process` goes on from there"

    def where_to_look(self, run: Run) -> str:
        """Name the program's log."""
        return f"{run.path / 'engine.log'} shows why"


def holders(experiment: Experiment, clients: Iterable[str]) -> list[str]:
    """Name those of the clients that have a partition in a folder of their own.

    Where all hold the same, they hold one copy: it is also in memory once.
    """
    names = list(experiment.clients or clients)
    return names[:1] if experiment.data.partition.name == "replicated" else names


def _versions() -> dict[str, object]:
    packages = ("flwr", "torch", "torchvision", "numpy", "safetensors")
    return {
        "fedbench": __version__,
        "python": sys.version.split()[0],
        **{name: importlib.metadata.version(name) for name in packages},
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
    }
