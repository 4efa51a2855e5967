"""torchvision's models, loaded where its compiled extension cannot be, and without the compiler.

The wheel of torchvision on PyPI is built against CUDA torch. Beside CPU torch its extension does
not load, nobody declares the operators `nms` and `qnms`, and the import fails because it attaches
meta functions to them. Models, transforms and datasets need neither operator, so their schemas
are enough.

One operator, roi_align, asks torch._dynamo at call time whether it can be compiled. Importing
that package takes a second of CPU and 70 MB in each process, so the question is put off until
somebody calls roi_align.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

_DYNAMO = "torch._dynamo.utils"


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported  # noqa: PLC0415 (see above)

    supported: bool = is_compile_supported(device_type)
    return supported


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Stand in for torch._dynamo.utils within the block, with its function that is asked for."""
    if _DYNAMO in sys.modules:
        yield
        return
    stand_in = ModuleType(_DYNAMO)
    vars(stand_in)["is_compile_supported"] = _is_compile_supported
    sys.modules[_DYNAMO] = stand_in
    try:
        yield
    finally:
        del sys.modules[_DYNAMO]


with _without_dynamo():
    try:
        from torchvision import models
    except RuntimeError:  # operator torchvision::nms does not exist
        for _name in ("nms", "qnms"):
            _schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{_name}", _schema)
        from torchvision import models

__all__ = ["models"]
