"""A client's two processes without what it learns: python supervised.py FOLDER START...

FOLDER holds `ca.pem` and a fake cgroup tree; each START says what becomes of the worker, the
first time and the times after. Which of them were begun is in FOLDER/started.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fedbench.client.announce import Announcer
from fedbench.client.settings import Settings
from fedbench.client.supervisor import Supervisor
from fedbench.telemetry.cgroup import Cgroup

NODE = 77
FOLDER = Path(sys.argv[1])


def configure() -> Settings:
    settings = Settings.from_environment()
    return replace(settings, certificate=FOLDER / "ca.pem", ready=FOLDER / "ready")


def kernel_kills() -> None:
    """What the kernel notes down when it kills a process of the container."""
    found = [*FOLDER.glob("sys/fs/cgroup/memory.events"), *FOLDER.rglob("memory.oom_control")]
    for file in found:
        count = int(re.findall(r"oom_kill (\d+)", file.read_text())[0])
        file.write_text(f"under_oom 0\noom_kill {count + 1}\n")


def work(settings: Settings) -> int:
    started = FOLDER / "started"
    begun = started.read_text().split() if started.exists() else []
    now = sys.argv[2:][len(begun)]
    told = []
    with ExitStack() as stack:
        if now not in ("too-small", "killed-offline"):
            node = None if settings.stock else NODE
            stack.enter_context(Announcer(settings, node, lambda _: True, lambda _: None).running())
        if now != "too-small":
            settings.ready.touch()
            stack.callback(settings.ready.unlink)
            signal.signal(signal.SIGTERM, lambda *_: told.append("stop"))
        started.write_text(" ".join([*begun, now]))
        if now in ("too-small", "out-of-memory", "other-out-of-memory"):
            kernel_kills()
        if now in ("too-small", "out-of-memory", "killed", "killed-offline"):
            os.kill(os.getpid(), signal.SIGKILL)
        if now == "connection-lost":
            return 1
        while not told:
            time.sleep(0.01)
    return 0


if __name__ == "__main__":
    sys.exit(Supervisor(work, configure, Cgroup(FOLDER)).run())
