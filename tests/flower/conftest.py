from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    from fedbench.flower.messages import identify  # noqa: PLC0415 (see flower_internals.py)

    identify(7)
