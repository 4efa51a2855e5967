"""The client container's process: `python -m fedbench.client`."""

from __future__ import annotations

import sys

from fedbench.client.settings import Settings
from fedbench.client.supervisor import Supervisor
from fedbench.telemetry import logs
from fedbench.telemetry.cgroup import Cgroup


def work(settings: Settings) -> int:
    """Run the worker; this process does without what the worker imports."""
    from fedbench.client import worker

    return worker.work(settings)


if __name__ == "__main__":
    who = Settings.from_environment()
    logs.configure(client=who.client, device=who.device)
    sys.exit(Supervisor(work, Settings.from_environment, Cgroup()).run())
