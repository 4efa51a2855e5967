"""The models that can be trained, for images of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedbench.config.explain import nearest
from fedbench.config.model_names import is_own
from fedbench.learning import user_models
from fedbench.learning.layers import specialise
from fedbench.learning.torchvision_models import models
from fedbench.learning.user_models import ModelError

# Output channels and stride of each depthwise separable block.
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


class MobileNetV1(nn.Module):
    """Maps [N, 3, H, W] to logits [N, classes]; 4,231,976 parameters for 1000 classes.

    Howard et al. 2017, arXiv:1704.04861, Table 1, width 1. torchvision has V2 and V3 only.
    """

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
        """Return logits [N, classes]."""
        pooled = torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(images), 1), 1)
        logits: Tensor = self.classifier(pooled)
        return logits


def mobilenet_v1(*, num_classes: int = 1000, weights: None = None) -> MobileNetV1:
    """Make MobileNet V1, called as torchvision's models are; no pretrained weights exist."""
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


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": models.mobilenet_v2,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "mobilenet_v3_large": models.mobilenet_v3_large,
}
"""The models of the study."""


def build(name: str, classes: int = 10, seed: int = 0) -> nn.Module:
    """Make a model on the CPU, in channels_last, with weights drawn from `seed`.

    `name` is one of `MODELS`, another classifier of torchvision, or `module:callable` of the
    user's own (`user_models.py`). It maps float32 [N, 3, 32, 32] to logits [N, classes].
    The global random state is untouched.

    Raises:
        ModelError: a ValueError; there is no such model, or it does not train on such images.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        model = _make(name, classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if name not in MODELS:
            _try(name, model, classes)
    return model  # type: ignore[no-any-return]


def set_stem_stride(model: nn.Module, stride: int) -> nn.Module:
    """Change the first convolution's stride, in place; the weights keep their shapes.

    MobileNets halve an image five times, the first time in their first layer: drawn for 224x224
    pixels, they see 32x32 ones at 1x1 in the end. With stride 1 all maps have four times as many
    pixels. 2 is the MobileNets' stride: for 2 the model is left as it is, whatever it is.

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


def edition(name: str) -> str:
    """Return a text that changes when the code of the user's models does; empty for others."""
    return user_models.digest(user_models.FOLDER) if is_own(name) else ""


def _make(name: str, classes: int) -> nn.Module:
    if is_own(name):
        return _users(name, classes)
    if name not in MODELS:
        _require_classifier(name)
        return specialise(models.get_model(name, num_classes=classes, weights=None))
    return specialise(MODELS[name](num_classes=classes, weights=None))


def _users(name: str, classes: int) -> nn.Module:
    """Make the user's model, with its layers as they were written."""
    make = user_models.load(name)
    try:
        model = make(classes)
    except Exception as error:
        raise ModelError(f"model {name}: {user_models.failure(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name}: expected a torch.nn.Module, found {model!r}")
    return model


def _require_classifier(name: str) -> None:
    known = sorted({*MODELS, *models.list_models(module=models)})
    if name in known:
        return
    if name in models.list_models():
        raise ModelError(f"model {name}: torchvision has it, but not as a classifier of images")
    raise ModelError(
        f"model {name}: neither one of {', '.join(MODELS)} nor in torchvision{nearest(name, known)}"
    )


def _try(name: str, model: nn.Module, classes: int) -> None:
    """Show the model two images as in training, and leave it as it is.

    Raises:
        ModelError: it fails, or gives something else than logits [2, classes].
    """
    images = torch.zeros(2, 3, 32, 32).to(memory_format=torch.channels_last)
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    try:
        with torch.no_grad():
            logits = functional_call(model.train(), buffers, (images,))
    except Exception as error:
        raise ModelError(
            f"model {name}: it takes no images of 32x32 pixels: {user_models.failure(error)}"
        ) from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, classes]:
        raise ModelError(f"model {name}: expected logits [2, {classes}] of 2 images, found {shape}")
