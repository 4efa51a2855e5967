"""Seconds a step of this machine: what a prediction of its speed is held against.

The product's own training and evaluation, of the study's models and ResNet-18, in fp32, as a client
calls them. Each observation is an epoch, divided by its steps. The epoch before is left out: in it
CUDA's libraries choose their kernels, and the step is captured.

Where there are cores enough, the GPU and CPUs are measured at the same time, each process on cores
of its own that share no physical one. At the end some cells are measured again with nothing beside
them (`alone`): they say how much the processes disturb each other.

`python truth.py` measures the cells of a `Job`, read as JSON from its input.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.train import Epoch, evaluate, train

if TYPE_CHECKING:
    from deadline import Deadline

MODELS = (*models.MODELS, "resnet18")
BATCHES = (32, 8, 128)
THREADS = (1, 2)
GPU_STEPS, CPU_IMAGES = 32, 128
"""Of an observation: a step on a CPU is long enough for itself."""
SECONDS = {"cuda": 0.4, "cpu": 1.0}
OBSERVATIONS = 3
RESERVE = {False: 4.0, True: 1.0}
"""Seconds within which any cell is measured, and any small one."""
START = 6.0
"""Seconds that a process takes to begin."""

Record = dict[str, object]


@dataclass(frozen=True)
class Cell:
    """What one record is of. `what` is train or evaluate, `processor` cuda or cpu."""

    model: str
    batch: int
    what: str
    processor: str
    threads: int = 1
    alone: bool = False
    small: bool = False

    @property
    def key(self) -> str:
        names = [self.model, str(self.batch), self.what, self.processor, str(self.threads)]
        return "/".join([*names, "alone"] if self.alone else names)

    @property
    def steps(self) -> int:
        if self.small:
            return 2
        return GPU_STEPS if self.processor == "cuda" else max(1, CPU_IMAGES // self.batch)


@dataclass(frozen=True)
class Job:
    """Cells for one process, which has these cores and seconds."""

    cells: list[Cell] = field(default_factory=list)
    cores: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def read(cls, text: str) -> Job:
        values = json.loads(text)
        return cls([Cell(**cell) for cell in values.pop("cells")], **values)


def measure(
    device: torch.device, deadline: Deadline, known: Collection[str], *, small: bool
) -> Iterator[Record]:
    """Yield a record for each cell as it is measured; skip those whose key is known.

    Stop when the deadline does not suffice for the next.
    """
    cores = sorted(os.sched_getaffinity(0))
    places = apart(cores)
    taken = {core for numbers in places.values() for core in numbers}
    jobs = [
        Job(missing(cells("cpu", threads, small=small), known), places.get(threads, cores))
        for threads in (THREADS[:1] if small else THREADS)
    ]
    gpu = missing(cells("cuda", 1, small=small), known) if device.type == "cuda" else []
    with pinned({*cores} - taken):
        if places:
            yield from side_by_side(gpu, jobs, device, deadline)
        else:
            yield from observed(gpu, device, deadline.left)
            for job in jobs:
                yield from side_by_side([], [job], device, deadline)
        yield from alone(jobs[0].cores, known, device, deadline, small=small)


def cells(processor: str, threads: int, *, small: bool) -> list[Cell]:
    """Return all cells of a processor, those that matter most first."""
    named = MODELS[2:3] if small else MODELS
    sizes = (8,) if small else BATCHES
    return [
        Cell(model, batch, what, processor, threads, small=small)
        for batch in sizes
        for what in ("train", "evaluate")
        for model in named
    ]


def missing(wanted: Iterable[Cell], known: Collection[str]) -> list[Cell]:
    return [cell for cell in wanted if cell.key not in known]


def alone(
    cores: list[int],
    known: Collection[str],
    device: torch.device,
    deadline: Deadline,
    *,
    small: bool,
) -> Iterator[Record]:
    """Measure a cell of each processor with nothing beside it."""
    model, batch = ("mobilenet_v3_small", 8) if small else ("mobilenet_v2", 32)
    gpu = [Cell(model, batch, "train", "cuda", alone=True)] if device.type == "cuda" else []
    cpu = [Cell(model, batch, "train", "cpu", alone=True, small=small)]
    yield from observed(missing(gpu, known), device, deadline.left)
    yield from side_by_side([], [Job(missing(cpu, known), cores)], device, deadline)


def side_by_side(
    here: list[Cell], jobs: Iterable[Job], device: torch.device, deadline: Deadline
) -> Iterator[Record]:
    """Measure cells in this process, and jobs in others at the same time.

    Raises:
        RuntimeError: another process failed; what it measured before is yielded.
    """
    records: queue.Queue[Record] = queue.Queue()
    with ExitStack() as stack:
        children = [
            stack.enter_context(child(job, deadline, records.put))
            for job in jobs
            if job.cells and deadline.left() > START + RESERVE[job.cells[0].small]
        ]
        for record in observed(here, device, deadline.left):
            yield record
            yield from waiting(records)
        while any(process.poll() is None for process in children) and deadline.left() > 0:
            time.sleep(0.05)
            yield from waiting(records)
    yield from waiting(records)
    for process in children:
        if process.returncode > 0:
            raise RuntimeError(f"a measuring process ended with code {process.returncode}")


def waiting(records: queue.Queue[Record]) -> Iterator[Record]:
    while not records.empty():
        yield records.get()


@contextmanager
def child(
    job: Job, deadline: Deadline, put: Callable[[Record], None]
) -> Iterator[subprocess.Popen[str]]:
    """A process that does the job; what it measured is handed to `put`. It ends with the block."""
    timed = Job(job.cells, job.cores, deadline.left())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(asdict(timed)))
    process.stdin.close()
    lines = process.stdout
    reader = threading.Thread(target=lambda: [put(json.loads(line)) for line in lines])
    reader.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        reader.join()
        lines.close()


def observed(
    wanted: Iterable[Cell], device: torch.device, left: Callable[[], float]
) -> Iterator[Record]:
    """Measure in this process while the time suffices."""
    for cell in wanted:
        if left() < RESERVE[cell.small]:
            return
        yield observe(cell, device)


def observe(cell: Cell, device: torch.device) -> Record:
    """Measure one cell."""
    torch.set_num_threads(cell.threads)
    model = models.build(cell.model).to(device)
    data = images(cell.steps * cell.batch, device)
    enough = 0.0 if cell.small else SECONDS[device.type]
    take = trainings if cell.what == "train" else evaluations
    epochs = take(model, data, cell.batch, enough)
    return asdict(cell) | {
        "key": cell.key,
        "precision": "fp32",
        "seconds_per_step": [seconds / cell.steps for seconds in epochs],
        "n": len(epochs),
        "steps_per_observation": cell.steps,
        "warm_up_steps": cell.steps,
        "cores": sorted(os.sched_getaffinity(0)),
    }


def images(count: int, device: torch.device) -> ImageSet:
    """Noise of ten classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    return ImageSet(pixels.to(device), labels.to(device), tuple("0123456789"))


