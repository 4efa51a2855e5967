"""What tests share that start a federation's processes on this machine, without containers."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
CLASSES = [str(number) for number in range(10)]


def environment(home: Path, **settings: str) -> dict[str, str]:
    """What such a process finds around it."""
    return settings | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # two clients that spin for each other take ten times
        "PYTHONPATH": str(ROOT),
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for it.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def write_partition(folder: Path, train: int, test: int, seed: int) -> None:
    """A client's images, as noise."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("test", test)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = random.integers(0, len(CLASSES), count)
        tensors = {"images": images, "labels": labels}
        save_file(tensors, folder / f"{name}.safetensors", {"classes": json.dumps(CLASSES)})
