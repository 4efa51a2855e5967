from __future__ import annotations

from pathlib import Path

import pytest
from one_thread import _one_thread  # noqa: F401 (a fixture)

from fedbench.engines.containers.runtime import certificates as tls
from fedbench.flower.messages import identify


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    tls.ensure(folder)
    return folder


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    identify(7)
