"""Training speed on the GPU: our loop against the quickstart's plain loop, in turns.

Both have their images on the device before they begin; the plain loop's are even batches already,
ours are shuffled and cut at each turn. The plain loop keeps what the quickstart teaches: contiguous
layout, default Adam, `loss.item()` at each step. Warm-up, capture and compilation are left out.
cuDNN's convolutions are TF32 unless told otherwise, so ours train in tf32; of the plain loop only
the last layer's product is in fp32.

The limit of a step is the largest of three bounds: its arithmetic at the rate of a large product;
what its operations read and write, each tensor once, at the rate of a large copy; and as many
empty kernels from a graph as it has kernels.
"""

from __future__ import annotations

import ctypes
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from math import inf
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.processor import arithmetic
from fedbench.learning.recipe import Recipe
from fedbench.learning.step import GraphedStep, Meter, Step, capture
from fedbench.learning.train import shuffled_batches

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
from loops import adam_bytes, flops_of_step, plain_model, plain_steps

if TYPE_CHECKING:
    from deadline import Deadline

Record = dict[str, Any]
NAMES = ("mobilenet_v2", "mobilenet_v1", "mobilenet_v3_small", "mobilenet_v3_large")
BATCHES = (32, 128)
TURNS = 5
OUR_STEPS, PLAIN_STEPS = 300, 30
"""Of a turn: 0.3 to 0.8 s each."""
WARM_UP = 10
COMPILE_RESERVE = 45.0
"""Seconds within which a model is compiled and measured."""
PROFILED = 25
"""Kinds of kernels, of those that take longest, that a profile tells of."""


@dataclass(frozen=True)
class Size:
    """How much is measured; the small one shows that everything works."""

    names: tuple[str, ...] = NAMES
    batches: tuple[int, ...] = BATCHES
    turns: int = TURNS
    our_steps: int = OUR_STEPS
    plain_steps: int = PLAIN_STEPS
    warm_up: int = WARM_UP
    reserve: float = 18.0
    """Seconds within which anything is measured that is not compiled."""


SMALL = Size(NAMES[2:3], (8,), turns=2, our_steps=2, plain_steps=2, warm_up=1, reserve=2.0)


@dataclass
class Session:
    """What is measured with one device and deadline."""

    device: torch.device
    deadline: Deadline
    known: Collection[str]
    size: Size
    failed: list[str] = field(default_factory=list)
    ours: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """Seconds a step of our loop's turns, by model and batch."""

    def record(
        self, key: str, work: Callable[[], Record], reserve: float | None = None
    ) -> Iterator[Record]:
        """Yield what the work measures, if it is not known and the time suffices.

        One that fails is told of, and the others go on.
        """
        if key in self.known or self.deadline.left() < (reserve or self.size.reserve):
            return
        try:
            record = {"key": key, **work()}
        except Exception:  # whatever it is, the others can do without this one
            traceback.print_exc()
            self.failed.append(key)
        else:
            yield record


def measure(
    device: torch.device, deadline: Deadline, known: Collection[str], *, small: bool
) -> Iterator[Record]:
    """Yield one record after the other; skip those whose key is known.

    Stop when the deadline does not suffice for the next.

    Raises:
        RuntimeError: some could not be measured; the others were yielded before.
    """
    torch.set_num_threads(1)
    session = Session(device, deadline, known, SMALL if small else Size())
    size = session.size
    cells = [(name, batch) for batch in size.batches for name in size.names]
    for name, batch in cells:
        against = partial(against_plain, session, name, batch)
        yield from session.record(f"plain/{name}/{batch}", against)
    for name, batch in cells:
        bounds = partial(limit, session, name, batch)
        yield from session.record(f"limit/{name}/{batch}", bounds)
    if device.type == "cuda":
        yield from compiled_records(session, cells[:1])
    yield from variant_records(session, size.names[0])
    if device.type == "cuda":
        yield from compiled_records(session, cells[1:])
        # Last: a profiler may slow what comes after it.
        where = partial(profile, session, *cells[0])
        yield from session.record("profile/" + "/".join(map(str, cells[0])), where)
    if session.failed:
        raise RuntimeError(f"could not be measured: {', '.join(session.failed)}")


def compiled_records(session: Session, cells: list[tuple[str, int]]) -> Iterator[Record]:
    for name, batch in cells:
        against = partial(against_compiled, session, name, batch)
        yield from session.record(f"compiled/{name}/{batch}", against, COMPILE_RESERVE)


def variant_records(session: Session, name: str) -> Iterator[Record]:
    """Yield what a change of our loop would give; the one that compiles comes last."""
    for batch in session.size.batches:
        for variant in ("contiguous", "cudnn-benchmark"):
            against = partial(against_variant, session, variant, name, batch)
            key = f"variant/{variant}/{name}/{batch}"
            yield from session.record(key, against)
    if session.device.type == "cuda":
        batch = session.size.batches[0]
        against = partial(against_variant, session, "compiled", name, batch)
        yield from session.record(f"variant/compiled/{name}/{batch}", against, COMPILE_RESERVE)


