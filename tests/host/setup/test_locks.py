from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbench.host.setup.locks import locked


def is_free(path: Path, *, shared: bool = False) -> bool:
    try:
        with locked(path, shared=shared, wait=False):
            return True
    except BlockingIOError:
        return False


def test_one_alone_or_several_together(tmp_path: Path, held: Any) -> None:
    with held(tmp_path, "alone"):
        assert (is_free(tmp_path), is_free(tmp_path, shared=True)) == (False, False)
    with held(tmp_path, "shared"):
        assert (is_free(tmp_path), is_free(tmp_path, shared=True)) == (False, True)
    assert is_free(tmp_path)


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path, held: Any) -> None:
    with held(tmp_path, "alone") as process:
        process.kill()
        with locked(tmp_path):
            assert process.wait() < 0


def test_what_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nothing"):
        pass
