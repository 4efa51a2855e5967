"""The server container's process: `python -m fedbench.server`."""

from pathlib import Path

from fedbench.server.superlink import serve

if __name__ == "__main__":
    serve(Path("/tls"))
