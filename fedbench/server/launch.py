"""Asks this container's server to execute a run, and waits for its end.

`python -m fedbench.server.launch /runs/<id>`: exit code 0 when Flower says that the run
completed, 1 when it failed, 2 when the server refused, as it executes another, 3 when the server
is gone. Where it executes this very run already, this only waits. What happened in it is in the
folder's events.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from urllib.error import HTTPError, URLError

OPERATIONS_PORT = 9100
REFUSED, GONE = 2, 3
STARTING_SECONDS, POLL_SECONDS = 60.0, 0.5


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="the run's folder, as this container sees it")
    parser.add_argument("--operations-port", type=int, default=OPERATIONS_PORT)
    args = parser.parse_args()
    body = json.dumps({"folder": args.folder}).encode()
    try:
        return 0 if _ask(f"http://127.0.0.1:{args.operations_port}/runs", body) else 1
    except HTTPError as error:
        print(_reason(error.read()), file=sys.stderr)  # noqa: T201 (who asked)
        return REFUSED
    except OSError as error:
        print(f"the server is gone: {error}", file=sys.stderr)  # noqa: T201
        return GONE


def _ask(url: str, body: bytes) -> bool:
    """Return whether the run completed. The server may still be starting."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, body) as answer:  # noqa: S310 (http, see above)
                return bool(json.load(answer)["completed"])
        except URLError as error:
            starting = isinstance(error.reason, ConnectionRefusedError)
            if not starting or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def _reason(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, LookupError, TypeError):
        return answer.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
