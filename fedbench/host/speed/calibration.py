"""Measures how fast this host trains each model: alone, on all cores, with threads, under quota.

Each in a container like a client's, and once for each host, software and model (`cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from math import exp, log, sqrt
from pathlib import Path
from statistics import mean, median, stdev
from time import monotonic
from typing import NamedTuple

import psutil

from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.workbench import Workbench, workbench
from fedbench.host.say import Say
from fedbench.host.setup.images import alone_on_host
from fedbench.host.speed.cache import ModelSpeed, Speeds, host_identity, software_identity
from fedbench.learning import user_models
from fedbench.records.measurement import Measurement

QUOTA = 0.25  # of a CPU
SECONDS = 5.0  # of each measurement, after its warm-up
REFERENCE = "mobilenet_v2"
TURNS, TURN_SECONDS = (4, 8), 1.2  # at least and at most
ENOUGH = 0.02  # the standard error of a ratio that is known well enough
GAIN = 1.1  # twice the threads must be so many times as fast, or more of them are not tried
# Beyond these, an entry says what disturbed it.
OTHERS = 0.05
STEAL = 0.01
SCATTER = 0.25


def calibrate(
    containers: Containers,
    image: str,
    models: Sequence[str],
    cache: Path,
    say: Say,
    *,
    cores: int,
    fresh: bool = False,
) -> dict[str, ModelSpeed]:
    """Return how fast `cores` cores train each model: from `cache`, or measured now.

    Some 25 s for a model on two cores; `fresh` measures what is known, too.

    Raises:
        ConfigError: there is no such model, or it cannot be trained.
        DockerError: the container that measures does not start, or ends.
    """
    software = software_identity(containers, image)
    store = Speeds(
        cache, host_identity(containers, cores), software, user_models.digest(user_models.FOLDER)
    )
    speeds = {} if fresh else store.read(list(models), say)
    missing = [model for model in dict.fromkeys(models) if model not in speeds]
    if missing:
        with alone_on_host(say):  # two at once would measure each other
            meanwhile = {} if fresh else store.read(missing, say)
            left = [model for model in missing if model not in meanwhile]
            speeds |= meanwhile | _measure_all(containers, image, left, cores, store, say)
    return {model: speeds[model] for model in models}


def _measure_all(
    containers: Containers, image: str, models: Sequence[str], cores: int, store: Speeds, say: Say
) -> dict[str, ModelSpeed]:
    """Measure models in one container, and remember each as soon as it is known."""
    speeds: dict[str, ModelSpeed] = {}
    if models:
        with workbench(containers, image) as bench:
            for model in models:
                speeds[model] = measure(bench, model, cores, say)
                store.write(speeds[model])
    return speeds


def measure(
    bench: Workbench, model: str, cores: int, say: Say, seconds: float = SECONDS
) -> ModelSpeed:
    """Measure one model's speed on this host; each part takes `seconds` and a warm-up.

    Raises:
        DockerError: the container ended.
    """
    say(f"calibrating {model}: alone, on all of {cores} cores, with threads, under a quota")
    noise = Noise()

    def run(threads: int = 1, copies: int = 1) -> list[Measurement]:
        results = bench.measure(model, threads=threads, copies=copies, seconds=seconds)
        for result in results:
            noise.note(result)
        return results

    climbed = climb(lambda threads: run(threads)[0], cores)
    crowd = run(copies=cores)
    with bench.quota(QUOTA):
        (held,) = run()
    alone = climbed[1]
    relative = ratio(bench, model, noise.note)
    speed = ModelSpeed(
        model=model,
        by_threads=_by_threads(climbed),
        busy=min(one.samples_per_cpu_second for one in crowd),
        quota_efficiency=held.samples_per_cpu_second / alone.samples_per_cpu_second,
        step_cpu_seconds=alone.step_cpu_seconds,
        spread=(min(alone.cpu_windows), max(alone.cpu_windows)),
        of_reference=relative.value,
        measured_at=datetime.now(UTC),
        note=noise.words(cores, alone.cpu_windows),
    )
    say(
        f"{model}: {speed.by_threads[1]:.0f} samples/s with one thread, {speed.busy:.0f} with all "
        f"cores busy" + (f" (note: {speed.note})" if speed.note else "")
    )
    return speed


class Ratio(NamedTuple):
    """How many times as fast as the reference model another is; `error` is a share of it."""

    value: float
    error: float


def ratio(
    bench: Workbench, model: str, note: Callable[[Measurement], None] = lambda _: None
) -> Ratio:
    """Measure two models in turns, until their ratio is known to `ENOUGH` or for `TURNS` times.

    Each pair of processes has its own luck with caches: on a host whose neighbours keep its memory
    busy, ratios scatter by 4 to 8 %, however long one is measured. Its error is the standard error
    of their mean. `note` gets what was measured.

    Raises:
        ConfigError, DockerError: as `Workbench.measure`.
    """
    if model == REFERENCE:
        return Ratio(1.0, 0.0)
    logs: list[float] = []
    while len(logs) < TURNS[0] or (len(logs) < TURNS[1] and _error(logs) > ENOUGH):
        mine, other = bench.compare(model, REFERENCE, seconds=TURN_SECONDS)
        note(mine)
        note(other)
        logs.append(log(mine.samples_per_cpu_second / other.samples_per_cpu_second))
    return Ratio(exp(mean(logs)), _error(logs))


def _error(figures: Sequence[float]) -> float:
    return stdev(figures) / sqrt(len(figures))


def _by_threads(climbed: dict[int, Measurement]) -> dict[int, float]:
    # One thread has a core to itself, so that a CPU second is a wall second: unless others train
    # on the host, which made the speed a sixth of what it is by the wall clock.
    speeds = {threads: one.samples_per_second for threads, one in climbed.items()}
    return speeds | {1: climbed[1].samples_per_cpu_second}


def climb(run: Callable[[int], Measurement], cores: int) -> dict[int, Measurement]:
    """Run 1, 2, 4, … threads, up to the cores, as long as that gains 10 %; by threads."""
    threads, gains = 1, True
    found = {1: run(1)}
    while threads < cores and gains:
        before, threads = threads, min(2 * threads, cores)
        found[threads] = run(threads)
        gain = found[threads].samples_per_second / found[before].samples_per_second
        gains = gain >= GAIN
    return found


class Noise:
    """What else used the host's CPUs since it was made, than the measurements it is told of."""

    def __init__(self) -> None:
        self._ours = 0.0
        self._start = _cpu_seconds()
        self._wall = monotonic()

    def note(self, ours: Measurement) -> None:
        """Count a measurement that was ours."""
        self._ours += ours.cpu_seconds

    def words(self, cores: int, windows: Sequence[float]) -> str | None:
        """Say what disturbed a measurement on so many cores, None where nothing did."""
        used, stolen = (now - then for now, then in zip(_cpu_seconds(), self._start, strict=True))
        return disturbance(
            others=(used - self._ours) / (cores * (monotonic() - self._wall)),
            steal=stolen / (cores * (monotonic() - self._wall)),
            windows=windows,
        )


