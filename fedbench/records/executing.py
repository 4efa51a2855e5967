"""`executing.json`: a server executes this run, or will do so as soon as it is back.

The server writes it when it starts the run, and removes it when that ended. A server that finds it
at its start goes on with the run.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import Field

from fedbench.errors import DamagedFileError
from fedbench.records.events import append_event
from fedbench.records.files import Record, read_record, replace_text
from fedbench.records.lines import skim_lines
from fedbench.records.rounds import ROUNDS_FILE, parse_round
from fedbench.records.summary import SUMMARY_FILE, write_summary

EXECUTING_FILE = "executing.json"
SPARE_FILE = "spare"
"""Keeps room on the disk for the words that say how a run ended."""
MOST_DEATHS = 3


class Executing(Record):
    """How often what executes the run died since it went on after round `after_round`.

    `project` is the server's: others may see the same folder. `put_down`: the server ended in
    order, as with its computer, which is no death.
    """

    project: str = ""
    after_round: int = Field(default=0, ge=0)
    deaths: int = Field(default=0, ge=0)
    put_down: bool = False


def begin(folder: Path, project: str) -> None:
    """Note that the run is executed by a project's server.

    Raises:
        OSError: it cannot be written.
    """
    _write(folder, Executing(project=project, after_round=_last_round(folder)))


def end(folder: Path) -> None:
    """Note that it is not any more."""
    (folder / EXECUTING_FILE).unlink(missing_ok=True)


def put_down(folder: Path) -> None:
    """Note that its server ends in order, and leaves the run to the next."""
    _write(folder, _read(folder).model_copy(update={"put_down": True}))


def was_put_down(folder: Path) -> bool:
    """Tell whether that is what became of it."""
    return _read(folder).put_down


def is_executing(folder: Path) -> bool:
    """Tell whether a server executes the run, or will: nobody has said that it ended."""
    return (folder / EXECUTING_FILE).exists() and not (folder / SUMMARY_FILE).exists()


def all_executing(runs: Path, project: str) -> list[Path]:
    """Return the folders of a project's such runs, the oldest first."""
    folders = [path.parent for path in sorted(runs.glob(f"*/{EXECUTING_FILE}"))]
    return [each for each in folders if is_executing(each) and _read(each).project == project]


def went_on(folder: Path, reason: str) -> bool:
    """Note why the run has to be started again, and return whether it may be.

    It may not where that died for the third time since the last complete round: then it failed.
    """
    known, last = _read(folder), _last_round(folder)
    before = known.deaths if last == known.after_round else 0
    deaths = before + (not known.put_down)
    if deaths >= MOST_DEATHS:
        fail(folder, f"{reason}, {deaths} times before round {last + 1} was complete")
        return False
    append_event(folder, "restarted", reason=reason, after_round=last)
    _write(folder, Executing(project=known.project, after_round=last, deaths=deaths))
    return True


def fail(folder: Path, reason: str) -> None:
    """End a run in place of who executed it, and say why.

    Raises:
        OSError: that cannot be written; the run has ended all the same.
    """
    (folder / SPARE_FILE).unlink(missing_ok=True)
    try:
        append_event(folder, "error", reason=reason)
        write_summary(folder)
    finally:
        end(folder)


def _write(folder: Path, executing: Executing) -> None:
    replace_text(folder / EXECUTING_FILE, executing.model_dump_json() + "\n")


def _read(folder: Path) -> Executing:
    """Return what is known; a damaged file knows of no death."""
    with suppress(DamagedFileError):
        return read_record(folder / EXECUTING_FILE, Executing)
    return Executing()


def _last_round(folder: Path) -> int:
    return max(
        (record.round for record in skim_lines(folder / ROUNDS_FILE, parse_round)), default=0
    )
