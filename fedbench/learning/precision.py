"""The arithmetic of a model: exact float32, TF32 or bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Products and convolutions of the block in this precision; weights stay float32.

    `tf32` rounds their inputs to 10 bits of mantissa on a GPU that has such units, and means fp32
    elsewhere. `bf16` is torch's autocast: normalisation and loss stay in float32.
    """
    cudnn: Any = torch.backends.cudnn  # whose attributes mypy does not know
    units: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [unit.fp32_precision for unit in units]
    # Its cache of casted weights must not outlive a captured step.
    bf16 = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
    )
    try:
        for unit in units:
            unit.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with bf16:
            yield
    finally:
        for unit, setting in zip(units, before, strict=True):
            unit.fp32_precision = setting
