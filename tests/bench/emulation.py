"""How near ways of slowing a device down come to its target, in one run, one way after the other.

The four machines of Table II train MobileNetV2 at once, each in a container of the image with one
thread, slowed by one factor so that they fit into two cores. Each way gives a row: the median over
devices and epochs of how far an epoch was from its target, in percent, the first epoch of each
device left out. The host's speed is measured before each way, for it drifts: what is compared is
the way, not the age of the calibration.

- `quota`: the kernel's quota alone, period 100 ms; `quota_cores`: and cores of one's own;
- `quota_period`: a period that holds a whole step; `quota_10ms`, `quota_1s`: other periods;
- `cpu_time`: the loop sleeps until its CPU time is its share of the time that passed;
- `sigstop`: the host stops and continues the process, 100 ms a cycle;
- `deadline`: what fedbench does: the loop sleeps until the device would be done
  (`fedbench.learning.pace`), under a quota with a margin.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import containers
from docker.models.containers import Container
from row import Row, row

from fedbench.config.units import EPOCH_IMAGES
from fedbench.engines.containers.runtime.workbench import workbench
from fedbench.host.plan.shares import MARGIN

EPOCH_SECONDS = {"workstation": 211, "laptop": 33, "legacy-pc": 225, "workstation-gpu": 110}
CORES = {"laptop": "0", "workstation": "1", "legacy-pc": "1", "workstation-gpu": "1"}
WAYS = (
    "quota", "quota_cores", "quota_period", "quota_10ms", "quota_1s", "cpu_time", "sigstop",
    "deadline",
)  # fmt: skip
SECONDS, STEP = 30.0, 32
CYCLE_SECONDS = 0.1  # of SIGSTOP and SIGCONT
LAPTOP_SHARE = 0.8  # of a core: it is the fastest, and decides by how much all are slowed
_TRAIN = """
import sys, time, torch
from fedbench.learning import data, models, processor, train
from fedbench.learning.pace import Pace, Speed
way, speed, share, seconds, samples = sys.argv[1], *map(float, sys.argv[2:])
processor.set_threads(1)
pixels = torch.randint(256, (int(samples), 32, 32, 3), dtype=torch.uint8)
images = data.ImageSet(pixels, torch.arange(int(samples)) % 10, ("",) * 10)
model = models.build("mobilenet_v2")
deadlines = Pace(Speed(speed, speed))
begin = [0.0, 0.0]

def on_batch(progress):
    if way == "deadline":
        deadlines.wait(progress.samples, progress.seconds)
    if way == "cpu_time":
        due = (time.process_time() - begin[0]) / share
        time.sleep(max(due - (time.monotonic() - begin[1]), 0))

def on_epoch(epoch):
    print(epoch.seconds, flush=True)

print("ready", flush=True)
sys.stdin.readline()
begin[:] = time.process_time(), time.monotonic()
options = dict(epochs=1, seconds=seconds, batch_size=32, learning_rate=0.001, seed=0)
train.train(model, images, **options, on_batch=on_batch, on_epoch=on_epoch)
"""


@dataclass
class Emulated:
    """One device: the wall samples/s that it should train, its share of a core, its container."""

    name: str
    speed: float
    share: float
    samples: int
    process: subprocess.Popen[str]
    errors: list[float] = field(default_factory=list)

    @property
    def container(self) -> Container:
        return containers.client().containers.get(f"fedbench-bench-{self.name}")


def rows(command: str) -> Iterator[Row]:
    for way in WAYS:
        with workbench(containers.talk(), containers.image()) as bench:
            (alone,) = bench.measure("mobilenet_v2", threads=1, seconds=5)
        errors = _errors(way, alone.samples_per_second)
        off = [100 * abs(error) for error in errors]
        yield row(f"emulation_{way}", off, "% off its target", command, more_is_better=False)


def _errors(way: str, host_speed: float) -> list[float]:
    dilation = EPOCH_IMAGES / EPOCH_SECONDS["laptop"] / (LAPTOP_SHARE * host_speed)
    with ExitStack() as stack:
        devices = [
            stack.enter_context(_device(name, way, dilation, host_speed)) for name in EPOCH_SECONDS
        ]
        for device in devices:
            _limit(device, way, STEP / host_speed)
        over = threading.Event()
        threads = [threading.Thread(target=_read, args=(device,)) for device in devices]
        stoppers = [
            threading.Thread(target=_stop_and_go, args=(device, over))
            for device in devices
            if way == "sigstop"
        ]
        for thread in threads + stoppers:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        for thread in stoppers:
            thread.join()
    return [error for device in devices for error in device.errors[1:]]


@contextmanager
def _device(name: str, way: str, dilation: float, host_speed: float) -> Iterator[Emulated]:
    speed = EPOCH_IMAGES / EPOCH_SECONDS[name] / dilation
    samples = max(2, round(4 * speed / STEP)) * STEP  # an epoch of four seconds or so
    share = speed / host_speed
    argv = ["docker", "run", "--rm", "--interactive", "--name", f"fedbench-bench-{name}"]
    argv += ["--network=none", *(["--cpuset-cpus", CORES[name]] if way == "quota_cores" else [])]
    arguments = [way, speed, share, SECONDS, samples]
    argv += [containers.image(), "python", "-c", _TRAIN, *map(str, arguments)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield Emulated(name, speed, share, samples, process)
        finally:
            if process.stdin:
                process.stdin.close()


def _limit(device: Emulated, way: str, step_seconds: float) -> None:
    periods = {"quota_10ms": 0.01, "quota_1s": 1.0, "quota_period": step_seconds / device.share}
    period = int(min(periods.get(way, 0.1), 1.0) * 1e6)
    margin = MARGIN if way in ("deadline", "cpu_time") else 1.0
    if way != "sigstop":
        quota = max(int(min(device.share * margin, 1.0) * period), 1000)
        device.container.update(cpu_period=period, cpu_quota=quota)


def _read(device: Emulated) -> None:
    assert device.process.stdin
    assert device.process.stdout
    device.process.stdin.write("\n")
    device.process.stdin.flush()
    target = device.samples / device.speed
    for line in device.process.stdout:
        device.errors.append(float(line) / target - 1)


def _stop_and_go(device: Emulated, over: threading.Event) -> None:
    pid = int(device.container.attrs["State"]["Pid"])
    while not over.is_set():
        try:
            os.kill(pid, signal.SIGCONT)
            time.sleep(CYCLE_SECONDS * device.share)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(CYCLE_SECONDS * (1 - device.share))
        except ProcessLookupError:  # it has ended
            return
