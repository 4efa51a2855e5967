"""Docker for the benchmarks: the image of this checkout, and what its host has."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import docker

from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.docker_containers import DockerContainers
from fedbench.host.setup import bootstrap

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ExitStack()
"""Whoever closes it leaves Docker; until then no `fedbench down` of a part stops the daemon."""


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr)


@cache
def client() -> docker.DockerClient:
    """Docker, installed and started where that is allowed."""
    return DOCKER.enter_context(bootstrap.docker_session(say))


def talk() -> Containers:
    """The same Docker as fedbench talks to it."""
    return DockerContainers(client())


@cache
def image(*, cuda: bool = False) -> str:
    """The tag of the image, built from this checkout if it is not there."""
    return bootstrap.ensure_images(talk(), say, root=ROOT, cuda=cuda).fedbench


def gpus() -> int:
    """How many GPUs a container can have."""
    return talk().host().gpus
