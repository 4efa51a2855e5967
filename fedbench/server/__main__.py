"""The server container's process: `python -m fedbench.server`."""

import os
from pathlib import Path

from fedbench.imports import importing
from fedbench.telemetry import logs

if __name__ == "__main__":
    with importing():
        from fedbench.server.superlink import serve
    logs.configure(service="server")
    serve(Path("/tls"), project=os.environ.get("FEDBENCH_PROJECT", ""))
