"""A plugin of pytest: each test's outcome, as a record, the moment that it is known.

The environment names the file (`GPU_OUTCOMES`) and says which machine it is (`GPU_MACHINE`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from results import append


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record a test's call, or its setup where that is all it came to."""
    if report.when == "call" or (report.when == "setup" and not report.passed):
        record = {
            "key": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(report.duration, 3),
            "message": report.longreprtext[-2000:],
            "machine": json.loads(os.environ["GPU_MACHINE"]),
        }
        append(Path(os.environ["GPU_OUTCOMES"]), record)
