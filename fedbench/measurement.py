"""What the calibration workload prints, and the host reads."""

from __future__ import annotations

from fedbench.records import Record


class Measurement(Record):
    """Samples per wall second and per CPU second: medians over windows, and each window's own.

    `step_cpu_seconds` are those of a batch of 32; `cpu_seconds` all that the process used, its
    warm-up included. `gpu` is the one that it trained on, with `gpu_memory` bytes.
    """

    model: str
    threads: int
    samples_per_second: float
    samples_per_cpu_second: float
    step_cpu_seconds: float
    windows: list[float]
    cpu_windows: list[float]
    cpu_seconds: float
    torch: str
    gpu: str | None = None
    gpu_memory: int | None = None