def disturbance(*, others: float, steal: float, windows: Sequence[float]) -> str | None:
    """Say what shares of the CPUs others and the hypervisor took, and how windows scatter."""
    middle = median(windows)
    off = max(max(windows) / middle - 1, 1 - min(windows) / middle)
    notes = (
        (others > OTHERS, f"others used {others:.0%} of the CPUs"),
        (steal > STEAL, f"the hypervisor took {steal:.0%} of them"),
        (off > SCATTER, f"the speed was up to {off:.0%} off its median"),
    )
    return "; ".join(text for holds, text in notes if holds) or None


def table(speeds: Iterable[ModelSpeed]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return header and rows: each model's speeds in samples/s, and how they were measured."""
    header = (
        "model", "1 thread", "spread", "by threads", "all cores busy", "quota", "CPU ms / step",
        "measured (UTC)",
    )  # fmt: skip
    return header, [_row(speed) for speed in speeds]


def _row(speed: ModelSpeed) -> Sequence[str]:
    low, high = speed.spread
    more = ", ".join(f"{n}: {value:.0f}" for n, value in speed.by_threads.items() if n > 1)
    return (
        speed.model,
        f"{speed.by_threads[1]:.0f}",
        f"{low:.0f} to {high:.0f}",
        more or "-",
        f"{speed.busy:.0f}",
        f"{speed.quota_efficiency:.0%}",
        f"{1000 * speed.step_cpu_seconds:.1f}",
        f"{speed.measured_at:%Y-%m-%d %H:%M}",
    )


def _cpu_seconds() -> tuple[float, float]:
    """Return CPU seconds of the machine since its start: used, stolen by its hypervisor."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq, times.steal
