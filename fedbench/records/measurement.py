"""What the calibration workload prints, and the host reads."""

from __future__ import annotations

from pydantic import TypeAdapter

from fedbench.errors import ConfigError
from fedbench.records.files import Record


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


class Refusal(Record):
    """Instead of measurements, of a model that cannot be trained: why."""

    refused: str


_Answer = TypeAdapter[Measurement | Refusal](Measurement | Refusal)


def parse(line: str) -> Measurement:
    """Parse a line of the workload's.

    Raises:
        ConfigError: it refuses the model.
    """
    answer = _Answer.validate_json(line)
    if isinstance(answer, Refusal):
        hint = "change `model` of the experiment, or the device's `speed` of it"
        raise ConfigError(answer.refused, hint)
    return answer
