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
from collections.abc import Callable
from pathlib import Path

from fedbench import __version__
from fedbench.config import Experiment, Profile
from fedbench.engines import following
from fedbench.errors import HostError
from fedbench.host.data import prepare
from fedbench.host.plan.plan import client_devices, require_known
from fedbench.host.setup.machine import Say, cpu_model
from fedbench.host.setup.places import Places
from fedbench.records import Summary
from fedbench.records.facts import InProcessClient, InProcessFacts, RunInputs
from fedbench.records.runs import Run, RunStore

_ENGINE = "fedbench.engines.in_process"


class InProcess:
    """Runs experiments for the clients of one profile.

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
        self._profile = profile
        self._devices = client_devices(profile)
        self._store = RunStore(places.runs)
        self._data = places.in_process
        self._say = say
        self._workers = workers

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        """Partitions the data and makes the run's folder.

        Raises:
            DataError, ConfigError: the data or the initial weights cannot be used.
        """
        require_known(experiment, list(self._devices))
        names = list(experiment.clients or self._devices)
        # Where all hold the same, they hold one copy: it is also in memory once.
        holders = names[:1] if experiment.data.partition.name == "replicated" else names
        prepared = prepare.prepare(experiment, holders, self._data, source=source, say=self._say)
        holding = dict(zip(names, holders * len(names), strict=False))
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
        (run.path / "versions.json").write_text(json.dumps(_versions(), indent=2) + "\n")
        return run

    def start(self, run: Run) -> subprocess.Popen[bytes]:
        """Starts the run, or goes on with it; the process ends when the run does."""
        # In a session of its own: Ctrl-C is for fedbench, which then stops the run in order.
        with (run.path / "engine.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", _ENGINE, str(run.path.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def follow(
        self, run: Run, process: subprocess.Popen[bytes], look: Callable[[], None]
    ) -> Summary:
        """Calls `look` twice a second until the run is over.

        Raises:
            RunInterrupted: the user pressed Ctrl-C; the run was stopped and is recorded.
            RunError: it failed.
        """
        return following.follow(
            run,
            process,
            look,
            self._say,
            go_on="the same command goes on from there",
            why=f"{run.path / 'engine.log'} shows why",
        )


def _versions() -> dict[str, object]:
    packages = ("flwr", "torch", "torchvision", "numpy", "safetensors")
    return {
        "fedbench": __version__,
        "python": sys.version.split()[0],
        **{name: importlib.metadata.version(name) for name in packages},
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
    }
