from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
import torch

from fedbench.client import workload
from fedbench.client.workload import WINDOWS, Windows, _Enough, measure, random_images
from fedbench.errors import ConfigError
from fedbench.learning.train import Progress
from fedbench.learning.user_models import ModelError
from fedbench.records.measurement import parse

MODULE = [sys.executable, "-m", "fedbench.client.workload"]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Clock:
    """Wall time that a test moves on; half as much CPU time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(workload, "perf_counter", lambda: self.now)
        monkeypatch.setattr(workload, "process_time", lambda: self.now / 2)


def epochs(batches: tuple[int, ...]) -> Iterator[Progress]:
    """Batches of these sizes, epoch after epoch, without end."""
    while True:
        for number, _ in enumerate(batches, 1):
            yield Progress(1, 1, number, len(batches), sum(batches[:number]), 0.0)


def fill(windows: Windows, clock: Clock, sizes: tuple[int, ...], first: float, rest: float) -> int:
    """Takes `first` seconds for each of five steps, then `rest`; how many there were in the end."""
    for steps, progress in enumerate(epochs(sizes), 1):
        clock.now += first if steps <= 5 else rest
        try:
            windows(progress)
        except _Enough:
            return steps
    raise AssertionError("batches never end")


def test_windows_hold_whole_batches_and_no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    windows = Windows(WINDOWS * 0.5, torch.device("cpu"))
    steps = fill(windows, clock, (32, 32, 8), 1.0, 0.125)
    assert steps == 5 + 4 * WINDOWS
    sizes = [(32, 32, 8)[number % 3] for number in range(steps)]
    of_windows = [sum(sizes[first : first + 4]) for first in range(5, steps, 4)]
    assert windows.wall == [samples / 0.5 for samples in of_windows]
    assert windows.cpu == [samples / 0.25 for samples in of_windows]


def test_a_slow_computer_has_a_step_in_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    windows = Windows(1.0, torch.device("cpu"))
    assert fill(windows, clock, (32,), 4.0, 4.0) == 5 + WINDOWS
    assert windows.wall == [8.0] * WINDOWS


def test_a_measurement_says_samples_per_second(threads: None) -> None:
    result = measure("mobilenet_v3_small", threads=1, seconds=0.8, samples=64)
    assert (result.model, result.threads, result.torch) == (
        "mobilenet_v3_small",
        1,
        torch.__version__,
    )
    assert len(result.windows) == len(result.cpu_windows) == WINDOWS
    assert min(result.windows) <= result.samples_per_second <= max(result.windows)
    assert result.samples_per_second == median(result.windows)
    assert result.step_cpu_seconds == pytest.approx(32 / median(result.cpu_windows))
    assert 0 < result.step_cpu_seconds < result.cpu_seconds


def test_an_unknown_model_or_a_single_image_is_refused(threads: None) -> None:
    with pytest.raises(ModelError, match="model lenet: neither one of mobilenet_v1"):
        measure("lenet", threads=1)
    with pytest.raises(ValueError, match="found 1 images"):
        measure("mobilenet_v3_small", threads=1, samples=1)


def test_every_computer_trains_on_the_same_images() -> None:
    first, second = random_images(4), random_images(4)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert (first.images.shape, first.images.dtype) == ((4, 32, 32, 3), torch.uint8)
    assert first.images.float().std() > 60  # 74 of an even distribution


def test_more_cores_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "os", SimpleNamespace(sched_getaffinity=lambda _: {0, 1, 2}))
    with pytest.raises(ValueError, match="2 x 2 threads need as many cores, found 3"):
        workload.measure_copies(2, "mobilenet_v1", threads=2, seconds=1, samples=64)


class Command:
    """The command that answers requests from its input, one line for each measurement."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        with errors.open("w") as stderr:
            self._process = subprocess.Popen(
                MODULE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self._line() == "ready"

    def ask(self, request: str, lines: int = 1) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        return [self._line() for _ in range(lines)]

    def end(self) -> None:
        output, _ = self._process.communicate()
        assert (self._process.returncode, output, self._errors.read_text()) == (0, "", "")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Imports torch once for all tests that ask it; nothing is left on its stderr."""
    started = Command(tmp_path_factory.mktemp("workload") / "stderr")
    yield started
    started.end()


SMALL = "mobilenet_v3_small --threads=1 --seconds=0.1 --samples=64"


def test_the_command_prints_a_line_for_each_copy(command: Command) -> None:
    """And answers requests from its input, without a new start."""
    cores = len(os.sched_getaffinity(0))
    lines = command.ask(SMALL) + command.ask(f"{SMALL} --copies={cores}", cores)
    results = [json.loads(line) for line in lines]
    assert [result["model"] for result in results] == ["mobilenet_v3_small"] * (1 + cores)
    assert all(result["samples_per_second"] > 0 for result in results)


def test_the_command_refuses_a_model_and_goes_on(command: Command) -> None:
    for request, why in (
        ("lenet", "model lenet: neither one of mobilenet_v1, "),
        (
            "mobilenet_v9 --threads=1 --copies=1",
            "model mobilenet_v9: neither one of mobilenet_v1, ",
        ),
        ("sample:large", "model sample:large: nothing to call in models/sample.py is named large"),
    ):
        (line,) = command.ask(request)
        with pytest.raises(ConfigError) as caught:
            parse(line)
        assert caught.value.message.startswith(why)
    (measured,) = command.ask(SMALL)
    assert parse(measured).samples_per_second > 0


def test_two_models_are_measured_in_turns(command: Command) -> None:
    """And where the one is refused, the other does not wait for it."""
    lines = command.ask(f"{SMALL} --against=mnasnet0_5", 2)
    assert [parse(line).model for line in lines] == ["mobilenet_v3_small", "mnasnet0_5"]
    (refused,) = command.ask(f"{SMALL} --against=lenet")
    with pytest.raises(ConfigError, match="model lenet: neither one of"):
        parse(refused)


def test_only_one_of_two_takes_its_turn(tmp_path: Path) -> None:
    """Forks that write what they do: `a` and `b` alternate, and `b` ends alone."""
    notes = tmp_path / "notes"
    with workload._two_batons() as batons:
        for name, baton, times in zip("ab", batons, (3, 5), strict=True):
            if os.fork() == 0:
                for _ in range(times):
                    baton.wait()
                    with notes.open("a") as file:
                        file.write(name)
                baton.leave()
                os._exit(0)
        for _ in range(2):
            assert os.wait()[1] == 0
    assert notes.read_text() == "abababbb"


def test_a_refusal_is_the_commands_exit_code() -> None:
    done = subprocess.run([*MODULE, "lenet"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout).keys() == {"refused"}
