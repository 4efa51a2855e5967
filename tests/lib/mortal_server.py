"""A server that is killed at given points of its run: python mortal_server.py RUNS TLS PORT…

This process starts it again whenever it dies, as Docker does; it forks it off, for what it imports
takes seconds. RUNS/pending holds the points, such as `trained:2 aggregation:3`: each is struck off
when it is reached. As where a container's first process is killed, all processes die at once: they
are a group.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fedbench.server import app, checkpoint, strategy
from fedbench.server.superlink import ServerPorts, serve

RUNS = Path(sys.argv[1])
PENDING = RUNS / "pending"


def pending() -> list[str]:
    return PENDING.read_text().split() if PENDING.exists() else []


def reach(point: str, number: int) -> None:
    """Die, if that is one of the points."""
    if (name := f"{point}:{number}") in (points := pending()):
        points.remove(name)
        PENDING.write_text(" ".join(points))
        os.killpg(0, signal.SIGKILL)


tell, result, keep = app._tell, strategy.Average.result, checkpoint.RunFolder._keep
now = {"round": 0}


def telling(folder: Any, operations: Any, event: str, **facts: Any) -> None:
    """After an event: while others train, and between two rounds."""
    tell(folder, operations, event, **facts)
    now["round"] = facts.get("round", now["round"])
    if event in ("trained", "recorded"):
        reach(event, now["round"])


def aggregating(average: Any) -> Any:
    """When all replies are added up."""
    reach("aggregation", now["round"])
    return result(average)


def keeping(folder: Any, new: Any) -> None:
    """Half of a checkpoint is on the disk."""
    if f"checkpoint:{new.round}" in pending():
        content = new.dump()
        aside = folder.path / f"{checkpoint.CHECKPOINT}.{os.getpid()}{checkpoint.ASIDE}"
        aside.write_bytes(content[: len(content) // 2])
        reach("checkpoint", new.round)
    keep(folder, new)


app._tell = telling
strategy.Average.result = aggregating  # type: ignore[method-assign]
checkpoint.RunFolder._keep = keeping  # type: ignore[method-assign]


def start() -> int:
    """Return the server's process, the first of a group."""
    if server := os.fork():
        return server
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve(Path(sys.argv[2]), ServerPorts(*map(int, sys.argv[3:])), RUNS)
    os._exit(0)


def main() -> None:
    told: list[int] = []
    server = start()

    def end(number: int, _: object) -> None:
        told.append(number)
        os.kill(server, number)

    signal.signal(signal.SIGTERM, end)
    while os.waitpid(server, 0) and not told:
        server = start()


if __name__ == "__main__":
    main()
