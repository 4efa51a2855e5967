"""The server container's process, without the container: python native_server.py TLS PORT…"""

import sys
from pathlib import Path

from fedbench.server.superlink import Ports, serve

if __name__ == "__main__":
    serve(Path(sys.argv[1]), Ports(*map(int, sys.argv[2:])))
