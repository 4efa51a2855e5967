"""Samples per second of local training, against the loop of Flower's PyTorch quickstart.

Both train the same models on the same images with the same image of fedbench, in turns, one thread
each. Ours has the image's environment, its allocator among it; the plain loop Debian's own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import containers
from row import Row, row

TURNS = 5
MODELS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
LOOPS = (Path(__file__).parent / "loops.py").read_text()
GLIBC = {"LD_PRELOAD": "", "MALLOC_CONF": ""}


class Worker:
    """A process that trains an epoch of the model that it is asked for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, model: str) -> float:
        """Samples per second of one epoch; the first of a model warms up, unmeasured."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{model}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the loop ended with code {self._process.wait()}")
        return float(answer)


@contextmanager
def worker(kind: str, device: str) -> Iterator[Worker]:
    """A container that runs `loops.py`; it ends when its input does.

    `allocator` is our loop with Debian's own allocator.
    """
    theirs = GLIBC if kind in ("plain", "allocator") else {}
    options = [f"--env={key}={value}" for key, value in theirs.items()]
    options += ["--gpus=all"] if device == "cuda" else []
    argv = ["docker", "run", "--rm", "--interactive", "--network=none", *options]
    argv += [
        containers.image(cuda=device == "cuda"),
        "python",
        "-c",
        LOOPS,
        kind.replace("allocator", "ours"),
        device,
    ]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Worker(process)
        finally:
            process.communicate()


def rows(command: str) -> Iterator[Row]:
    yield from _rows("train", "plain", "samples per CPU-second", command)


def gpu_rows(command: str) -> Iterator[Row]:
    """No rows without a GPU that containers can have."""
    if containers.gpus():
        yield from _rows("train_gpu", "plain", "samples per second", command, "cuda")


def parts_rows(command: str) -> Iterator[Row]:
    """What our layers and our allocator gain: the peer is our loop without them."""
    for part in ("layers", "allocator"):
        yield from _rows(part, part, "samples per CPU-second", command)


def limit_rows(command: str) -> Iterator[Row]:
    """The peer is what the model's arithmetic and Adam's memory traffic alone would allow."""
    yield from _rows("limit", "limit", "samples per CPU-second", command)


def _rows(prefix: str, peer: str, unit: str, command: str, device: str = "cpu") -> Iterator[Row]:
    with worker("ours", device) as ours, worker(peer, device) as theirs:
        for model in MODELS:
            turns = [(ours(model), theirs(model)) for _ in range(TURNS)]
            speeds, peers = zip(*turns, strict=True)
            yield row(f"{prefix}_{model}", speeds, unit, command, peers, more_is_better=True)
