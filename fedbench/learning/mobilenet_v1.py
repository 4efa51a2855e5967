"""MobileNet V1 (Howard et al. 2017, arXiv:1704.04861, Table 1); torchvision has V2 and V3 only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Output channels and stride of each depthwise separable block.
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


class MobileNetV1(nn.Module):
    """Width 1: 4,231,976 parameters for 1000 classes. Maps [N, 3, H, W] to logits [N, classes]."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.001) -> None:
        super().__init__()
        layers = [_convolution(3, 32, 3, stride=2)]
        channels = 32
        for out, stride in _BLOCKS:
            layers.append(_convolution(channels, channels, 3, stride=stride, groups=channels))
            layers.append(_convolution(channels, out, 1))
            channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [N, classes]."""
        pooled = torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(images), 1), 1)
        logits: Tensor = self.classifier(pooled)
        return logits


def mobilenet_v1(*, num_classes: int = 1000, weights: None = None) -> MobileNetV1:
    """MobileNet V1, called as torchvision's models are; there are no pretrained weights."""
    assert weights is None  # noqa: S101 (the signature says so)
    return MobileNetV1(num_classes)


def _convolution(
    channels: int, out: int, size: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        channels, out, size, stride=stride, padding=size // 2, groups=groups, bias=False
    )
    # As torchvision's V2 has it: ReLU6, weights drawn for the number of outputs.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))
