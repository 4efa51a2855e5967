from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from fedbench.records import read_lines
from fedbench.records.files import replace_text
from fedbench.records.lines import append_line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


@pytest.mark.parametrize("size", [0, 1, 8, 2**16 - 9, 2**16, 3 * 2**16 + 1])
def test_half_a_line_is_cut_off_before_the_next(
    size: int, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b'{"a": 1}\n' + b"x" * size)
    append_line(path, '{"b": 2}')
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    told = f"{path}: half a line of {size} bytes at its end is dropped"
    assert caplog.messages == ([told] if size else [])


def test_a_file_of_half_a_line_begins_anew(path: Path) -> None:
    path.write_bytes(b'{"a": ')
    append_line(path, '{"b": 2}', sync=True)
    assert read_lines(path) == [{"b": 2}]


def test_a_line_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = os.write

    def noting(descriptor: int, content: bytes) -> int:
        writes.append(content)
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", noting)
    append_line(path, json.dumps({"text": "é" * 10**5}))
    assert writes == [path.read_bytes()]


def test_a_disk_that_takes_half_a_line_has_none_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_line(path, '{"a": 1}')
    write = os.write
    room = [5]

    def full(descriptor: int, content: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(descriptor, content[: room.pop()])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space"):
        append_line(path, '{"b": 2}')
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_file_is_on_the_disk_before_it_takes_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_text(path, "old")
    sync, synced = os.fsync, []

    def noting(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.read_text()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    replace_text(path, "new")
    assert synced == [(f"{path}.{os.getpid()}.tmp", "old"), (str(path.parent), "new")]


def test_a_file_that_cannot_be_written_leaves_the_old_one_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, "quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="quota"):
        replace_text(path, "new")
    assert [(each.name, each.read_text()) for each in path.parent.iterdir()] == [(path.name, "old")]