def against_plain(session: Session, name: str, batch: int) -> Record:
    """Measure our loop and the plain one."""
    ours = OurLoop(models.build(name), session, batch)
    plain = PlainLoop(plain_model(name), session, batch)
    record = in_turns({"ours": ours, "plain": plain}, session.size.turns)
    session.ours[name, batch] = record["seconds_per_step"]["ours"]
    return described(name, batch) | record


def against_compiled(session: Session, name: str, batch: int) -> Record:
    """Measure our loop and the plain one with a compiled model."""
    compiled = PlainLoop(plain_model(name), session, batch, compile_model=True)
    ours = OurLoop(models.build(name), session, batch)
    return described(name, batch) | in_turns(
        {"ours": ours, "compiled": compiled}, session.size.turns
    )


def against_variant(session: Session, variant: str, name: str, batch: int) -> Record:
    """Measure our loop as it is, and with one change."""
    ours = OurLoop(models.build(name), session, batch)
    model = models.build(name)
    if variant == "contiguous":
        model = Contiguous(model)
    if variant == "compiled":
        model = torch.compile(model)
    with cudnn_benchmark(variant == "cudnn-benchmark"):
        changed = OurLoop(model, session, batch)
    return described(name, batch) | in_turns({"ours": ours, variant: changed}, session.size.turns)


def described(name: str, batch: int) -> Record:
    return {"model": name, "batch": batch, "precision": "tf32"}


def in_turns(loops: Mapping[str, Loop], turns: int) -> Record:
    """Return the seconds a step of each loop's turns; the first loop is ours."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(turns):
        for name, loop in loops.items():
            seconds[name].append(loop())
    ours, other = (median(laps) for laps in seconds.values())
    return {
        "seconds_per_step": seconds,
        "n": turns,
        "ours_times_faster": other / ours,
        "steps_per_turn": {name: loop.steps for name, loop in loops.items()},
        "warm_up_steps": {name: loop.warm_up_steps for name, loop in loops.items()},
        "warm_up_seconds": {name: loop.warm_up_seconds for name, loop in loops.items()},
    }


class Endless:
    """A deadline that never comes."""

    def left(self) -> float:
        return inf


class Loop(Protocol):
    """Trains for a turn, and returns the seconds of a step. It is warm once it is made."""

    steps: int
    warm_up_steps: int
    warm_up_seconds: float

    def __call__(self) -> float: ...


class OurLoop:
    """The product's step, captured, on batches shuffled as the product does; a turn is an epoch."""

    def __init__(self, model: nn.Module, session: Session, batch: int) -> None:
        self.steps = self.warm_up_steps = session.size.our_steps
        self._device = session.device
        self._batch = batch
        self._model = model.to(self._device).train()
        self._data = images(session.size.our_steps * batch, self._device)
        self._meter = Meter(self._device)
        optimizer = Recipe().optimize(self._model, 0.001)
        self.step = Step(self._model, self._data, optimizer, self._meter)
        gpu = self._device.type == "cuda"
        self._take = GraphedStep(self.step, batch, self._device) if gpu else self.step
        self._order = torch.Generator().manual_seed(0)
        began = time.perf_counter()
        self()
        self.warm_up_seconds = time.perf_counter() - began

    def __call__(self) -> float:
        """Train an epoch, as `learning.train` does; return the seconds of a step."""
        with arithmetic("tf32", self._device):
            self._meter.start()
            indices = shuffled_batches(len(self._data), self._batch, self._order, self._device)
            for index in indices:
                self._take(index)
                self._meter.samples += len(index)
            return self._meter.result()[0] / len(indices)


