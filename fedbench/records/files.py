"""Files on disk: frozen records, written whole and read with an error that names the file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fedbench.errors import DamagedFileError

MOST_BYTES = 256 * 2**20
"""A file of JSON that is larger was not written by fedbench, and is not read."""
ASIDE = ".tmp"
"""How the names of files end that are to replace others."""
UNREADABLE = (ValueError, TypeError, LookupError, RecursionError)
"""What parsing arbitrary bytes may raise; pydantic's errors are ValueErrors."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Record(BaseModel):
    """A frozen record; unknown keys of a later version are ignored."""

    model_config = ConfigDict(frozen=True)


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def parse_moment(text: str) -> str:
    """Return the text if it is a time in ISO 8601 with an offset.

    Raises:
        ValueError, TypeError: it is none.
    """
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without an offset")
    return text


Moment = Annotated[str, AfterValidator(parse_moment)]
"""A time in ISO 8601 with an offset, as text."""


def replace_text(path: Path, text: str) -> None:
    """Write a text file anew, as `replace_bytes` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file anew; a reader sees the old or the new content, even after a power cut.

    Raises:
        OSError: it cannot be written, and what was there still is.
    """
    write_aside(path, content).replace(path)
    sync_folder(path.parent)


def write_aside(path: Path, content: bytes | memoryview) -> Path:
    """Write the file beside `path` that is to replace it, to the disk itself, and return its path.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}{ASIDE}")  # others may write the same
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    return aside


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_whole(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return what is in a file.

    Raises:
        DamagedFileError: it is missing, cannot be read, or has more than `most` bytes.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise DamagedFileError(path, "is no file")
        if facts.st_size > most:
            raise DamagedFileError(path, f"has {facts.st_size} bytes, {most} are the most")
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedFileError(path, "is missing") from None
    except OSError as error:
        raise DamagedFileError(path, f"cannot be read: {error.strerror}") from None


def read_record(path: Path, model: type[AnyRecord], hint: str = "") -> AnyRecord:
    """Return the record that is a file's only content; `hint` says what to do about a damaged one.

    Raises:
        DamagedFileError: the file is missing, or not such a record.
    """
    content = read_whole(path)
    try:
        return model.model_validate_json(content)
    except UNREADABLE as error:
        raise DamagedFileError(path, f"is damaged: {reason(error)}", hint) from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that is a file's only content.

    Raises:
        DamagedFileError: the file is missing, or not such an object.
    """
    content = read_whole(path)
    try:
        return json_object(content)
    except UNREADABLE as error:
        raise DamagedFileError(path, f"is damaged: {reason(error)}") from None


def json_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError, RecursionError: it is none.
    """
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def reason(error: Exception) -> str:
    """Say in one line why something cannot be parsed."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return str(error).partition("\n")[0] or type(error).__name__


def is_disk_full(error: BaseException) -> bool:
    """Tell whether it says that a disk, or its user's quota, has no room left."""
    return isinstance(error, OSError) and error.errno in _FULL


def describe_full_disk(folder: Path) -> str:
    """Say which disk has no room left for a folder."""
    path = folder.absolute()
    mount = next(parent for parent in (path, *path.parents) if parent.is_mount())
    usage = shutil.disk_usage(path)
    room = f"{usage.free / 1e6:.1f} of {usage.total / 1e6:.0f} MB are free"
    return f"the disk at {mount} is full ({room}): {folder} cannot be written to"
