"""A session on a GPU: the parts in order, each in a process of its own, in the time there is.

    python session.py --seconds 400 --out FOLDER --results runs/gpu [--small] [tests speed ...]

What is measured is in `FOLDER/<part>.jsonl` the moment it is known. A part that fails or hangs is
named, costs its share of the time, and the others go on.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import psutil
import results
from deadline import Deadline

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
SHARES = {"tests": 0.19, "speed": 0.28, "truth": 0.19}  # of the whole; the study has the rest
END_SECONDS = 10.0  # to pack what the study has
STOP_SECONDS = 6.0  # a part that measures ends by itself so long before its time is up
GRACE_SECONDS = 5.0  # between the interrupt and the kill
MODELS = 28 * results.MIB
_PR_SET_CHILD_SUBREAPER = 36

Say = Callable[[str], None]
Command = Callable[[float], list[str]]  # given the seconds that a part has


@dataclass(frozen=True)
class Options:
    """What a session was asked for."""

    seconds: float
    out: Path
    results: Path
    small: bool


def commands(options: Options, machine: dict[str, object]) -> dict[str, Command]:
    """Return each part's command."""
    passed = {
        key
        for key, record in results.known(options.results, "tests", str(machine["gpu"])).items()
        if record["outcome"] == "passed"
    }
    return {
        "tests": lambda _seconds: testing(passed),
        **{part: partial(measuring, part, options) for part in results.PARTS if part != "tests"},
    }


def measuring(part: str, options: Options, seconds: float) -> list[str]:
    """Return the command that runs a part which has so many seconds."""
    command = [sys.executable, str(FOLDER / "session.py"), "--part", part]
    command += ["--seconds", f"{seconds - STOP_SECONDS:.1f}", "--out", str(options.out)]
    command += ["--results", str(options.results)]
    return [*command, "--small"] if options.small else command


def testing(passed: Collection[str]) -> list[str]:
    """Return pytest's command for the tests of the GPU, without those that `passed` before."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "--ignore=tests/gpu/frame"]
    # Other tests' fixtures need Docker's library; a warning of another torch is for the log.
    command += ["--confcutdir=tests/gpu", "-p", "no:cacheprovider", "-p", "outcomes"]
    command += ["-rA", "--durations=10", "-W", "default"]
    if importlib.util.find_spec("pytest_timeout"):
        command.append("--timeout=60")
    return command + [f"--deselect={key}" for key in sorted(passed)]


class Session:
    """Runs parts one after the other; `failed` names those that did not end well."""

    def __init__(
        self,
        options: Options,
        environment: dict[str, str],
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failed: list[str] = []
        self._options = options
        self._environment = environment
        self._say = say
        self._clock = clock
        self._deadline = Deadline(options.seconds - END_SECONDS, clock)

    def run(self, parts: dict[str, Command]) -> None:
        """Run the parts, each for its share of the time; what one leaves, the next ones have."""
        for name, command in parts.items():
            seconds = self._seconds(name)
            if seconds <= STOP_SECONDS + GRACE_SECONDS:
                self._say(f"the part {name} is left out: {self._deadline.left():.0f} s are left")
                if self._options.small:  # which is to try all of them
                    self.failed.append(name)
                continue
            began = self._clock()
            self._say(f"the part {name} has {seconds:.0f} s")
            outcome = self._wait(name, command(seconds), seconds)
            records = len(results.read(self._options.out / f"{name}.jsonl"))
            took = self._clock() - began
            self._say(f"the part {name} {outcome}: {records} records in {took:.0f} s")

    def _seconds(self, name: str) -> float:
        """Return how long a part may take, with what it needs to be killed."""
        left = self._deadline.left() - GRACE_SECONDS
        if self._options.small or name not in SHARES:
            return left
        return min(SHARES[name] * self._options.seconds, left)

    def _wait(self, name: str, command: list[str], seconds: float) -> str:
        log = self._options.out / ("tests.log" if name == "tests" else "session.log")
        with log.open("ab") as output:
            output.write(f"== {name}: {' '.join(command)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            interrupt(process)
            code = None
        finally:
            kill_descendants()
        nothing_to_do = name == "tests" and code == 5
        if code == 0 or nothing_to_do:
            return "ended"
        self.failed.append(name)
        self._say("".join(f"    {line}\n" for line in _tail(log)).rstrip())
        return "was killed, as its time was up" if code is None else f"failed (exit code {code})"


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a part's processes to end, and give them a moment for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)


def adopt_orphans() -> None:
    """Become the parent of any descendant whose parent ends: none is lost sight of."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> None:
    """Kill whatever a part has left behind, also in process groups of its own."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=2)


def prepare_data(options: Options, environment: dict[str, str]) -> None:
    """Let CIFAR-10 be decoded beside the tests; where they end sooner, the study does it again."""
    with (options.out / "session.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, str(FOLDER / "study.py")], cwd=ROOT, env=environment, stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def measure(part: str, options: Options, machine: dict[str, object]) -> None:
    """Run a part in this process: write its records as they come."""
    import torch  # noqa: PLC0415 (the session itself touches no GPU)

    deadline = Deadline(options.seconds)
    device = torch.device("cpu" if options.small else "cuda")
    known = results.known(options.results, part, str(machine["gpu"]))
    module = importlib.import_module(part)
    for record in module.measure(device, deadline, known, small=options.small):
        results.append(options.out / f"{part}.jsonl", record | {"machine": machine})
        print(f"{part}: {json.dumps(record)[:300]}", flush=True)


def _tail(file: Path, lines: int = 15) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-lines:]


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit("the session was ended from outside")


def main() -> int:
    """Run the session, or with `--part` a part of it; return 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--part", choices=results.PARTS)
    parser.add_argument("parts", nargs="*", default=[])
    given = parser.parse_args()
    options = Options(given.seconds, given.out.resolve(), given.results.resolve(), given.small)
    if given.part:
        measure(given.part, options, json.loads(os.environ["GPU_MACHINE"]))
        return 0
    return hold(options, given.parts or results.PARTS)


def hold(options: Options, names: Sequence[str]) -> int:
    """Hold the session; return 1 if a part failed."""
    began = time.monotonic()
    adopt_orphans()
    signal.signal(signal.SIGTERM, _end)
    from machine import NO_GPU, describe  # noqa: PLC0415 (imports torch, which no part needs twice)

    machine = describe(small=options.small)
    if machine["gpu"] == NO_GPU and not options.small:
        print("error: torch sees no GPU here\nhint: GPU=none tries the script without one")
        return 2
    options.results.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        text = f"[{time.monotonic() - began:5.1f} s] {line}"
        print(text, flush=True)
        with (options.out / "session.log").open("a") as log:
            log.write(text + "\n")

    say(json.dumps(machine))
    environment = os.environ | {
        "GPU_MACHINE": json.dumps(machine),
        "GPU_OUTCOMES": str(options.out / "tests.jsonl"),
        "GPU_RESULTS": str(options.results),
        "PYTHONUNBUFFERED": "1",
    }
    session = Session(options, environment, say)
    known_parts = commands(options, machine)
    if "study" in names and not options.small:
        prepare_data(options, environment)
    try:
        session.run({name: known_parts[name] for name in names})
    finally:
        kill_descendants()
        results.export(options.results, options.out, models=MODELS)
        results.keep(options.out, options.results)
    say(f"failed: {', '.join(session.failed) or 'none'}; results in {options.out}")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