class EnoughError(Exception):
    """Ends a training that has been observed for long enough."""


def trainings(model: torch.nn.Module, data: ImageSet, batch: int, seconds: float) -> list[float]:
    """Return the seconds of each epoch after the first, for that many seconds."""
    epochs: list[float] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch.seconds)
        if len(epochs) > OBSERVATIONS and sum(epochs[1:]) >= seconds:
            raise EnoughError

    settings: dict[str, Any] = {"batch_size": batch, "learning_rate": 0.001, "seed": 0}
    with suppress(EnoughError):
        train(model, data, epochs=10**6, **settings, on_epoch=on_epoch)
    return epochs[1:]


def evaluations(model: torch.nn.Module, data: ImageSet, batch: int, seconds: float) -> list[float]:
    """Return the seconds of evaluations after the first, for that many seconds."""
    evaluate(model, data, batch_size=batch)
    passes: list[float] = []
    while len(passes) < OBSERVATIONS or sum(passes) < seconds:
        passes.append(evaluate(model, data, batch_size=batch).seconds)
    return passes


def apart(cores: list[int]) -> dict[int, list[int]]:
    """Choose cores for each number of threads, no two of one physical core.

    Return nothing where there are too few: then one is measured after the other, on any core.
    """
    firsts = sorted({min(siblings(core)) for core in cores} & {*cores})
    if len(firsts) < 2 * sum(THREADS):
        return {}
    places = {}
    for threads in THREADS:
        places[threads] = [firsts.pop() for _ in range(threads)]
    return places


def siblings(core: int) -> list[int]:
    """Return the core and those that share its physical one."""
    file = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not file.exists():
        return [core]
    numbers: list[int] = []
    for part in file.read_text().strip().split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


@contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> None:
    job, parent = Job.read(sys.stdin.read()), os.getppid()
    end = time.monotonic() + job.seconds

    def left() -> float:
        return end - time.monotonic() if os.getppid() == parent else 0.0

    with pinned(job.cores):
        for record in observed(job.cells, torch.device("cpu"), left):
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
