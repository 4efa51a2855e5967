"""A client container's process, without the container: python native_client.py FOLDER

FOLDER holds `data/` and `ca.pem`; settings come from the environment, as in the container.
"""

import os
import sys
from pathlib import Path

from fedbench.client import __main__ as client

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    client.CERTIFICATE = folder / "ca.pem"
    client.DATA = folder / "data"
    client.READY = folder / "ready"
    client.METRICS_PORT = int(os.environ["FEDBENCH_METRICS_PORT"])
    sys.exit(client.main())
