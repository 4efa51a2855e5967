"""Processes that are forked off one which has imported torch and Flower already.

A test that starts ten interpreters spends half a minute of CPU on the same imports. What runs in
such a process is what would run in an interpreter of its own: a file or a module, as `__main__`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# What servers, clients and engines import. Of fedbench only what does not look at the environment.
_HEAVY = (
    "fedbench.learning.models", "flwr.clientapp", "flwr.server.serverapp",
    "flwr.serverapp.strategy", "flwr.supercore.control", "flwr.superlink.runtime", "httpx",
    "safetensors.torch", "uvicorn",
)  # fmt: skip
# Read as torch is imported: programs that spin for each other on the same cores take ten times.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(list(_HEAVY))


class Forked:
    """A running program, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start `argv` as `python` would: a file or `-m module`, and its arguments."""
        self.args = argv
        told = (argv, dict(os.environ if env is None else env), log, cwd, sys.path)
        self._process = _server.Process(target=_run, args=told)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(
    argv: list[str], env: dict[str, str], log: Path | None, cwd: Path | None, path: list[str]
) -> None:
    os.environ.clear()
    os.environ.update(env)
    if log:
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
    if cwd:
        os.chdir(cwd)
    path = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *path]
    first, *rest = argv
    if first == "-m":
        module, *rest = rest
        sys.argv, sys.path = [module, *rest], ["", *path]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path = [first, *rest], [str(Path(first).parent), *path]
        runpy.run_path(first, run_name="__main__")
