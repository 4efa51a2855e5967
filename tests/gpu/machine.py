"""What a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from datetime import UTC, datetime

import pynvml
import torch

from fedbench.host.setup.machine import cpu_model

NO_GPU = "none"


def describe(*, small: bool) -> dict[str, object]:
    """Describe this machine, without touching its GPU: a context there would cost the parts."""
    gpu, driver = _gpu() if torch.cuda.is_available() else (NO_GPU, None)
    return {
        "gpu": gpu,
        "driver": driver,
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "small": small,
    }


def _gpu() -> tuple[str, str]:
    pynvml.nvmlInit()
    try:
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return name, pynvml.nvmlSystemGetDriverVersion()
    finally:
        pynvml.nvmlShutdown()
