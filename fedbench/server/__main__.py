"""The server container's process: `python -m fedbench.server`."""

from pathlib import Path

from fedbench.imports import importing

if __name__ == "__main__":
    with importing():
        from fedbench.server.superlink import serve
    serve(Path("/tls"))
