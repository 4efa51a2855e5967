from __future__ import annotations

import pytest
from one_thread import _one_thread  # noqa: F401 (a fixture)

from fedbench.flower.messages import identify


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    identify(7)
