"""What the federation's containers logged, all of them merged in the order of time.

A run keeps its own lines in its folder, which outlives the containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from fedbench.engines.containers.runtime import daemon
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.stack import nothing_up
from fedbench.errors import FedbenchError
from fedbench.host.say import Say
from fedbench.host.setup.locks import locked
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch.log_lines import LineFilter, LogLine, require_known_name
from fedbench.host.watch.log_sources import MONITORING, LogFilter, Sources, live
from fedbench.records import replace_text
from fedbench.records.lines import skim_lines
from fedbench.records.runs import Run, RunStore

FILE = "logs.jsonl"


def lines(wanted: LogFilter, *, follow: bool) -> Iterator[LogLine]:
    """Yield what was logged, oldest first, and where asked for what is logged from now on.

    Those of a run also from its folder, whether or not its containers are there.

    Raises:
        FedbenchError, ConfigError: as `Sources.chosen`.
        DockerError: Docker does not answer.
    """
    if wanted.run and not follow:
        yield from of_run(wanted.run, wanted)
        return
    if (containers := daemon.find()) is None:
        raise nothing_up()
    sources = Sources(containers, PROJECT)
    now = datetime.now(UTC)
    yield from history(sources, wanted, until=now)
    if follow:
        yield from live(sources, wanted, now)


def history(sources: Sources, wanted: LogFilter, until: datetime | None = None) -> list[LogLine]:
    """Return the lines of all containers together, in the order of time."""
    return _last(sources.logged(sources.chosen(wanted.names), wanted, until), wanted)


def of_run(run: Run, wanted: LogFilter) -> list[LogLine]:
    """Return what its folder has and, where that may not be all, what containers still have."""
    written = kept(run)
    containers = None if _has_all(run, wanted) else daemon.find()
    sources = Sources(containers, PROJECT) if containers else None
    there = sources.all() if sources else {}
    if not there and not (run.path / FILE).exists():
        raise nothing_up()
    for name in wanted.names:
        require_known_name(
            "client or service", name, sorted({line.source for line in written} | there.keys())
        )
    asked = {name: container for name, container in there.items() if wanted.has(name)}
    of_level, since = LineFilter(wanted.level), wanted.since
    before = [
        line
        for line in written
        if wanted.has(line.source) and of_level.takes(line) and not (since and line.time < since)
    ]
    since_then = sources.logged(asked, wanted) if sources else ()
    return _last([*before, *_unkept(since_then, before)], wanted)


def keep(sources: Sources, run: Run) -> None:
    """Write what was logged since the run was made to its folder, which outlives containers.

    But not those of debug, for they are many. What is there already stays, once: a run may go on,
    and who watches over it may keep its lines while another takes the federation down.

    Raises:
        FedbenchError, DockerError: as `lines`.
        OSError: the folder is gone, or its disk is full.
    """
    path = run.path / FILE
    made = run.facts().created_at
    with locked(run.path):
        before, wanted = kept(run), LogFilter(run=run, since=made)
        whole = _last([*before, *_unkept(history(sources, wanted), before)], wanted)
        replace_text(path, "".join(line.json() + "\n" for line in whole))


def keep_all(places: Places, containers: Containers, say: Say) -> None:
    """Keep the lines of every run here before containers go, or say why one's cannot be.

    Runs before the last, kept when they had ended, need no second time; of the last, a client that
    was late may have logged more since.
    """
    sources = Sources(containers, PROJECT)
    with _told(say):
        runs = RunStore(places.runs).of(PROJECT) if sources.all() else []
        for run in [*(run for run in runs[:-1] if not _is_kept(run)), *runs[-1:]]:
            with _told(say):
                keep(sources, run)


@contextmanager
def _told(say: Say) -> Iterator[None]:
    """Say in one line why something cannot be kept: containers go all the same."""
    try:
        yield
    except FedbenchError as error:
        say(f"note: what was logged cannot be kept: {error.message}")
    except (OSError, ValueError, TypeError, LookupError) as error:  # a full disk, a damaged file
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        say(f"note: what was logged cannot be kept: {reason}")


def _is_kept(run: Run) -> bool:
    file, end = run.path / FILE, run.path / "summary.json"
    return file.exists() and end.exists() and file.stat().st_mtime >= end.stat().st_mtime


def _has_all(run: Run, wanted: LogFilter) -> bool:
    """Tell whether its folder has all that is wanted: no debug lines, none of the monitoring."""
    names = wanted.names
    return _is_kept(run) and wanted.level != "debug" and not set(names).intersection(MONITORING)


def kept(run: Run) -> list[LogLine]:
    """Return the lines in a run's folder; none where nobody kept them yet."""
    return skim_lines(run.path / FILE, LogLine.parse)


def _unkept(lines: Iterable[LogLine], before: Iterable[LogLine]) -> list[LogLine]:
    there = {line.json() for line in before}
    return [line for line in lines if line.json() not in there]


def _last(lines: Iterable[LogLine], wanted: LogFilter) -> list[LogLine]:
    return list(deque(sorted(lines, key=lambda line: line.time), wanted.tail))
