from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from fedbench.errors import InUseError
from fedbench.host.setup import locks
from fedbench.host.setup.locks import LockHolder, exclusive, holder, locked

WHERE = "on this federation"
FORKED = multiprocessing.get_context("fork")
Held = Callable[[Path, str], AbstractContextManager["subprocess.Popen[str]"]]


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


# -- exclusive


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lock"


def refusal(file: Path) -> InUseError:
    with pytest.raises(InUseError) as caught, exclusive(file, WHERE):
        pass
    return caught.value


def test_who_is_refused_is_told_who_holds_it_and_since_when(file: Path, held: Held) -> None:
    with held(file, "named") as process:
        now = time.strftime("%H:%M")
        error = refusal(file)
        named = holder(file)
    assert named is not None
    assert named.pid == process.pid
    assert named.command == shlex.join(["-c", str(file), "named"])
    assert error.message in {
        f"another fedbench works on this federation: `-c {file} named` (pid {process.pid}, "
        f"since {minute})"
        for minute in (now, named.since[11:16])
    }
    assert error.hint == f"wait for it, or end it: kill -INT {process.pid}"
    assert error.exit_code == 5


def test_the_command_is_as_it_was_typed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/.venv/bin/fedbench", "up", "--set", "name=two words"])
    with exclusive(file, WHERE):
        named = holder(file)
    assert named is not None
    assert named.command == "fedbench up --set 'name=two words'"
    assert named.pid == os.getpid()


def test_of_another_day_the_date_is_said() -> None:
    one = LockHolder(7, 1.0, "fedbench up", "2026-01-02T03:04:05+00:00")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        assert str(one) == "`fedbench up` (pid 7, since 2026-01-02 03:04)"
    time.tzset()


def test_within_it_the_same_process_goes_on(file: Path, held: Held) -> None:
    with exclusive(file, WHERE):
        with exclusive(file, WHERE):
            pass
        assert holder(file) is not None
        assert not is_free(file)
    assert is_free(file)
    assert file.read_bytes() == b""


def test_an_error_within_it_frees_it(file: Path) -> None:
    with suppress(KeyError), exclusive(file, WHERE):
        raise KeyError
    assert (is_free(file), holder(file)) == (True, None)
    with exclusive(file, WHERE):
        pass


def test_it_is_free_once_its_holder_is_killed(file: Path, held: Held) -> None:
    with held(file, "named") as process:
        process.kill()
        process.wait()
        assert json.loads(file.read_text())["pid"] == process.pid
        assert holder(file) is None
        with exclusive(file, WHERE):
            assert holder(file) is not None


def test_a_later_process_of_the_same_pid_is_not_the_holder(file: Path) -> None:
    with exclusive(file, WHERE):
        named = holder(file)
        assert named is not None
        file.write_text(json.dumps({**vars(named), "created": named.created - 1}))
        assert holder(file) is None


UNTIMELY = f'{{"pid": {os.getpid()}, "created": 1, "command": "x", "since": "yesterday"}}'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pid": "x"}', "\0", UNTIMELY],
    ids=["empty", "torn", "a list", "no number", "a zero", "untimely"],
)
def test_a_lock_without_a_name_is_a_lock(
    content: str, file: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_NAMELESS_SECONDS", 0.1)
    file.parent.mkdir()
    file.write_text(content)
    with held(file, "alone"):
        error = refusal(file)
    assert error.message == "another fedbench works on this federation"
    assert error.hint == "wait for it"
    with exclusive(file, WHERE):
        assert holder(file) is not None


def test_who_may_wait_says_for_whom_and_goes_on(file: Path, held: Held) -> None:
    said: list[str] = []
    with held(file, "named") as process:

        def say(line: str) -> None:
            said.append(line)
            process.send_signal(signal.SIGKILL)

        with exclusive(file, "on this host", say):
            assert process.wait() == -signal.SIGKILL
    (line,) = said
    assert line.startswith(f"waiting: another fedbench works on this host: `-c {file} named` (pid ")


def contend(file: Path, barrier: Barrier, told: Queue[Any]) -> None:
    """Tries at the same moment as the other; the winner holds it until the other has tried."""
    barrier.wait()
    try:
        with exclusive(file, WHERE):
            told.put((os.getpid(), None))
            barrier.wait(30)
    except InUseError as error:
        told.put((os.getpid(), error.message))
        barrier.wait(30)


def test_of_twenty_pairs_at_once_one_works_and_the_other_names_it(file: Path) -> None:
    for _ in range(20):
        barrier, told = FORKED.Barrier(2), FORKED.Queue()
        pair = [FORKED.Process(target=contend, args=(file, barrier, told)) for _ in range(2)]
        for process in pair:
            process.start()
        results = dict(told.get(timeout=30) for _ in pair)
        for process in pair:
            process.join()
        assert results.keys() == {process.pid for process in pair}
        (winner,) = (pid for pid, message in results.items() if message is None)
        (message,) = filter(None, results.values())
        assert f"(pid {winner}, since " in message
    assert is_free(file)
