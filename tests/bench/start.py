"""From `fedbench up` to the first training step on all three devices, the image being there.

The peer is the same with the clients' CPU quotas in force from the beginning, in turns.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median

import containers
from row import Row, row

TURNS = 2
SECONDS = 120.0
LOOK_SECONDS = 0.5
PROJECT = "fedbench-bench-start"
PORTS = {"server": 49192, "prometheus": 49190, "grafana": 49193}
CLIENTS = ("workstation", "laptop", "legacy-pc")
FIRST_STEP = "first training step done"
# What the clients log, and what it is the end of.
LOGGED = {
    "waiting for the CPU quota": "imported and connected",
    " is node ": "under its quota",
    "train message": "told to train",
    FIRST_STEP: FIRST_STEP,
}
FEDBENCH = [str(containers.ROOT / ".venv/bin/fedbench")]
WITHOUT_LIFTING = [sys.executable, str(Path(__file__).with_name("without_lifting.py"))]

Times = dict[str, float]


def rows(command: str) -> Iterator[Row]:
    containers.image()
    ours: list[Times] = []
    peers: list[Times] = []
    for _ in range(TURNS):
        ours.append(start(FEDBENCH))
        peers.append(start(WITHOUT_LIFTING))
    for part in sorted(ours[0], key=ours[0].__getitem__):
        seconds = [times[part] for times in ours]
        spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
        containers.say(f"  {median(seconds):5.1f} s ({spread})  {part}")
    yield row("start", last_steps(ours), "s", command, last_steps(peers), more_is_better=False)


def last_steps(starts: list[Times]) -> list[float]:
    """When the last client had done its first step."""
    return [max(times[f"{client}: {FIRST_STEP}"] for client in CLIENTS) for times in starts]


def start(fedbench: list[str]) -> Times:
    """Brings the federation up and takes it down; when each part was over, in seconds."""
    ports = [f"--set=ports.{name}={port}" for name, port in PORTS.items()]
    runs = containers.ROOT / "runs"
    before = set(runs.glob("*/run.json"))
    began = time.time()
    try:
        _run([*fedbench, "up", "--detach", *ports])
        (run,) = set(runs.glob("*/run.json")) - before
        moments = _server_moments() | _client_moments() | _run_moments(run.parent)
    finally:
        _run([*fedbench, "down", "--volumes"])
        for folder in ("data", ".fedbench"):
            shutil.rmtree(containers.ROOT / folder / PROJECT)
    shutil.rmtree(run.parent)
    return {part: moment - began for part, moment in moments.items()}


def _run(argv: list[str]) -> None:
    environment = os.environ | {"FEDBENCH_PROJECT": PROJECT, "FEDBENCH_YES": "1"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stderr}")


def _server_moments() -> Times:
    started = containers.client().containers.get(f"{PROJECT}-server-1").attrs["State"]["StartedAt"]
    return {"server: container started": _seconds(started)}


def _client_moments() -> Times:
    deadline = time.monotonic() + SECONDS
    moments: Times = {}
    while sum(part.endswith(FIRST_STEP) for part in moments) < len(CLIENTS):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no first step within {SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
        for client in CLIENTS:
            moments |= {f"{client}: {part}": when for part, when in _logged(client)}
    return moments


def _logged(client: str) -> Iterator[tuple[str, float]]:
    container = containers.client().containers.get(f"{PROJECT}-{client}-1")
    yield "container started", _seconds(container.attrs["State"]["StartedAt"])
    lines = container.logs(timestamps=True).decode().splitlines()
    for words, part in LOGGED.items():
        first = next((line for line in lines if words in line), None)
        if first:
            yield part, _seconds(first.partition(" ")[0])


def _run_moments(folder: Path) -> Times:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    parts = {"started": "server: ServerApp runs", "round": "server: round 1 begins"}
    return {
        parts[event["event"]]: _seconds(event["time"])
        for event in events
        if event["event"] in parts
    }


def _seconds(time_of_docker: str) -> float:
    """Docker writes nanoseconds."""
    return datetime.fromisoformat(time_of_docker).timestamp()
