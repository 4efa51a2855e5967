"""A model of your own: `model: sample:small_cnn`, or `make up SET="model=sample:small_cnn"`.

Any callable of a file in this folder will do that takes the number of classes and returns a module
for images [N, 3, 32, 32], scaled to -1..1. They come in channels_last: `flatten`, not `view`.
Other files of this folder can be imported. Devices that join need the same files in their checkout.
"""

from __future__ import annotations

from torch import nn


def small_cnn(classes: int) -> nn.Module:
    """Two convolutions and a linear layer: 6,218 parameters for 10 classes."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, classes),
    )
