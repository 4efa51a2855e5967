"""A file that grows is read once, however often somebody looks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedbench.errors import DamagedFileError
from fedbench.records import replace_text
from fedbench.records.lines import GrowingLines, append_line


class Parser:
    def __init__(self) -> None:
        self.parsed = 0

    def __call__(self, line: bytes) -> int:
        self.parsed += 1
        return int(line)


@pytest.fixture
def parser() -> Parser:
    return Parser()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


@pytest.fixture
def lines(path: Path, parser: Parser) -> GrowingLines[int]:
    return GrowingLines(path, parser)


def test_each_line_is_parsed_once(path: Path, lines: GrowingLines[int], parser: Parser) -> None:
    assert lines.read() == []
    for number in range(500):
        append_line(path, str(number))
        assert len(lines.read()) == number + 1
    assert lines.read() == list(range(500))
    assert parser.parsed == 500


def test_half_a_line_is_waited_for(path: Path, lines: GrowingLines[int]) -> None:
    path.write_bytes(b"1\n2")
    assert lines.read() == [1]
    with path.open("ab") as file:
        file.write(b"3\n")
    assert lines.read() == [1, 23]


def test_half_a_line_that_is_dropped_was_never_there(path: Path, lines: GrowingLines[int]) -> None:
    path.write_bytes(b"1\n234")
    assert lines.read() == [1]
    append_line(path, "5")
    assert lines.read() == [1, 5]


def test_a_file_that_is_written_anew_is_read_anew(path: Path, lines: GrowingLines[int]) -> None:
    path.write_bytes(b"1\n2\n3\n")
    assert lines.read() == [1, 2, 3]
    replace_text(path, "1\n7\n8\n")
    assert lines.read() == [1, 7, 8]
    os.truncate(path, 2)
    assert lines.read() == [1]


def test_a_damaged_line_is_skipped_and_told(
    path: Path, lines: GrowingLines[int], caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"1\nx\n3\n")
    assert lines.read() == lines.read() == [1, 3]
    assert caplog.messages == [f"{path}: line 2 is damaged and skipped"]


def test_what_cannot_be_read_is_named(path: Path, lines: GrowingLines[int]) -> None:
    path.mkdir()
    with pytest.raises(DamagedFileError, match=r"lines\.jsonl cannot be read"):
        lines.read()
