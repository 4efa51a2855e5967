"""The ServerApp: one run on SuperLink, its events in the folder and in the metrics."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedbench.server import run
from fedbench.server.checkpoint import RunFolder
from fedbench.server.grid import PromptGrid

log = logging.getLogger("fedbench.server")
app = ServerApp()

ALONE_SECONDS = 30.0
_WATCHED_ONLY = ("not_held",)  # the round's record has it for the metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of `folder`, and say in its events how it ended."""
    folder = RunFolder(Path(str(context.run_config["folder"])))
    # One client for all events: making one takes 20 ms, of which a round has eight.
    operations = httpx.Client(base_url=str(context.run_config["operations"]))
    prompt = PromptGrid(grid, folder.stop_requested)
    with _alone(folder.path), operations, closing(prompt):
        say = partial(_tell, folder, operations)
        run.execute(prompt, folder, say, partial(_why, operations))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one that writes there: a ServerApp whose executor died may take a moment to end.

    Raises:
        TimeoutError: it does not.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + ALONE_SECONDS
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process still works on run {folder.name}")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell(folder: RunFolder, operations: httpx.Client, event: str, **facts: Any) -> None:
    """Write the event for whoever watches the folder, and hand it to the metrics."""
    run.note(folder, event, **facts)
    if event in _WATCHED_ONLY:
        return
    body = {"run": folder.path.name, "event": event} | facts
    # Metrics are for looking: a run does not fail because of them. Nor because of a loss that is
    # not a number, which httpx' own JSON refuses.
    try:
        operations.post("/events", content=json.dumps(body)).raise_for_status()
    except httpx.HTTPError as error:
        log.warning("%s is not in the metrics: %s", event, error)


def _why(operations: httpx.Client, node_id: int, client: str) -> str | None:
    """Return what the server was told of a node that is gone."""
    try:
        answer = operations.get(f"/lost/{node_id}/{client}").raise_for_status()
    except httpx.HTTPError as error:
        log.warning("%s is gone, and nobody says why: %s", client, error)
        return None
    return cast("str | None", answer.json()["reason"])
