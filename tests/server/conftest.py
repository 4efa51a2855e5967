from __future__ import annotations

from collections.abc import Iterator

import pytest
from flwr.supercore.task_identity import TaskIdentity
from superlink import SUPERLINK_NODE, SuperLink


@pytest.fixture
def superlink() -> Iterator[SuperLink]:
    superlink = SuperLink()
    with superlink.reached():
        yield superlink


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, SUPERLINK_NODE, 1
