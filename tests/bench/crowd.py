"""Thirty clients in one federation: whether all answer, how long a round takes, and its memory.

The profile `crowd` on MobileNetV2 and the embedded digits, 48 images for each client, two rounds of
one epoch. Memory is by how much the host had less available, at the worst moment, than before: the
clients, the server, Prometheus and Docker itself, but no file cache that the kernel gives back.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from federation import federation
from row import Row, row

ROUNDS = 2


def rows(command: str) -> Iterator[Row]:
    available = [psutil.virtual_memory().available]
    with federation(
        "crowd",
        "--experiment=digits",
        f"--set=rounds={ROUNDS}",
        "--set=local_epochs=1",
        look=lambda: available.append(psutil.virtual_memory().available),
    ) as bench:
        rounds = bench.first["rounds"]
    seconds = [each["duration_seconds"] for each in rounds]
    answers = [sum(c["error"] is None for c in each["clients"]) for each in rounds]
    memory = (available[0] - min(available)) / 1e9
    yield row("crowd_30_clients", seconds, "s / round", command, more_is_better=False)
    yield row("crowd_30_clients_answers", answers, "clients", command, more_is_better=True)
    yield row("crowd_30_clients_memory", [memory], "GB", command, more_is_better=False)
