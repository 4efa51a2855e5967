"""The first minute of a newcomer: a checkout, nothing installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import ROOT, run

pytestmark = pytest.mark.processes

PARTS = ("Makefile", "README.md", "LICENSE", "pyproject.toml", "configs", "fedbench")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    return tmp_path


def test_the_host_needs_nothing_that_only_the_tests_install(checkout: Path) -> None:
    """The tests' packages hold each other back: without them pip took a typer that broke it all."""
    done = run("make", "-C", str(checkout), "devices", "DEVICE=legacy-pc")
    assert done.code == 0
    assert "222.2 samples/s" in done.output