class PlainLoop:
    """The quickstart's loop on batches that are on the device already."""

    def __init__(
        self, model: nn.Module, session: Session, batch: int, *, compile_model: bool = False
    ) -> None:
        self.steps, self.warm_up_steps = session.size.plain_steps, session.size.warm_up
        self._device = session.device
        model = model.to(self._device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        if compile_model:
            model = torch.compile(model, mode="reduce-overhead")
        data = images(session.size.plain_steps * batch, self._device)
        self._batches = [
            (pictures.contiguous(), labels)
            for pictures, labels in map(data.batch, torch.arange(len(data)).split(batch))
        ]
        self._train = partial(plain_steps, model, optimizer)
        began = time.perf_counter()
        self._train(self._batches[: session.size.warm_up], self._device)
        self.warm_up_seconds = time.perf_counter() - began

    def __call__(self) -> float:
        """Train on all batches; return the seconds of a step."""
        began = time.perf_counter()
        self._train(self._batches, self._device)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return (time.perf_counter() - began) / len(self._batches)


class Contiguous(nn.Module):
    """A model whose images and weights are NCHW in memory."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self._model(images.contiguous())
        return logits


def images(count: int, device: torch.device) -> ImageSet:
    pixels = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(10, (count,), device=device)
    return ImageSet(pixels, labels, tuple("0123456789"))


@contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Let cuDNN try its algorithms, for the shapes that it meets in the block."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def limit(session: Session, name: str, batch: int) -> Record:
    """Return bounds of a step in seconds, and our share of the largest."""
    device = session.device
    loop = OurLoop(models.build(name), session, batch)
    ours = session.ours.get((name, batch)) or [loop() for _ in range(session.size.turns)]
    index = torch.arange(batch, device=device)
    with arithmetic("tf32", device):
        moved = bytes_moved(partial(loop.step, index))
        kernels = kernels_of(loop.step, index)
    flops = flops_of_step(plain_model(name), batch)
    bounds = {
        "arithmetic": flops / flops_per_second(device),
        "memory": moved / bytes_per_second(device),
        "kernels": kernels * empty_kernel_seconds(device),
    }
    return {
        "model": name,
        "batch": batch,
        "flops": flops,
        "bytes": moved,
        "bytes_of_adam": adam_bytes(plain_model(name)),
        "kernels": kernels,
        "flops_per_second": flops_per_second(device),
        "bytes_per_second": bytes_per_second(device),
        "empty_kernel_seconds": empty_kernel_seconds(device),
        "bounds": bounds,
        "limit": max(bounds.values()),
        "seconds_per_step": ours,
        "n": len(ours),
        "share_of_limit": max(bounds.values()) / median(ours),
    }


class Traffic(TorchDispatchMode):
    """Counts the bytes of all operations' inputs and outputs, but for those that move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in str(function):
            leaves = tree_leaves((args, kwargs, result))
            tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
            self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        return result


def bytes_moved(step: Callable[[], None]) -> int:
    with Traffic() as traffic:
        step()
    return traffic.bytes


def kernels_of(step: Step, index: Tensor) -> int:
    """Count the nodes of a captured step: kernels, and copies and fills that are none."""
    if index.device.type != "cuda":
        return 0
    step.forget()
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        step(index)
    step.forget()
    runtime = ctypes.CDLL(f"libcudart.so.{str(torch.version.cuda).partition('.')[0]}")
    count = ctypes.c_size_t()
    raw = ctypes.c_void_p(graph.raw_cuda_graph())
    if error := runtime.cudaGraphGetNodes(raw, None, ctypes.byref(count)):
        raise RuntimeError(f"cudaGraphGetNodes returned {error}")
    return count.value


def profile(session: Session, name: str, batch: int) -> Record:
    """Return which kernels of a step take how long, by the sum of their microseconds."""
    loop = OurLoop(models.build(name), session, batch)
    index = torch.arange(batch, device=session.device)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with arithmetic("tf32", session.device):
        loop.step(index)
        torch.cuda.synchronize(session.device)
        with torch.profiler.profile(activities=activities) as taken:
            loop.step(index)
            torch.cuda.synchronize(session.device)
    laps: dict[str, list[float]] = {}
    for event in taken.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            laps.setdefault(event.name[:120], []).append(event.time_range.elapsed_us())
    longest = sorted(laps.items(), key=lambda item: -sum(item[1]))
    return {
        "model": name,
        "batch": batch,
        "kernels": sum(map(len, laps.values())),
        "microseconds": sum(map(sum, laps.values())),
        "longest": [(kernel, len(each), sum(each)) for kernel, each in longest[:PROFILED]],
        "n": 1,
    }


@cache
def flops_per_second(device: torch.device) -> float:
    """Of the fastest of several products of large matrices, in tf32."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    with arithmetic("tf32", device):
        return 2 * side**3 / fastest(lambda: a @ b, device)


@cache
def bytes_per_second(device: torch.device) -> float:
    """Read and written by the fastest of several copies of a large array."""
    source = torch.randn(2**28 if device.type == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source), device)


@cache
def empty_kernel_seconds(device: torch.device, count: int = 1000) -> float:
    """Of kernels that add to one number, launched one after the other by a graph."""
    number = torch.zeros((), device=device)

    def work() -> None:
        for _ in range(count):
            number.add_(1)

    work()
    launch = capture(work) if device.type == "cuda" else work
    return fastest(launch, device) / count


def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest of ten, after two to warm up."""
    laps = []
    for _ in range(12):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        laps.append(time.perf_counter() - began)
    return min(laps[2:])


def main() -> None:
    """Compile the plain models named, for batches of 32, into TORCHINDUCTOR_CACHE_DIR.

    A process that does so beside the tests saves `measure` most of its time for compiling.
    """
    device = torch.device("cuda:0")
    session = Session(device, Endless(), (), Size())
    for name in sys.argv[1:]:
        loop = PlainLoop(plain_model(name), session, BATCHES[0], compile_model=True)
        print(f"compiled {name} in {loop.warm_up_seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
