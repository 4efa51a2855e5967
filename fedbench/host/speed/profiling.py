"""Writes down the computer it runs on as a device profile, its speed measured by the workload.

In the image, as a client that joins from here would train; or bare, by the Python that runs this.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.workbench import WORKLOAD, docker_run
from fedbench.errors import HostError
from fedbench.host.say import Say
from fedbench.host.setup import bootstrap
from fedbench.host.setup.machine import HostMachine, cpu_model
from fedbench.host.speed.calibration import GAIN, climb
from fedbench.records.measurement import Measurement, parse

BOARD = Path("/sys/firmware/devicetree/base/model")  # ARM boards name themselves here
COMMAND = "fedbench profile-this-device"


@dataclass(frozen=True)
class Runner:
    """How the workload is started here: the command, and in what it then runs."""

    command: Sequence[str]
    where: str
    hint: str
    machine: HostMachine

    def run(self, model: str, *options: str) -> list[Measurement]:
        """Return one measurement, or as many as `--copies` asks for.

        Raises:
            ConfigError: there is no such model, or it cannot be trained.
            HostError: the workload does not run here; says why.
        """
        done = self.machine.execute([*self.command, model, *options])
        # Warnings of libraries come between its lines.
        found = [parse(line) for line in done.output.splitlines() if line.startswith("{")]
        if done.code:
            raise HostError(f"the workload fails in {self.where}:\n{done.tail(5)}", self.hint)
        return found


def find_runner(
    root: Path, say: Say, *, in_image: bool | None = None, machine: HostMachine | None = None
) -> Runner:
    """Choose the image where a Docker daemon answers, else this Python, unless `in_image` says.

    Raises:
        DockerError: `in_image`, and there is no Docker; or the image cannot be built.
    """
    machine = machine or HostMachine()
    containers = None
    if in_image:
        containers = daemon.connect(say, machine)
    elif in_image is None:
        containers = daemon.find(machine)
    if containers is None:
        hint = "pip install torch torchvision safetensors, or install Docker and use --image"
        command = [sys.executable, "-m", WORKLOAD]
        return Runner(command, f"Python {platform.python_version()}", hint, machine)
    gpu = containers.host().gpus > 0
    image = bootstrap.ensure_client_image(containers, say, root=root, cuda=gpu, machine=machine)
    command = docker_run(image, *(["--gpus=all"] if gpu else []))
    return Runner(command, f"image {image}", "--bare uses this Python instead", machine)


def profile(runner: Runner, name: str, models: Sequence[str], say: Say) -> dict[str, Any]:
    """Return the keys of this computer's device profile, as they are written in YAML.

    Raises:
        HostError: the workload does not run here.
    """
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    best: dict[str, Measurement] = {}
    together: dict[str, float] = {}
    for model in models:
        say(f"measuring {model} in {runner.where} (a minute)")
        best[model], together[model] = _measure(runner, model)
        say(f"{model}: {best[model].samples_per_second:.1f} samples/s")
    more = {m: all_ for m, all_ in together.items() if all_ > GAIN * best[m].samples_per_second}
    counted = dict.fromkeys(("cores", "threads", "memory"), f"read from the computer, {today}")
    values = _computer(name, today) | {
        "gpu": _gpu(best[models[0]]),
        "speed": {m: f"{one.samples_per_second:.2f} samples/s" for m, one in best.items()},
        "capacity": {m: f"{speed:.2f} samples/s" for m, speed in more.items()},
        "sources": counted
        | {f"speed.{model}": _source(runner, one, today) for model, one in best.items()}
        | {f"capacity.{model}": f"{COMMAND}, {today}: a process per thread" for model in more},
    }
    return {key: value for key, value in values.items() if value}


def default_name() -> str:
    """Return this computer's name, in the letters that a device's name may have."""
    letters = re.sub("[^a-z0-9]+", "-", platform.node().lower()).strip("-")
    return letters[:41].strip("-") or "this-device"


def _measure(runner: Runner, model: str) -> tuple[Measurement, float]:
    """Return the best number of threads, and the samples/s of a process for each together."""
    threads = psutil.cpu_count() or 1
    found = climb(lambda number: runner.run(model, f"--threads={number}")[0], threads)
    best = max(found.values(), key=lambda one: one.samples_per_second)
    if best.gpu or threads == 1:
        return best, 0.0
    together = runner.run(model, "--threads=1", f"--copies={threads}")
    return best, sum(one.samples_per_second for one in together)


def _computer(name: str, today: str) -> dict[str, Any]:
    threads = psutil.cpu_count() or 1
    cores = psutil.cpu_count(logical=False) or threads
    memory = psutil.virtual_memory().total
    board = BOARD.read_text().rstrip("\0") if BOARD.exists() else cpu_model()
    return {
        "name": name,
        "description": f"{board}, {cores} cores, {memory / 2**30:.1f} GiB, measured on {today}",
        "cores": cores,
        "threads": threads,
        "memory": f"{memory >> 20}MiB",
    }


def _gpu(measured: Measurement) -> dict[str, str] | None:
    if measured.gpu is None or measured.gpu_memory is None:
        return None
    return {"model": measured.gpu, "memory": f"{measured.gpu_memory >> 20}MiB"}


def _source(runner: Runner, one: Measurement, today: str) -> str:
    on = one.gpu or f"{one.threads} thread{'s' if one.threads > 1 else ''}"
    spread = f"{min(one.windows):.0f} to {max(one.windows):.0f}"
    return f"{COMMAND}, {today}: {spread} on {on}, torch {one.torch}, {runner.where}"
