"""Runs in containers, on a stack that is up."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psutil

from fedbench import __version__
from fedbench.config import Experiment
from fedbench.engines.containers import startup, watcher
from fedbench.engines.containers.emulation import device_watts, emulated_devices, speeds_for
from fedbench.engines.containers.runtime import links
from fedbench.engines.containers.runtime.containers import Container, Containers
from fedbench.engines.containers.runtime.stack import Stack, give_to_containers
from fedbench.engines.engine import ProcessEngine, spawn
from fedbench.errors import DockerError, RunError
from fedbench.host.data import prepare
from fedbench.host.plan.plan import require_known
from fedbench.host.say import Say
from fedbench.host.setup.locks import federation_lock
from fedbench.host.setup.machine import cpu_model
from fedbench.host.setup.places import PROJECT
from fedbench.host.watch.vigil import is_watched
from fedbench.records import executing, replace_text
from fedbench.records.facts import RunInputs
from fedbench.records.runs import Run, RunStore

_LAUNCH = "fedbench.server.launch"
_REFUSED = 2  # by the server: what `launch` ends with
_SEEN_SECONDS = 30.0
_OTHER_STRIDE = (
    "note: stem_stride=1 is more work than the devices' speeds are of: accuracies hold, "
    "emulated seconds are too few"
)
_VERSIONS = (
    "import importlib.metadata as m, json, sys; print(json.dumps({'python': sys.version.split()[0]}"
    " | {p: m.version(p) for p in ('flwr', 'torch', 'torchvision', 'numpy', 'safetensors')}))"
)


class ContainersEngine(ProcessEngine):
    """Executes runs in the containers of a stack that is up."""

    def __init__(self, stack: Stack, containers: Containers, say: Say) -> None:
        super().__init__(say)
        self._stack = stack
        self._containers = containers
        self._store = RunStore(stack.places.runs)
        self._guards: dict[str, watcher.Guard] = {}

    def alone(self) -> AbstractContextManager[None]:
        """Keep others from the federation while a run is made and started; wait for them."""
        return federation_lock(self._say)

    def create(self, experiment: Experiment, source: Path | None) -> Run:
        """Partition the data and make the run's folder.

        Raises:
            RunError: another run is in progress on this stack.
            DataError, ConfigError: the data or the initial weights cannot be used.
        """
        self._require_idle()
        names = [client.name for client in self._stack.clients]
        require_known(experiment, names)
        if experiment.stem_stride != 2:
            self._say(_OTHER_STRIDE)
        speeds = speeds_for(self._stack, self._containers, self._say, experiment.model)
        prepared = prepare.prepare(
            experiment, names, self._stack.places.data, source=source, say=self._say
        )
        inputs = RunInputs(
            project=PROJECT,
            clients=len(experiment.clients or names),
            classes=len(prepared.classes),
            class_names=list(prepared.classes),
            data=prepared.key,
            **({"source": str(source.absolute())} if source else {}),
            emulation=emulated_devices(self._stack, speeds),
            watts=device_watts(self._stack),
        )
        run = self._store.create(experiment, self._stack.profile, inputs)
        replace_text(run.path / "compose.yaml", self._stack.compose.config())
        replace_text(run.path / "versions.json", json.dumps(self._versions(), indent=2) + "\n")
        return run

    def resume(self, name: str | None) -> Run:
        """Return a run, ready to go on after its last complete round.

        It has ended, or lost its server when nobody watched over it. A server that was stopped is
        started again.

        Raises:
            RunError: no such run, it is finished, or it was made for other clients.
            DataError: its data is gone, and cannot be had again.
        """
        self._bring_server_back()
        left_alone = self._left_alone(name)
        if left_alone is None:
            self._require_idle()
        run = left_alone or self._store.find(name)
        if run.profile() != self._stack.profile:
            raise RunError(
                f"run {run.id} belongs to another federation ({run.profile().name})",
                f"make up PROFILE={run.profile().name} brings it up",
            )
        made_at = run.facts().dilation
        if made_at != self._stack.dilation:
            raise RunError(
                f"run {run.id} was made at dilation {made_at:g}, "
                f"this federation has {self._stack.dilation:g}",
                f"bring it up anew: make up PROFILE={run.profile().name} SET=dilation={made_at:g}",
            )
        facts = run.facts()
        names = [client.name for client in self._stack.clients]
        source = Path(facts.source) if facts.source else None
        prepare.restore(
            run.experiment(),
            names,
            facts.data,
            self._stack.places.data,
            source=source,
            say=self._say,
        )
        if left_alone is None:
            run.prepare_resume()
        return run

    def _left_alone(self, name: str | None) -> Run | None:
        """Return the run of that name that its server goes on with, where nobody watches."""
        for folder in executing.all_executing(self._store.path, PROJECT)[-1:]:
            if name in (None, folder.name) and not is_watched(run := Run(folder)):
                return run
        return None

    def _bring_server_back(self) -> None:
        server = self._stack.services(self._containers).get("server")
        if server and server.status in ("exited", "dead"):
            self._say("starting the server again")
            self._containers.start_again(server)

    def start(self, run: Run) -> None:
        """Start a run, and wait until the server executes it: till then it looks idle.

        What goes wrong with it meanwhile is for `follow` to say.

        Raises:
            RunError: the server refuses, as it executes another.
        """
        super().start(run)
        process = self._processes[run.id]
        deadline = time.monotonic() + _SEEN_SECONDS
        with suppress(DockerError):
            while process.poll() is None and time.monotonic() < deadline:
                server = self._stack.services(self._containers).get("server")
                if server is None or _launched(self._containers, server) == run.id:
                    return
                time.sleep(0.1)
        if process.poll() == _REFUSED:
            raise RunError(f"the server refuses: {_last_line(run.path / 'launch.log')}")

    def launch(self, run: Run) -> subprocess.Popen[bytes]:
        """Start the run, every client under its quota and on its network."""
        startup.enforce_quotas(self._stack, self._containers)
        links.enforce(self._stack, self._containers)
        give_to_containers(run.path, *run.path.iterdir())
        compose = self._stack.compose
        argv = compose.command(
            "exec", "--no-TTY", "server", "python", "-m", _LAUNCH, f"/runs/{run.id}"
        )
        process = spawn(argv, run.path / "launch.log", compose.environment())
        self._guards[run.id] = watcher.Guard(run, process.pid)
        return process

    def goes_on(self, run: Run) -> bool:
        """Return whether a run that was started here is not over, and see that it is watched.

        What started it dies with its server, which goes on with the run when it is back.

        Raises:
            RunError: nobody can watch over it.
        """
        if super().goes_on(run) or run.is_executing():
            if run.id in self._guards:
                self._guards[run.id].ensure()
            return True
        return False

    def how_to_go_on(self, run: Run) -> str:
        """Name the commands that go on, start anew, and end the federation."""
        return (
            f"`make run RESUME={run.id}` goes on from there, `make run` starts anew, "
            "`make down` takes the federation down"
        )

    def where_to_look(self, run: Run) -> str:  # noqa: ARG002 (the logs are the federation's)
        """Name the command that shows what the containers logged."""
        return "`make logs` shows why"

    def _require_idle(self) -> None:
        if run := _in_progress(self._stack, self._containers):
            raise _not_idle(run)
        server = self._stack.services(self._containers).get("server")
        if server is None or not server.is_running:
            raise DockerError("the server is not running", "make up PROFILE=… brings it up")
        self._store.end(PROJECT)

    def _versions(self) -> dict[str, Any]:
        server = self._stack.services(self._containers)["server"]
        answer = self._containers.execute(server, ["python", "-c", _VERSIONS])
        host = self._containers.host()
        return {
            "fedbench": __version__,
            "image": server.image,
            **json.loads(answer.output),
            "docker": host.version,
            "kernel": host.kernel,
            "os": host.system,
            "cpu": cpu_model(),
            "cores": host.cpus,
            "memory_bytes": host.memory,
            "dilation": self._stack.dilation,
            "host_load": psutil.getloadavg()[0],
        }


def require_over(stack: Stack, containers: Containers) -> None:
    """Raise RunError if a run goes on in the stack's containers, which would end with them."""
    run = _in_progress(stack, containers)
    if run and not Run(stack.places.runs / run).has_ended():
        raise _not_idle(run)


def _in_progress(stack: Stack, containers: Containers) -> str | None:
    """Name the run that the server executes, or will as soon as it is back."""
    server = stack.services(containers).get("server")
    if server is None or server.status not in ("running", "restarting"):
        return None
    if marked := executing.all_executing(stack.places.runs, PROJECT):
        return marked[-1].name
    return _launched(containers, server) if server.is_running else None


def _launched(containers: Containers, server: Container) -> str | None:
    """Name the run that the server executes; it is over a moment later than its records."""
    commands = containers.processes(server)
    busy = next((command for command in commands if _LAUNCH in command), None)
    return busy.rpartition("/")[2] if busy else None


def _not_idle(run: str) -> RunError:
    return RunError(f"run {run} is in progress", f"wait for it, or stop it: touch runs/{run}/stop")


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
