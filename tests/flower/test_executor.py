"""The process in which ServerApps run. tests/client/test_contract.py has it run some."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time

import psutil

from fedbench.flower import executor

# A server that does nothing but to have an executor, for a SuperLink that does not answer.
SERVER = """
import multiprocessing, time
from fedbench.flower import executor
with executor.running("127.0.0.1:1", executor.preload):
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(60)
"""


def test_it_ends_with_the_block() -> None:
    with executor.running("127.0.0.1:1", executor.preload):
        (process,) = multiprocessing.active_children()
        assert process.name == "executor"
        assert process.is_alive()
    assert process.exitcode == -signal.SIGTERM


def test_it_ends_with_a_server_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        server.kill()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it outlives its server"
        time.sleep(0.05)
    assert server.returncode == -signal.SIGKILL


def test_nothing_runs_beside_the_thread_that_forks() -> None:
    """A fork takes one thread along: locks that others hold would stay locked."""
    code = (
        "import threading\n"
        "from fedbench.flower.control import Control\n"
        "from fedbench.flower.superlink import create\n"
        "create(8000), Control(8000)\n"
        "print(threading.active_count())"
    )
    assert int(subprocess.check_output([sys.executable, "-c", code]).splitlines()[-1]) == 1
