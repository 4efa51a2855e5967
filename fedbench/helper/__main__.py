"""Carries out one order and ends: `python -m fedbench.helper '{"quotas": [...]}'`.

Orders: `quotas`, a list of `set_parent_quota`'s arguments; `shape`, a list of `LinkLimits`;
`switch`, the arguments of that function; `probe`.
The answer is JSON on stdout: `{"error": text}` with exit code 1 where the order failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedbench.errors import HostError
from fedbench.helper.cgroup import set_parent_quota


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order, which has one key; return the answer.

    Raises:
        HostError: the order is unknown, or cannot be carried out.
    """
    ((verb, entries),) = order.items()
    if verb == "quotas":
        for entry in entries:
            set_parent_quota(Path("/"), **entry)
        return {}
    from fedbench.helper import shape  # noqa: PLC0415 (the governor's orders need not wait for it)

    if verb == "shape":
        shape.shape(shape.LinkLimits(**entry) for entry in entries)
        return {}
    if verb == "switch":
        shape.switch(**entries)
        return {}
    if verb == "probe":
        return shape.probe()
    raise HostError(f"the helper knows no order {verb!r}: expected quotas, shape, switch or probe")


def main() -> int:
    """Print the answer to the order; return the exit code: 0, or 1 if the order failed."""
    try:
        answer = obey(json.loads(sys.argv[1]))
    except (HostError, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main())
