"""A run that was started, watched to its end: its folder, and the process that ends with it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from fedbench.errors import RunError, RunInterrupted
from fedbench.host.setup.machine import Say
from fedbench.records import Summary, write_summary
from fedbench.records.runs import Run

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0


def follow(
    run: Run,
    process: subprocess.Popen[bytes],
    look: Callable[[], None],
    say: Say,
    *,
    go_on: str,
    why: str,
) -> Summary:
    """Calls `look` twice a second until the run is over.

    `go_on` says how an interrupted run goes on, `why` where to look when it failed.

    Raises:
        RunInterrupted: the user pressed Ctrl-C; the run was stopped and is recorded.
        RunError: it failed.
    """
    try:
        _wait(process, look)
    except KeyboardInterrupt:
        say("stopping the run (Ctrl-C again leaves at once)")
        run.request_stop()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    look()
    summary = write_summary(run.path)
    if summary.status == "interrupted":
        done = f"run {run.id} stopped after {len(summary.rounds)} rounds"
        raise RunInterrupted(f"{done}; what was recorded is in {run.path}", go_on)
    if summary.status != "finished":
        raise RunError(f"run {run.id} failed: {summary.error}", why)
    return summary


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> None:
    while process.poll() is None:
        look()
        time.sleep(POLL_SECONDS)
