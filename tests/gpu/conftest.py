"""Tests of the GPU path. Under `GPU=none` they run on the CPU, but for those that need CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from one_thread import _one_thread  # noqa: F401 (a fixture)

HERE = Path(__file__).parent
CUDA = torch.cuda.is_available() and os.environ.get("GPU") != "none"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave these tests to a session (`run.sh`). The unit tests have those in `frame/`."""
    ours = collection_path.parent == HERE and collection_path.is_file()
    return True if ours and "GPU_MACHINE" not in os.environ else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let warnings be warnings: one that is raised amid a capture would break all that follows."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or the CPU in its place."""
    return torch.device("cuda:0" if CUDA else "cpu")


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """The GPU; skips a test that has no meaning without one."""
    if device.type != "cuda":
        pytest.skip("no GPU: needs CUDA")
    return device


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Let cuDNN sum in the same order each time."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Keep what a test measured: in its output, and in the file of results if one is written."""

    def keep(name: str, value: float) -> None:
        request.node.user_properties.append((name, value))
        print(f"{name}: {value:.3g}")

    return keep
