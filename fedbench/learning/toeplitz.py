"""Depthwise convolution on maps of a few pixels: one small matrix per channel.

On a map of 2x2 pixels, a 3x3 kernel leads from each of 4 input pixels to each of 4 output pixels:
a 4x4 Toeplitz matrix for each channel, made of the kernel's taps. Applying it to all channels at
once takes one multiply-add over [N, O, C] for each input pixel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def depthwise(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """[N, C, H, W] -> [N, C, H', W'] in channels_last, as conv2d with C groups and no bias does."""
    batch, channels, height, width = images.shape
    size = weight.shape[-1]
    taps = _taps(height, width, size, stride, padding).to(weight.dtype)
    pixels = images.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    output: Tensor = _Depthwise.apply(pixels, weight, taps)  # type: ignore[no-untyped-call]
    rows = _positions(height, size, stride, padding)
    return output.view(batch, rows, -1, channels).permute(0, 3, 1, 2)


class _Depthwise(Function):
    """pixels [N, I, C], weight [C, 1, k, k], taps [O, I, k * k] -> [N, O, C]."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
        matrix = taps @ weight.view(len(weight), -1).t()
        ctx.save_for_backward(pixels, matrix, taps)
        ctx.shape = weight.shape
        return _product(pixels, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        pixels, matrix, taps = ctx.saved_tensors
        to_matrix = torch.stack(
            [(pixels * output).sum(0) for output in torch.split(gradient, 1, 1)]
        )
        to_weight = to_matrix.flatten(0, 1).t() @ taps.flatten(0, 1)
        return _product(gradient, matrix.transpose(0, 1)), to_weight.view(ctx.shape), None


def _product(pixels: Tensor, matrix: Tensor) -> Tensor:
    """[N, I, C] and [O, I, C] -> [N, O, C]: summed over I, each channel by itself."""
    columns = matrix.unbind(1)
    first, *others = torch.split(pixels, 1, 1)
    output: Tensor = first * columns[0]
    for pixel, column in zip(others, columns[1:], strict=True):
        output.addcmul_(pixel, column)
    return output


def _positions(length: int, size: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - size) // stride + 1


@lru_cache
@torch.inference_mode(False)  # kept for training, whoever asks first
def _taps(height: int, width: int, size: int, stride: int, padding: int) -> Tensor:
    """1 where a tap of the kernel leads from an input to an output pixel: [O, I, size * size]."""
    rows, columns = (_positions(length, size, stride, padding) for length in (height, width))
    taps = torch.zeros(rows, columns, height, width, size, size)
    for row in range(rows):
        for column in range(columns):
            for y in range(height):
                for x in range(width):
                    dy, dx = y - row * stride + padding, x - column * stride + padding
                    if 0 <= dy < size and 0 <= dx < size:
                        taps[row, column, y, x, dy, dx] = 1
    return taps.view(rows * columns, height * width, size * size)
