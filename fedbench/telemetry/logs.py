"""Log records as JSON lines that say who wrote them, in which run and which round.

Every line has the same keys: `time` (UTC), `level`, `logger`, `message`, who wrote it (`client`
and `device`, or `service`), `run` and `round` (null outside of one); and `exception`, a traceback,
where there is one. A library's INFO is our DEBUG: it stays in the stream, below what fedbench says.

The standard library suffices, and the process that supervises a client has to stay small.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

_OURS = "fedbench"
# One line for each request, ten a second: they would push everything else out of Docker's files.
_PER_REQUEST = ("httpx", "httpcore")

# Of the whole process, not of a thread: it works for one run at a time, and a thread that watches
# over that work speaks of the same run. Bound anew, never changed: another may log meanwhile.
_about: dict[str, object] = {"run": None, "round": None}


def configure(stream: TextIO | None = None, **who: str) -> None:
    """Send all log records and warnings of this process, and of its forks, to stderr.

    `who` is in every line, such as `client="laptop", device="laptop"`.
    """
    global _about  # noqa: PLW0603
    _about = {**_about, **who}
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setLevel(logging.INFO)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _PER_REQUEST:
        logging.getLogger(name).setLevel(logging.WARNING)
    adopt_flower()


def adopt_flower() -> None:
    """Remove the handler that Flower makes when it is imported: ours takes its place."""
    logging.getLogger("flwr").handlers.clear()


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Add facts to the lines that are written in the block, such as `run=…, round=3`."""
    global _about  # noqa: PLW0603
    before = _about
    _about = {**before, **facts}
    try:
        yield
    finally:
        _about = before


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage().strip(),
            **_about,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _level(record: logging.LogRecord) -> str:
    ours = record.name.partition(".")[0] == _OURS
    if record.levelno < logging.WARNING and not ours:
        return "debug"
    return record.levelname.lower()
