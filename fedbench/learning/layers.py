"""The layers of a model in the form that is fastest for 32x32 images on a CPU.

MobileNets were drawn for 224x224 pixels: from 32x32, most of their layers work on maps of 1 to 4
pixels a side, where a convolution routine spends its time on everything but arithmetic. There a
1x1 convolution is a matrix product over the pixels, and a depthwise one a small matrix per channel
(`depthwise`). All compute the same numbers, with the same parameters under the same names.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm, linear

# Where the plain convolution becomes the faster one again.
_POINTWISE_PIXELS = 64
_DEPTHWISE_PIXELS = 4


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution, stride 1."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, C, H, W] to [N, C', H, W], channels_last."""
        batch, channels, height, width = input.shape
        if input.device.type != "cpu" or height * width > _POINTWISE_PIXELS:
            return super().forward(input)
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        output = linear(pixels, self.weight.flatten(1), self.bias)
        return output.view(batch, height, width, -1).permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, without bias."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, C, H, W] to [N, C, H', W'], channels_last."""
        if input.device.type != "cpu" or input.shape[2] * input.shape[3] > _DEPTHWISE_PIXELS:
            return super().forward(input)
        return depthwise(input, self.weight, self.stride[0], int(self.padding[0]))


class BatchNorm2d(nn.BatchNorm2d):
    """Without the counter of batches, which only an average without momentum needs."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Map [N, C, H, W] to [N, C, H, W]."""
        return batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


def specialise(model: nn.Module) -> nn.Module:
    """Give the model's layers, in place, their faster forms, and return the model."""
    for module in model.modules():
        if kind := _faster(module):
            module.__class__ = kind
        # To change a tensor in place, autograd copies it first where its gradient needs it.
        if "inplace" in vars(module):
            vars(module)["inplace"] = False
    return model


def _faster(module: nn.Module) -> type[nn.Module] | None:
    if type(module) is nn.BatchNorm2d and module.track_running_stats and module.momentum:
        return BatchNorm2d
    return _faster_convolution(module) if type(module) is nn.Conv2d else None


def _faster_convolution(conv: nn.Conv2d) -> type[nn.Conv2d] | None:
    square = len({*conv.kernel_size}) == len({*conv.stride}) == 1 and conv.dilation == (1, 1)
    if not square or isinstance(conv.padding, str) or conv.padding[0] != conv.padding[1]:
        return None
    if conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and conv.padding == (0, 0):
        return PointwiseConv2d
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.bias is None
    return DepthwiseConv2d if is_depthwise and conv.padding_mode == "zeros" else None


def depthwise(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Compute conv2d with C groups and no bias: [N, C, H, W] -> [N, C, H', W'], channels_last.

    On a map of 2x2 pixels, a 3x3 kernel leads from each of 4 input pixels to each of 4 output
    pixels: a 4x4 Toeplitz matrix for each channel, made of the kernel's taps. Applying it to all
    channels at once takes one multiply-add over [N, O, C] for each input pixel.
    """
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
    """Sum over I, each channel by itself: [N, I, C] and [O, I, C] -> [N, O, C]."""
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
    """Mark with 1 the taps that lead from an input to an output pixel: [O, I, size * size]."""
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
