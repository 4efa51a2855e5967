from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedbench.host.locks import locked

HOLD = """
import sys
from pathlib import Path
from fedbench.host.locks import locked
with locked(Path(sys.argv[1]), shared=sys.argv[2] == "True"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path, *, shared: bool) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is told to end."""
    argv = [sys.executable, "-c", HOLD, str(path), str(shared)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def is_free(path: Path, *, shared: bool = False) -> bool:
    try:
        with locked(path, shared=shared, wait=False):
            return True
    except BlockingIOError:
        return False


def test_one_alone_or_several_together(tmp_path: Path) -> None:
    with held(tmp_path, shared=False):
        assert (is_free(tmp_path), is_free(tmp_path, shared=True)) == (False, False)
    with held(tmp_path, shared=True):
        assert (is_free(tmp_path), is_free(tmp_path, shared=True)) == (False, True)
    assert is_free(tmp_path)


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    with held(tmp_path, shared=False) as process:
        process.kill()
        with locked(tmp_path):
            assert process.wait() < 0


def test_what_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nothing"):
        pass
