from __future__ import annotations

from collections.abc import Iterator

import pytest
from superlink import SUPERLINK_NODE, SuperLink

from fedbench.flower.messages import identify


@pytest.fixture
def superlink() -> Iterator[SuperLink]:
    superlink = SuperLink()
    with superlink.reached():
        yield superlink


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    identify(7, SUPERLINK_NODE)
