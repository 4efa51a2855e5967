"""Golden files: texts that a test expects word for word, in tests/golden.

`UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/…` writes them anew: read the diff. A file is
either one text, or many under titles, `## title` a line.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import re
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_TITLE = re.compile(r"^## (.+)\n", re.MULTILINE)


def check(path: Path, text: str) -> None:
    """Fail the test unless the file is this text."""
    if _updates():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    _compare(path.read_text(encoding="utf-8") if path.exists() else "", text, str(path))


def check_section(path: Path, title: str, text: str) -> None:
    """Fail the test unless the file has this text, but for its last newline, under this title."""
    if _updates():
        _write_section(path, title, text)
    _compare(sections(path).get(title, ""), text.rstrip("\n") + "\n", f"{path}, {title}")


def sections(path: Path) -> dict[str, str]:
    """Return the texts of a file by title."""
    if not path.exists():
        return {}
    _, *pieces = _TITLE.split(path.read_text(encoding="utf-8"))
    return {
        title: text.rstrip("\n") + "\n"
        for title, text in zip(pieces[::2], pieces[1::2], strict=True)
    }


def _write_section(path: Path, title: str, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # tests may run beside each other
        texts = sections(path) | {title: text.rstrip("\n") + "\n"}
        joined = "\n".join(f"## {name}\n{texts[name]}" for name in sorted(texts))
        path.write_text(joined, encoding="utf-8")
    finally:
        os.close(folder)


def _updates() -> bool:
    return bool(os.environ.get("UPDATE_GOLDEN"))


def _compare(expected: str, text: str, where: str) -> None:
    if text != expected:
        lines = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), "golden", "now", lineterm=""
        )
        diff = "\n".join(lines)
        pytest.fail(f"{where} differs (UPDATE_GOLDEN=1 rewrites it):\n{diff}", pytrace=False)
