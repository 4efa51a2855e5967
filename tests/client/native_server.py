"""The server container's process, without the container: python native_server.py TLS PORT…"""

import sys
from pathlib import Path

from fedbench.server.superlink import ServerPorts, serve

if __name__ == "__main__":
    serve(Path(sys.argv[1]), ServerPorts(*map(int, sys.argv[2:])))
