"""Runs one order in a short-lived container with rights that no client has (`fedbench/helper`)."""

from __future__ import annotations

import json
from typing import Any

import docker
from docker.errors import DockerException
from docker.models.containers import Container

from fedbench.errors import DockerError


def run(client: docker.DockerClient, image: str, order: dict[str, Any], **options: Any) -> Any:
    """The answer to an order, after about a second.

    The helper is root, sees the host's processes, and has no capability and no network; `options`
    of Docker's SDK give it more.

    Raises:
        DockerError: Docker does not start it, or the order failed.
    """
    try:
        container = client.containers.run(
            image,
            ["python", "-m", "fedbench.helper", json.dumps(order)],
            detach=True,
            user="0:0",
            pid_mode="host",
            network_mode="none",
            cap_drop=["ALL"],
            read_only=True,
            **options,
        )
        try:
            code = container.wait()["StatusCode"]
            return _answer(container, code)
        finally:
            container.remove(force=True)
    except DockerException as error:
        raise DockerError(f"{image}: the helper cannot be run: {error}") from None


def _answer(container: Container, code: int) -> Any:
    output = container.logs(stdout=True, stderr=False).decode()
    if code == 0:
        return json.loads(output)
    if output:
        raise DockerError(json.loads(output)["error"], "`make down` takes the federation down")
    tail = container.logs(stdout=False, stderr=True).decode().strip().splitlines()[-10:]
    raise DockerError(f"the helper ended with code {code}:\n" + "\n".join(tail))
