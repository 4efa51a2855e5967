"""Asks this container's server to start a run, and waits for its end.

`python -m fedbench.server.launch /runs/<id>`: exit code 0 when Flower says that the run
completed, 1 when it failed. What happened in it is in the folder's events.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request

OPERATIONS_PORT = 9100


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="the run's folder, as this container sees it")
    parser.add_argument("--operations-port", type=int, default=OPERATIONS_PORT)
    args = parser.parse_args()
    body = json.dumps({"folder": args.folder}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{args.operations_port}/runs", body) as answer:
        return 0 if json.load(answer)["completed"] else 1


if __name__ == "__main__":
    sys.exit(main())
