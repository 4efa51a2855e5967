"""A client container's processes, without the container: python native_client.py FOLDER

FOLDER holds `data/` and `ca.pem`; settings come from the environment, as in the container.
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path

from fedbench.client.__main__ import work
from fedbench.client.settings import Settings
from fedbench.client.supervisor import Supervisor
from fedbench.telemetry.cgroup import Cgroup


def configure() -> Settings:
    """The settings, with the folder's files in the place of the container's."""
    folder, settings = Path(sys.argv[1]), Settings.from_environment()
    return replace(
        settings,
        certificate=folder / "ca.pem",
        data=folder / "data",
        ready=folder / "ready",
        listen_port=settings.metrics_port,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(Supervisor(work, configure, Cgroup(Path(sys.argv[1]))).run())
