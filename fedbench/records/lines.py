"""JSON-lines files: a line is written whole, and half a line at the end is nobody's.

A power cut or a full disk may leave half a line. Readers drop it, the next writer cuts it off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from fedbench.errors import DamagedFileError
from fedbench.records.files import MOST_BYTES, UNREADABLE, json_object, read_whole, reason

T = TypeVar("T")
_CHUNK = 2**16
_said: set[str] = set()
log = logging.getLogger("fedbench.records")


@dataclass(frozen=True)
class Scan(Generic[T]):
    """The lines of a file: those that are whole, and why others are not, by their number.

    `torn`: the last line is only half there. That is the state of a file that is being written, or
    whose writer died.
    """

    whole: list[T] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    torn: bool = False


def scan_lines(path: Path, parse: Callable[[bytes], T]) -> Scan[T]:
    """Return all lines of a file, which may be growing or not exist yet.

    Raises:
        DamagedFileError: it cannot be read at all.
    """
    if not path.exists():
        return Scan()
    # Only b"\n" ends a line: text within one may hold other separators, such as U+2028.
    *ended, rest = read_whole(path).split(b"\n")
    whole: list[T] = []
    damaged: dict[int, str] = {}
    for number, line in enumerate(ended, 1):
        try:
            whole.append(parse(line))
        except UNREADABLE as error:
            damaged[number] = reason(error)
    torn = bool(rest) or damaged.pop(len(ended), None) is not None
    return Scan(whole, damaged, torn)


@overload
def read_lines(path: Path) -> list[dict[str, Any]]: ...


@overload
def read_lines(path: Path, parse: Callable[[bytes], T]) -> list[T]: ...


def read_lines(path: Path, parse: Callable[[bytes], Any] = json_object) -> list[Any]:
    """Return the whole lines of a file, which may be growing or not exist yet.

    Raises:
        DamagedFileError: a line before the last cannot be parsed; it names the line.
    """
    scan = scan_lines(path, parse)
    for number, why in scan.damaged.items():
        raise DamagedFileError(path, f"line {number} is damaged: {why}")
    return scan.whole


def skim_lines(path: Path, parse: Callable[[bytes], T]) -> list[T]:
    """Return the same for who only looks: damaged lines are skipped, counted, and told once."""
    scan = scan_lines(path, parse)
    if scan.damaged:
        numbers = ", ".join(map(str, scan.damaged))
        warn_once(f"{path}: {len(scan.damaged)} damaged lines are skipped: {numbers}")
    return scan.whole


class GrowingLines(Generic[T]):
    """The lines of a file that others add to: each is read and parsed once.

    Damaged ones are skipped, as `skim_lines` does.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._whole: list[T] = []
        self._inode = self._end = self._number = 0

    def read(self) -> list[T]:
        """Return all whole lines so far; the list is this object's, and the next call's as well."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._end:
                    self._whole, self._inode, self._end, self._number = [], facts.st_ino, 0, 0
                file.seek(self._end)
                *ended, _ = file.read(MOST_BYTES).split(b"\n")
        except FileNotFoundError:
            ended = []
        except OSError as error:
            raise DamagedFileError(self._path, f"cannot be read: {error.strerror}") from None
        for line in ended:
            self._add(line)
        return self._whole

    def _add(self, line: bytes) -> None:
        self._end += len(line) + 1
        self._number += 1
        try:
            self._whole.append(self._parse(line))
        except UNREADABLE:
            warn_once(f"{self._path}: line {self._number} is damaged and skipped")


def tell_half_line(path: Path) -> None:
    """Say once that half a line is left at the end of a file that nobody writes any more."""
    if path.exists() and (content := read_whole(path)) and not content.endswith(b"\n"):
        warn_once(f"{path}: half a line at its end is dropped")


def append_line(path: Path, line: str, *, sync: bool = False) -> None:
    """Add a line to a file in one write, after whole lines; with `sync`, it is on the disk then.

    Raises:
        OSError: it cannot be written, and nothing of it was.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        end = _cut_half_line(descriptor, path)
        try:
            _write(descriptor, f"{line}\n".encode())
            if sync:
                os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    while content:  # a full disk takes a part, and refuses the rest
        content = content[os.write(descriptor, content) :]


def _cut_half_line(descriptor: int, path: Path) -> int:
    """Cut off what stands after the last newline, and return the file's size then."""
    size = end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(descriptor, end)
        log.warning("%s: half a line of %d bytes at its end is dropped", path, size - end)
    return end


def warn_once(text: str) -> None:
    """Log a warning, once in a process however often it is found."""
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)
