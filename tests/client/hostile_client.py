"""A client that answers its first two tasks badly, then well: python hostile_client.py FOLDER

The first update has a NaN, the second lacks an object. Settings are as in native_client.py.
"""

import logging
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from native_client import configure

from fedbench.client import app, worker
from fedbench.client.settings import Settings
from fedbench.client.supervisor import Supervisor
from fedbench.flower.bundles import RefusedError
from fedbench.flower.fleet import FleetConnection
from fedbench.flower.messages import Deflated
from fedbench.telemetry.cgroup import Cgroup

log = logging.getLogger("hostile")


def work(settings: Settings) -> int:
    """Run the worker with spoiled insides."""
    how = chain(["nan", "incomplete"], repeat("honest"))
    app._reply = _spoil_update(app._reply, how)
    FleetConnection.push = _spoil_push(FleetConnection.push)
    return worker.work(settings)


def _spoil_update(reply: Any, how: Iterator[str]) -> Any:
    def spoiled(message: Message, done: Any, arrays: ArrayRecord | None = None) -> Message:
        if arrays is None:
            return reply(message, done)
        today = next(how)
        if today == "nan":
            weights = arrays["weights"].numpy().copy()
            weights[7] = np.nan
            arrays = ArrayRecord({"weights": Array(weights)})
        answer = reply(message, done, arrays)
        answer.spoiled = today == "incomplete"
        return answer

    return spoiled


def _spoil_push(push: Any) -> Any:
    def spoiled(fleet: FleetConnection, reply: Message, objects: Deflated) -> None:
        if not getattr(reply, "spoiled", False):
            push(fleet, reply, objects)
            return
        first, *_ = objects.contents
        rest = {key: content for key, content in objects.contents.items() if key != first}
        try:
            push(fleet, reply, Deflated(objects.trees, rest))
        except RefusedError as error:
            log.info("refused: %s", error)

    return spoiled


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(Supervisor(work, configure, Cgroup(Path(sys.argv[1]))).run())
