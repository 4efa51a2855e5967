"""Two commands at the same moment, in processes of their own: one works, the other names it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import time
from itertools import cycle, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from fake_containers import FakeContainers

from fedbench import cli
from fedbench.engines.containers import engine, watcher
from fedbench.engines.containers.runtime.containers import CommandAnswer
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.host.plan.targets import ASSUMED
from fedbench.host.setup import bootstrap
from fedbench.host.setup.bootstrap import Images
from fedbench.host.setup.locks import federation_lock
from fedbench.host.setup.places import Places
from fedbench.host.speed import calibration

FORKED = multiprocessing.get_context("fork")
Pair = tuple[tuple[str, ...], tuple[str, ...]]
UP = ("up", "legacy-pair", "--detach")
RUN = ("run", "noop", "--detach")
DOWN = ("down",)
PAIRS = ((UP, UP), (RUN, RUN), (DOWN, DOWN), (UP, DOWN), (RUN, DOWN), (UP, RUN))


@pytest.fixture
def federation(
    places: Places, fake: FakeContainers, docker_command: Any, monkeypatch: pytest.MonkeyPatch
) -> FakeContainers:
    """Containers of a federation; a `docker` that takes as long as the other command of a pair."""
    images = Images(fedbench="fedbench:cpu", prometheus="prom/prometheus", grafana=None)
    monkeypatch.setattr(bootstrap, "ensure_images", lambda *_, **__: images)
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: ASSUMED)
    monkeypatch.setattr(watcher, "govern", lambda *_: None)
    program = docker_command.folder / "docker"
    wait = "until [ -e ended ]; do sleep 0.05; done; cat output"
    program.write_text(f"#!/bin/sh\ncd {docker_command.folder}\n{wait}\n")
    fake.answers["importlib.metadata"] = CommandAnswer(0, json.dumps({"python": "3.11.2"}))
    fake.add("server", ports=(9092, 9090, 3000))
    fake.run("server", "python -m fedbench.server")
    return fake


def execute(argv: tuple[str, ...], barrier: Barrier, folder: Path) -> None:
    """Runs a command as its entry point does; what it says is in a file named by its pid."""
    output = os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["fedbench", *argv]
    with open(output, "w", buffering=1) as sys.stdout:
        sys.stderr = sys.stdout
        barrier.wait()
        cli.main()


def words(pair: Pair) -> str:
    return " beside ".join(argv[0] for argv in pair)


@pytest.mark.parametrize("pair", [*islice(cycle(PAIRS), 20)], ids=words)
def test_one_works_and_the_other_exits_and_names_it(
    pair: Pair,
    stack: Stack,
    federation: FakeContainers,
    docker_command: Any,
    tmp_path: Path,
) -> None:
    barrier = FORKED.Barrier(2)
    processes = [FORKED.Process(target=execute, args=(argv, barrier, tmp_path)) for argv in pair]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 30
    while all(process.is_alive() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    (docker_command.folder / "ended").touch()
    for process in processes:
        process.join()
    said = {process.pid: (tmp_path / str(process.pid)).read_text() for process in processes}
    winner, loser = sorted(processes, key=lambda process: process.exitcode or 0)
    assert (winner.exitcode, loser.exitcode) == (0, 5), said
    command = re.escape(" ".join(("fedbench", *pair[processes.index(winner)])))
    assert re.fullmatch(
        rf"error: another fedbench works on this federation: `{command}` "
        rf"\(pid {winner.pid}, since \d\d:\d\d\)\n"
        rf"hint: wait for it, or end it: kill -INT {winner.pid}\n",
        said[loser.pid],
    ), said


def test_a_run_that_goes_on_keeps_nobody_from_down(
    stack: Stack,
    federation: FakeContainers,
    docker_command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_SEEN_SECONDS", 0)
    program = docker_command.folder / "docker"  # of which only the run's own process goes on
    others_end = "case $* in *exec*) ;; *) exit; esac; until"
    program.write_text(program.read_text().replace("until", others_end))
    process = FORKED.Process(target=execute, args=(("run", "noop"), FORKED.Barrier(1), tmp_path))
    process.start()
    said = tmp_path / str(process.pid)
    deadline = time.monotonic() + 30
    try:
        while "\nrun 2" not in f"\n{said.read_text() if said.exists() else ''}":
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.02)
        with federation_lock():
            assert process.is_alive()
    finally:
        (docker_command.folder / "ended").touch()
        process.join()
