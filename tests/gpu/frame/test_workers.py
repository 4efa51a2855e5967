"""MPS, with a program in its place that has the same orders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from workers import SETTINGS, Setting, sharing

FAKE = """#!/bin/sh
pid="$CUDA_MPS_PIPE_DIRECTORY/pid"
if [ "$1" = -f ]; then
  echo $$ > "$pid"
  exec sleep 60
fi
read order
echo "$order" >> ORDERS
[ -e "$pid" ] || exit 1
[ "$order" != quit ] || kill "$(cat "$pid")"
"""


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the program on the path; return the file with the orders that it got."""
    control, file = tmp_path / "nvidia-cuda-mps-control", tmp_path / "orders"
    control.write_text(FAKE.replace("ORDERS", str(file)))
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return file


def test_mps_has_its_folders_to_itself_and_ends(orders: Path) -> None:
    with sharing(Setting(2, mps=True)) as works:
        assert works
        pipe = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert pipe.is_dir()
        assert Path(os.environ["CUDA_MPS_LOG_DIRECTORY"]).is_dir()
        pid = int((pipe / "pid").read_text())
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not pipe.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert orders.read_text().splitlines()[-1] == "quit"


def test_without_the_program_there_is_no_mps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with sharing(Setting(2, mps=True)) as works:
        assert not works
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_a_daemon_that_dies_at_once_is_no_mps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = tmp_path / "nvidia-cuda-mps-control"
    control.write_text("#!/bin/sh\nexit 1\n")
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with sharing(Setting(2, mps=True)) as works:
        assert not works


def test_each_way_has_a_name() -> None:
    assert [str(setting) for setting in SETTINGS] == ["1", "2-mps", "2"]
