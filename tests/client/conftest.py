from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Others work on this machine, too, and one thread gives the same sums each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
