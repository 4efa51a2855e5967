from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (
            {"quotas": [{"pid": 2**30, "period": 100_000, "quota": 50_000}]},
            "process 1073741824 is not there: its container has ended",
        ),
        (
            {"switch": {"pid": 2**30, "up": False}},
            "process 1073741824 is not there: its container has ended",
        ),
        (
            {"dance": []},
            "the helper knows no order 'dance': expected quotas, shape, switch or probe",
        ),
    ],
)
def test_an_order_that_fails_is_answered_with_the_reason(order: dict[str, Any], error: str) -> None:
    argv = [sys.executable, "-m", "fedbench.helper", json.dumps(order)]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": error}
    assert done.stderr == b""


def test_a_quota_needs_no_netlink() -> None:
    """It would be imported every few seconds, while devices are emulated."""
    code = "import sys, fedbench.helper.__main__; print('pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"
