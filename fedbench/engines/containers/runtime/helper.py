"""Runs one order in a short-lived container with rights that no client has (`fedbench/helper`)."""

from __future__ import annotations

import json
from typing import Any

from fedbench.engines.containers.runtime.containers import (
    CommandAnswer,
    Containers,
    HelperContainer,
)
from fedbench.errors import DockerError


def run(containers: Containers, image: str, order: dict[str, Any], **rights: Any) -> Any:
    """Return the answer to an order, after about a second.

    `rights` are those fields of a HelperContainer that give it more.

    Raises:
        DockerError: the helper cannot be started, or the order failed.
    """
    command = ["python", "-m", "fedbench.helper", json.dumps(order)]
    return _answer(containers.run_helper(HelperContainer(image, command, **rights)))


def _answer(answer: CommandAnswer) -> Any:
    if answer.code == 0:
        return json.loads(answer.output)
    if answer.output:
        message = json.loads(answer.output)["error"]
        raise DockerError(message, "`make down` takes the federation down")
    tail = answer.errors.strip().splitlines()[-10:]
    raise DockerError(f"the helper ended with code {answer.code}:\n" + "\n".join(tail))
