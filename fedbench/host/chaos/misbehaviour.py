"""A client that is there to misbehave, and what it is told to do wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import yaml

from fedbench.engines.containers.runtime.compose import run as run_command
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.chaos.victim import Fault, Victim
from fedbench.records import replace_text
from fedbench.records.runs import Run
from fedbench.wire import MISBEHAVED_FILE, MISBEHAVIOUR_FILE

FAULTY = "faulty"
"""The name of the client that can misbehave, in a profile that has one."""
_MODULE = "fedbench.client.faulty"


def can_misbehave(victim: Victim) -> bool:
    """Tell whether a client was started to misbehave."""
    commands = victim.containers.processes(victim.container())
    return any(_MODULE in command for command in commands)


def start_faulty(stack: Stack, containers: Containers) -> None:
    """Start the client of that name anew, as one that can misbehave, but does not yet.

    It needs its time until it is ready. The next `up` starts it as an ordinary one.

    Raises:
        DockerError: it cannot be started.
    """
    if FAULTY not in {plan.name for plan in stack.clients}:
        return
    ordinary = Victim(stack, containers, FAULTY)
    if can_misbehave(ordinary):
        return
    # The image's name may stand for another by now, of another checkout.
    faulty = {"command": ["python", "-m", _MODULE], "image": ordinary.container().image}
    override = {"services": {FAULTY: faulty}}
    file = stack.places.state / "chaos.yaml"
    replace_text(file, yaml.safe_dump(override))
    argv = stack.compose.command("--file", str(file), "up", "--detach", "--no-build", FAULTY)
    run_command(argv, stack.compose.environment())


class Misbehave(Fault):
    """A client that is there for it does something wrong."""

    def impossible(self) -> str | None:
        """Say that there is no such client."""
        if self.victim.service not in self.victim.stack.services(self.victim.containers):
            return f"no client here is there to misbehave: profile chaos has {FAULTY}"
        return None if can_misbehave(self.victim) else f"{FAULTY} was not started to misbehave"

    def prepare(self, run: Run) -> None:  # noqa: ARG002 (of no use here)
        """Let it behave."""
        self.clear()

    def begin(self) -> None:
        """Tell it what to do wrong."""
        seconds = self.scenario.lasts or 0
        self.victim.shell(f"echo {self.scenario.misbehaviour} {seconds:g} > {MISBEHAVIOUR_FILE}")

    def began(self) -> datetime | None:
        """Return when it first did so."""
        said = self.victim.shell(f"cat {MISBEHAVED_FILE} 2>/dev/null || true").strip()
        return datetime.fromtimestamp(float(said), UTC) if said else None

    def clear(self) -> None:
        """Let it behave again."""
        self.victim.shell(f"rm -f {MISBEHAVIOUR_FILE} {MISBEHAVED_FILE}")
