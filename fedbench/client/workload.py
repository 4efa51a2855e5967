"""The calibration workload: how fast this computer trains a model, on random images.

`python -m fedbench.client.workload MODEL [--threads N] [--seconds S] [--samples N] [--copies N]`
prints a `Measurement` as one line of JSON; with `--copies`, one for each of the processes that
train at once, each on cores of its own; with `--against OTHER`, one of each of two models that
train in turns. A model that cannot be trained is answered with one `Refusal`, and exit code 1.
Without MODEL it says `ready`, then takes such arguments from each line of its input and answers in
the same way, without importing torch anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from statistics import median
from time import perf_counter, process_time

import torch

from fedbench.learning import models
from fedbench.learning.data import IMAGE, ImageSet
from fedbench.learning.processor import set_threads
from fedbench.learning.train import Progress, train
from fedbench.learning.user_models import ModelError
from fedbench.records import Record
from fedbench.records.measurement import Measurement, Refusal

BATCH = 32
CLASSES = 10
SECONDS = 5.0
SAMPLES = 512
WINDOWS = 8
# Libraries choose their kernels in the first steps; a slow computer needs longer than a second.
WARM_UP_SECONDS = 1.0  # or half of what is measured, if that is less
WARM_UP_STEPS = 5


class _Enough(Exception):  # noqa: N818 (the end of a measurement, not an error)
    """All windows are full."""


class Windows:
    """Cuts a training into `WINDOWS` windows of equal length that end with a batch.

    The warm-up is cut off before the first of them; raises `_Enough` after the last. `pause` is
    called between two of them, and before the warm-up.
    """

    def __init__(
        self, seconds: float, device: torch.device, pause: Callable[[], None] = lambda: None
    ) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._pause = pause
        self._length = seconds / WINDOWS
        self._warm_up = min(WARM_UP_SECONDS, seconds / 2)
        self._device = device
        self._warm = False
        self._last_samples = 0
        self._begin()

    def __call__(self, progress: Progress) -> None:
        """Take note of a batch; raise `_Enough` after the last window."""
        self._samples += progress.samples - (self._last_samples if progress.batch > 1 else 0)
        self._last_samples = progress.samples
        self._batches += 1
        if self._is_full():
            self._cut()
        if len(self.wall) == WINDOWS:
            raise _Enough

    def _is_full(self) -> bool:
        seconds = perf_counter() - self._wall
        if self._warm:
            return seconds >= self._length
        return seconds >= self._warm_up and self._batches >= WARM_UP_STEPS

    def _cut(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if self._warm:
            self.wall.append(self._samples / (perf_counter() - self._wall))
            self.cpu.append(self._samples / (process_time() - self._cpu))
        self._warm = True
        self._begin()

    def _begin(self) -> None:
        self._pause()
        self._samples = self._batches = 0
        self._wall, self._cpu = perf_counter(), process_time()


def measure(
    model: str,
    *,
    threads: int,
    seconds: float = SECONDS,
    samples: int = SAMPLES,
    pause: Callable[[], None] = lambda: None,
) -> Measurement:
    """Train a new model on `samples` random images for the warm-up and about `seconds`.

    It trains on the GPU where torch sees one, as a client does. It sets torch's number of threads.
    `pause` is called before the warm-up and each window.

    Raises:
        ModelError: there is no such model, or it cannot be trained.
        ValueError: there are fewer than two samples.
    """
    threads = set_threads(threads)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    network = models.build(model, CLASSES).to(device)
    windows = Windows(seconds, device, pause)
    with suppress(_Enough):
        train(
            network,
            random_images(samples, device),
            epochs=sys.maxsize - 1,
            batch_size=BATCH,
            learning_rate=0.001,
            seed=0,
            on_batch=windows,
        )
    per_cpu_second = median(windows.cpu)
    gpu, gpu_memory = _gpu(device)
    return Measurement(
        model=model,
        threads=threads,
        samples_per_second=median(windows.wall),
        samples_per_cpu_second=per_cpu_second,
        step_cpu_seconds=BATCH / per_cpu_second,
        windows=windows.wall,
        cpu_windows=windows.cpu,
        cpu_seconds=process_time(),
        torch=torch.__version__,
        gpu=gpu,
        gpu_memory=gpu_memory,
    )


def random_images(samples: int, device: torch.device | str = "cpu") -> ImageSet:
    """Make images and labels that are the same on every computer."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, *IMAGE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    names = tuple(map(str, range(CLASSES)))
    return ImageSet(images.to(device), labels.to(device), names)


