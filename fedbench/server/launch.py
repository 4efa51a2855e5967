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
import urllib.request
from urllib.error import HTTPError

OPERATIONS_PORT = 9100
REFUSED, GONE = 2, 3


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="the run's folder, as this container sees it")
    parser.add_argument("--operations-port", type=int, default=OPERATIONS_PORT)
    args = parser.parse_args()
    body = json.dumps({"folder": args.folder}).encode()
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{args.operations_port}/runs", body
        ) as answer:
            return 0 if json.load(answer)["completed"] else 1
    except HTTPError as error:
        print(error.read().decode(errors="replace"), file=sys.stderr)  # noqa: T201 (who asked)
        return REFUSED
    except OSError as error:
        print(f"the server is gone: {error}", file=sys.stderr)  # noqa: T201
        return GONE


if __name__ == "__main__":
    sys.exit(main())
