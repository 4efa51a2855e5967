from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fedbench.records import executing
from fedbench.records.events import append_event
from fedbench.records.facts import RunFacts
from fedbench.records.runs import Run
from fedbench.records.summary import write_summary
from fedbench.server.execution import executions as module
from fedbench.server.execution.executions import BusyError, Executions

KILLED = "the ServerApp died (SIGKILL)"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made(tmp_path, "r1")


def made(runs: Path, name: str) -> Run:
    folder = runs / name
    folder.mkdir()
    RunFacts(run=name, experiment="e", profile="p", created="2026-01-02T03:04:05Z").write(folder)
    return Run(folder)


class Server:
    """One process of a server, for which ServerApps do what `acts` say, one after the other."""

    def __init__(self, *acts: Callable[[Path], str | None]) -> None:
        self._acts = list(acts)
        self._ended: set[str] = set()
        self.failed: list[str] = []
        self.free = asyncio.Event()
        self.executions = Executions(self._start, self._ended.__contains__, self.failed.append, "p")

    async def _start(self, folder: str) -> str | None:
        act = self._acts.pop(0)
        if act is waits:
            await self.free.wait()
        return act(Path(folder))

    def finishes(self, folder: Path) -> None:
        append_event(folder, "finished")
        write_summary(folder)
        self._ended.add(folder.name)

    def raises(self, folder: Path) -> str:
        append_event(folder, "error", reason="ValueError: 3")
        write_summary(folder)
        self._ended.add(folder.name)
        return "ServerApp failed with exception: 3"


def finishes(folder: Path) -> None:
    append_event(folder, "finished")
    write_summary(folder)


def dies(_: Path) -> str:
    return KILLED


def breaks(_: Path) -> str | None:
    raise ConnectionError("SuperLink is gone")


def waits(folder: Path) -> None:
    finishes(folder)


def reasons(run: Run) -> list[str]:
    return [event["reason"] for event in run.events() if event["event"] == "restarted"]


def go(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 20))


def test_a_run_whose_server_app_dies_is_started_again(run: Run) -> None:
    async def body() -> None:
        server = Server(dies, breaks, finishes)
        assert await server.executions.execute(run.path)
        assert server.failed == []

    go(body())
    assert reasons(run) == [KILLED, "ConnectionError: SuperLink is gone"]
    assert run.state() == "finished"
    assert not (run.path / executing.EXECUTING_FILE).exists()


def test_it_fails_if_that_does_not_help(run: Run) -> None:
    async def body() -> None:
        server = Server(dies, dies, dies)
        assert not await server.executions.execute(run.path)
        assert server.failed == ["r1"]

    go(body())
    assert run.summary().error == f"{KILLED}, 3 times before round 1 was complete"


def test_a_run_that_says_why_it_failed_is_not_started_again(run: Run) -> None:
    async def body() -> None:
        server = Server()
        server._acts.append(server.raises)
        assert not await server.executions.execute(run.path)
        assert server.failed == []

    go(body())
    assert reasons(run) == []
    assert run.summary().error == "ValueError: 3"


def test_who_asks_for_the_run_that_goes_on_waits_for_its_end(run: Run, tmp_path: Path) -> None:
    other = made(tmp_path, "r2")

    async def body() -> None:
        server = Server(waits)
        first = asyncio.create_task(server.executions.execute(run.path))
        second = asyncio.create_task(server.executions.execute(run.path))
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError, match="r1"):
            await server.executions.execute(other.path)
        first.cancel()  # who asked is gone
        server.free.set()
        assert await second

    go(body())
    assert run.state() == "finished"


def test_a_run_that_said_its_end_is_waited_for(run: Run, tmp_path: Path) -> None:
    """Its process still ends when the next order comes."""
    other = made(tmp_path, "r2")

    async def body() -> None:
        server = Server(waits, finishes)
        first = asyncio.create_task(server.executions.execute(run.path))
        await asyncio.sleep(0.01)
        server.finishes(run.path)
        second = asyncio.create_task(server.executions.execute(other.path))
        await asyncio.sleep(0.01)
        server.free.set()
        assert await first
        assert await second

    go(body())
    assert other.state() == "finished"


@pytest.mark.parametrize("in_order", [False, True])
def test_the_next_process_of_the_server_goes_on(run: Run, tmp_path: Path, in_order: bool) -> None:
    async def before() -> None:
        server = Server(waits)
        asking = asyncio.create_task(server.executions.execute(run.path))
        await asyncio.sleep(0.01)
        if in_order:
            await server.executions.put_down()
        asking.cancel()

    async def after() -> None:
        server = Server(finishes)
        server.executions.go_on(tmp_path)
        assert await server.executions.execute(run.path)

    go(before())
    assert run.is_executing()
    go(after())
    assert reasons(run) == ["the server was stopped" if in_order else "the server's process died"]
    assert run.state() == "finished"


def test_a_run_that_others_ended_or_execute_is_left_alone(run: Run, tmp_path: Path) -> None:
    executing.begin(run.path, "p")
    write_summary(run.path)
    executing.begin(made(tmp_path, "r2").path, "another project")

    async def body() -> None:
        server = Server()
        server.executions.go_on(tmp_path)
        await server.executions.put_down()

    go(body())
    assert run.events() == []


def test_a_disk_that_is_full_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room again RESUME goes on."""

    def full(folder: Path, event: str, **facts: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(executing, "append_event", full)

    async def body() -> None:
        server = Server(dies)
        assert not await server.executions.execute(run.path)
        assert server.failed == ["r1"]

    go(body())
    assert not run.is_executing()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(OSError, match="No such file"):
            await Server().executions.execute(tmp_path / "none")

    go(body())