def measure_copies(
    copies: int, model: str, *, threads: int, seconds: float, samples: int
) -> list[Measurement]:
    """Call `measure` in so many processes at once, each on `threads` cores that no other has.

    The processes are forks, so that none imports torch anew: the caller must not have computed
    with torch before, for the threads that did so are not in a fork.

    Raises:
        ModelError, ValueError: as `measure`, or more cores are asked for than this process may use.
    """
    cores = sorted(os.sched_getaffinity(0))
    if copies * threads > len(cores):
        raise ValueError(f"{copies} x {threads} threads need as many cores, found {len(cores)}")
    core_sets = [cores[first : first + threads] for first in range(0, copies * threads, threads)]
    work = partial(_measure_on, model=model, threads=threads, seconds=seconds, samples=samples)
    with ProcessPoolExecutor(copies, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(work, core_sets))


def measure_in_turns(
    models: Sequence[str], *, threads: int, seconds: float, samples: int
) -> list[Measurement]:
    """Call `measure` for two models on the same cores, which take turns, window by window.

    What else goes on in the computer slows both by as much, so that their ratio is known better
    than either of them. Each trains in a fork, as a client does, under `measure_copies`' rule.

    Raises:
        ModelError, ValueError: as `measure`.
    """
    cores = sorted(os.sched_getaffinity(0))[:threads]
    work = partial(_measure_in_turn, cores, threads=threads, seconds=seconds, samples=samples)
    fork = multiprocessing.get_context("fork")
    with _two_batons() as batons, ProcessPoolExecutor(len(batons), fork) as pool:
        return list(pool.map(work, models, batons))


class Baton:
    """Lets two forks take turns: this side waits for a byte from the other."""

    def __init__(self, mine: int, other: int) -> None:
        self._mine, self._other = mine, other
        self._had = False

    def wait(self) -> None:
        """Hand the turn over, unless this side never had it, and wait for the next."""
        if self._had:
            os.write(self._other, b".")
        os.read(self._mine, 1)
        self._had = True

    def leave(self) -> None:
        """Let the other side wait no more."""
        os.write(self._other, b"." * (WINDOWS + 2))


@contextmanager
def _two_batons() -> Iterator[tuple[Baton, Baton]]:
    """Make both sides; the first begins."""
    (mine, others), (yours, ours) = pipes = os.pipe(), os.pipe()
    os.write(others, b".")
    try:
        yield Baton(mine, ours), Baton(yours, others)
    finally:
        for end in (*pipes[0], *pipes[1]):
            os.close(end)


def _measure_in_turn(
    cores: list[int], model: str, baton: Baton, *, threads: int, seconds: float, samples: int
) -> Measurement:
    os.sched_setaffinity(0, cores)
    try:
        return measure(model, threads=threads, seconds=seconds, samples=samples, pause=baton.wait)
    finally:
        baton.leave()


def _measure_on(
    cores: list[int], *, model: str, threads: int, seconds: float, samples: int
) -> Measurement:
    os.sched_setaffinity(0, cores)
    return measure(model, threads=threads, seconds=seconds, samples=samples)


def _gpu(device: torch.device) -> tuple[str | None, int | None]:
    if device.type != "cuda":
        return None, None
    properties = torch.cuda.get_device_properties(device)
    return properties.name, properties.total_memory


def _answer(arguments: argparse.Namespace) -> list[Measurement] | list[Refusal]:
    options = {name: vars(arguments)[name] for name in ("threads", "seconds", "samples")}
    try:
        if arguments.against:
            return measure_in_turns((arguments.model, arguments.against), **options)
        if arguments.copies:
            return measure_copies(arguments.copies, arguments.model, **options)
        return [measure(arguments.model, **options)]
    except ModelError as error:
        return [Refusal(refused=str(error))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fedbench.client.workload")
    parser.add_argument("model", nargs="?", help="as an experiment has it")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--copies", type=int, help="processes at once, each on cores of its own")
    parser.add_argument("--against", help="another model, measured in turns with the first")
    return parser


def main() -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.model:
        answer = _answer(arguments)
        _print(answer)
        return int(isinstance(answer[0], Refusal))
    parser.set_defaults(copies=1)  # in forks only: this process must not compute, see there
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        _print(_answer(parser.parse_args(line.split())))
    return 0


def _print(results: Sequence[Record]) -> None:
    sys.stdout.writelines(f"{result.model_dump_json()}\n" for result in results)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
