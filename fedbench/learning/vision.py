"""torchvision's models, also where its compiled extension cannot be loaded.

The wheel of torchvision on PyPI is built against CUDA torch. Beside CPU torch its extension does
not load, nobody declares the operators `nms` and `qnms`, and the import fails because it attaches
meta functions to them. Models, transforms and datasets need neither operator, so their schemas
are enough.
"""

from __future__ import annotations

import torch

try:
    from torchvision import models
except RuntimeError:  # operator torchvision::nms does not exist
    for _name in ("nms", "qnms"):
        _schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{_name}", _schema)
    from torchvision import models

__all__ = ["models"]
