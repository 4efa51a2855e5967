"""How hard the tests try that make up what comes from outside.

A few examples, the same each time; `FUZZ=100 pytest …` tries a hundred times as many, each time
others.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FUZZ", "1"))


def examples(number: int) -> settings:
    """So many examples, or a multiple of it."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
