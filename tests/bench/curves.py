"""How a round's overhead grows: with the model's size, and with the number of clients.

As in rounds.py, without the stock node. Sizes: three clients, profile `heterogeneous`. Clients:
MobileNetV2's 9 MB, equal laptops that share the host's cores; a federation of each size comes up
anew. As many clients as fit into the memory that is free, at CLIENT_BYTES each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from federation import federation
from rounds import NOOP, overheads
from row import Row, row

MEGABYTES, CLIENTS, ROUNDS = (1, 3, 9, 30, 100), (3, 10, 25, 50), 10
CLIENT_BYTES = 400_000_000
SERVER_BYTES = 1_000_000_000


def rows(command: str) -> Iterator[Row]:
    yield from sizes(command)
    for clients in CLIENTS:
        if clients * CLIENT_BYTES + SERVER_BYTES > psutil.virtual_memory().available:
            print(f"{clients} clients do not fit into the memory that is free: left out")
            continue
        yield crowd(clients, command)


def sizes(command: str) -> Iterator[Row]:
    with federation("heterogeneous", NOOP, "--set=rounds=1") as bench:
        for size in MEGABYTES:
            summary = bench.run(NOOP, f"--set=rounds={ROUNDS}", f"--set=noop_megabytes={size}")
            name = f"round_overhead_{size}mb"
            yield row(name, overheads(summary), "s", command, more_is_better=False)


def crowd(clients: int, command: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "crowd.yaml"
        profile.write_text(f"machines: [{{device: laptop, count: {clients}}}]\n")
        with federation(str(profile), NOOP, "--set=rounds=1") as bench:
            summary = bench.run(NOOP, f"--set=rounds={ROUNDS}")
    name = f"round_overhead_{clients}_clients"
    return row(name, overheads(summary), "s", command, more_is_better=False)
