"""The only place that runs `docker compose`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedbench.errors import DockerError


@dataclass(frozen=True)
class Compose:
    """One compose project: its file and the values of its variables.

    Without a file, it is what Docker's labels say, which is enough to stop it and take it down.
    """

    name: str
    file: Path | None
    variables: Mapping[str, str] = field(default_factory=dict)

    def up(self) -> None:
        """Create and start what is missing or changed; containers of old plans are removed."""
        self._run("up", "--detach", "--remove-orphans", "--quiet-pull", "--no-build")

    def stop(self) -> None:
        """End what runs; the containers stay, with what they logged to their last word."""
        self._run("stop", "--timeout", "5")

    def down(self) -> None:
        """Remove the project's containers and networks; recorded metrics stay in their volume."""
        self._run("down", "--remove-orphans", "--timeout", "5")

    def purge(self) -> None:
        """Remove the same as `down`, and the volumes too."""
        self._run("down", "--remove-orphans", "--timeout", "5", "--volumes")

    def config(self) -> str:
        """Return the project as compose understands it: merged, all variables resolved."""
        return self._run("config")

    def command(self, *arguments: str) -> list[str]:
        """Return the argv of a compose command on this project."""
        file = ["--file", str(self.file)] if self.file else []
        return ["docker", "compose", "--project-name", self.name, *file, *arguments]

    def environment(self) -> dict[str, str]:
        """Return the environment in which `command` must run."""
        return {**os.environ, **self.variables}

    def _run(self, *arguments: str) -> str:
        # Compose would take any project's file that it sees from where the user is.
        folder = None if self.file else Path("/")
        return run(self.command(*arguments), self.environment(), folder)


def run(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a command, in that folder or here, and return its standard output.

    Raises:
        DockerError: it failed; the message has its last lines.
    """
    done = subprocess.run(
        argv, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-10:])
        raise DockerError(f"`{' '.join(argv)}` failed:\n{tail}")
    return done.stdout
