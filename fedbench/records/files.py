"""What is on disk: frozen records, whole files and JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record; unknown keys of a later version are ignored."""

    model_config = ConfigDict(frozen=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file anew; a reader finds the old or the new text, never half of it."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")  # others may write the same
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a JSON-lines file, which may be growing or not exist yet."""
    if not path.exists():
        return
    # Only b"\n" ends a line: text within one may hold other separators, such as U+2028.
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
