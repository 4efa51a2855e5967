"""The stride of a network's first convolution.

MobileNets halve an image five times, the first time in their first layer: drawn for 224x224
pixels, they see 32x32 ones at 1x1 in the end.
"""

from __future__ import annotations

from torch import nn


def set_stem_stride(model: nn.Module, stride: int) -> nn.Module:
    """Changes the first convolution's stride to 1, in place; the weights keep their shapes.

    All maps then have four times as many pixels as with 2, which is the MobileNets' own: for 2 the
    model is left as it is, whatever it is.

    Raises:
        ValueError: it has no convolution.
    """
    if stride == 2:
        return model
    stem = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if stem is None:
        raise ValueError("stem_stride: this model has no convolution")
    stem.stride = (stride, stride)
    return model
