"""Convolutions as what they amount to on the small feature maps of 32x32 images.

MobileNets were drawn for 224x224 pixels: from 32x32, most of their layers work on maps of 1 to 4
pixels a side, where a convolution routine spends its time on everything but arithmetic. On a CPU a
1x1 convolution is a matrix product over the pixels, and a depthwise one on a map of up to 2x2
pixels a small matrix per channel from input to output pixels (a Toeplitz matrix of the kernel).
Both compute the same numbers, with the same parameters under the same names.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Where the plain convolution becomes the faster one again.
_POINTWISE_PIXELS = 64
_DEPTHWISE_PIXELS = 4


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution, stride 1."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """[N, C, H, W] -> [N, C', H, W], channels_last."""
        batch, channels, height, width = input.shape
        if input.device.type != "cpu" or height * width > _POINTWISE_PIXELS:
            return super().forward(input)
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        output = linear(pixels, self.weight.flatten(1), self.bias)
        return output.view(batch, height, width, -1).permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, without bias."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """[N, C, H, W] -> [N, C, H', W'], channels_last."""
        batch, channels, height, width = input.shape
        if input.device.type != "cpu" or height * width > _DEPTHWISE_PIXELS:
            return super().forward(input)
        size, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        taps = _taps(height, width, size, stride, padding)
        kernel = torch.cat([self.weight.view(channels, -1).t(), self.weight.new_zeros(1, channels)])
        pixels = input.permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels)
        output = (pixels * kernel[taps]).sum(2)
        rows = _positions(height, size, stride, padding)
        return output.view(batch, rows, -1, channels).permute(0, 3, 1, 2)


def specialise(model: nn.Module) -> nn.Module:
    """Replaces, in place, the convolutions of the model that have a faster form here."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and (kind := _kind(child)):
                setattr(parent, name, _as(kind, child))
    return model


def _kind(conv: nn.Conv2d) -> type[nn.Conv2d] | None:
    square = len({*conv.kernel_size}) == len({*conv.stride}) == 1 and conv.dilation == (1, 1)
    if not square or isinstance(conv.padding, str) or conv.padding[0] != conv.padding[1]:
        return None
    if conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and conv.padding == (0, 0):
        return PointwiseConv2d
    depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.bias is None
    return DepthwiseConv2d if depthwise and conv.padding_mode == "zeros" else None


def _as(kind: type[nn.Conv2d], conv: nn.Conv2d) -> nn.Conv2d:
    """The same layer of another kind, with the very same parameters."""
    replacement = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        stride=conv.stride[0],
        padding=conv.padding[0],
        groups=conv.groups,
        bias=conv.bias is not None,
        device="meta",
    )
    replacement.weight, replacement.bias = conv.weight, conv.bias
    return replacement


def _positions(length: int, size: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - size) // stride + 1


@lru_cache
def _taps(height: int, width: int, size: int, stride: int, padding: int) -> Tensor:
    """Which weight leads from which input to which output pixel: [outputs, inputs].

    The index size * size stands for no weight at all.
    """
    rows, columns = (_positions(length, size, stride, padding) for length in (height, width))
    taps = torch.full((rows, columns, height, width), size * size)
    for row in range(rows):
        for column in range(columns):
            for y in range(height):
                for x in range(width):
                    dy, dx = y - row * stride + padding, x - column * stride + padding
                    if 0 <= dy < size and 0 <= dx < size:
                        taps[row, column, y, x] = dy * size + dx
    return taps.view(rows * columns, height * width)
