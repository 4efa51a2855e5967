"""The layers of a model in the form that is fastest for 32x32 images on a CPU.

MobileNets were drawn for 224x224 pixels: from 32x32, most of their layers work on maps of 1 to 4
pixels a side, where a convolution routine spends its time on everything but arithmetic. There a
1x1 convolution is a matrix product over the pixels, and a depthwise one a small matrix per channel
(`toeplitz`). All compute the same numbers, with the same parameters under the same names.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm, linear

from fedbench.learning.toeplitz import depthwise

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
        if input.device.type != "cpu" or input.shape[2] * input.shape[3] > _DEPTHWISE_PIXELS:
            return super().forward(input)
        return depthwise(input, self.weight, self.stride[0], int(self.padding[0]))


class BatchNorm2d(nn.BatchNorm2d):
    """Without the counter of batches, which only an average without momentum needs."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """[N, C, H, W] -> [N, C, H, W]."""
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
    """Gives the model's layers, in place, the faster forms that there are."""
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
