"""Which engine executes a run, and what it takes to have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedbench.cli import checkout
from fedbench.cli.output import say
from fedbench.config import Profile
from fedbench.engines.containers.runtime.stack import Stack

if TYPE_CHECKING:  # slow imports
    from fedbench.engines.containers.engine import ContainersEngine
    from fedbench.engines.in_process.engine import InProcessEngine


def in_process(profile: Profile, workers: int | None = None) -> InProcessEngine:
    """Return the engine that needs neither Docker nor a federation that is up.

    Raises:
        HostError: torch or Flower is not installed here.
    """
    from fedbench.engines.in_process.engine import InProcessEngine

    return InProcessEngine(checkout.places, profile, say, workers)


def in_containers(stack: Stack) -> ContainersEngine:
    """Return the engine of a federation that is up."""
    from fedbench.engines.containers.engine import ContainersEngine
    from fedbench.engines.containers.runtime import docker_containers

    return ContainersEngine(stack, docker_containers.connect(say), say)
