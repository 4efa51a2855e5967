"""How clients share a GPU: how many train at once, and with NVIDIA's MPS or without."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CONTROL = "nvidia-cuda-mps-control"
_VARIABLES = {"CUDA_MPS_PIPE_DIRECTORY": "pipe", "CUDA_MPS_LOG_DIRECTORY": "log"}
START_SECONDS = 5.0


@dataclass(frozen=True)
class Setting:
    """So many processes train at once; 0 means none besides the run's."""

    workers: int
    mps: bool = False

    def __str__(self) -> str:
        return f"{self.workers}{'-mps' if self.mps else ''}"


SETTINGS = (Setting(1), Setting(2, mps=True), Setting(2))


@contextmanager
def sharing(setting: Setting) -> Iterator[bool]:
    """Let processes that are started within share the GPU like that; say if they can.

    MPS has its folders to itself, and ends with the block.
    """
    control = shutil.which(_CONTROL)
    if not setting.mps:
        yield True
        return
    if control is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        places = {name: str(Path(folder) / sub) for name, sub in _VARIABLES.items()}
        for place in places.values():
            Path(place).mkdir()
        os.environ.update(places)
        daemon = subprocess.Popen([control, "-f"])  # in our process group: it ends with us
        try:
            yield _answers(control, daemon)
        finally:
            _quit(control, daemon)
            for name in places:
                del os.environ[name]


def _answers(control: str, daemon: subprocess.Popen[bytes]) -> bool:
    """Wait until the daemon takes orders."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and daemon.poll() is None:
        if _order(control, "get_server_list"):
            return True
        time.sleep(0.1)
    return False


def _order(control: str, words: str) -> bool:
    try:
        answer = subprocess.run([control], input=f"{words}\n".encode(), timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


def _quit(control: str, daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        _order(control, "quit")
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
