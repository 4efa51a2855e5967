"""The models that can be trained, for images of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fedbench.learning.layers import specialise
from fedbench.learning.mobilenet_v1 import mobilenet_v1
from fedbench.learning.vision import models

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": models.mobilenet_v2,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "mobilenet_v3_large": models.mobilenet_v3_large,
}


def build(name: str, classes: int = 10, seed: int = 0) -> nn.Module:
    """Make a model of `MODELS`, on the CPU, in channels_last, with weights drawn from `seed`.

    It maps float32 [N, 3, 32, 32] to logits [N, classes]. The global random state is untouched.

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        model = specialise(MODELS[name](num_classes=classes, weights=None))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
