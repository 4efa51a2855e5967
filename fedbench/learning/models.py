"""The models that can be trained, for images of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedbench.config.explain import nearest
from fedbench.config.model_names import is_user_model
from fedbench.learning import user_models
from fedbench.learning.layers import specialise
from fedbench.learning.mobilenet_v1 import mobilenet_v1
from fedbench.learning.torchvision_models import models
from fedbench.learning.user_models import ModelError

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": models.mobilenet_v2,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "mobilenet_v3_large": models.mobilenet_v3_large,
}
"""Those of the study."""


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


def edition(name: str) -> str:
    """Changes when the code of a model of the user's own does."""
    return user_models.digest(user_models.FOLDER) if is_user_model(name) else ""


def _make(name: str, classes: int) -> nn.Module:
    if is_user_model(name):
        return _own(name, classes)
    if name not in MODELS:
        _require_classifier(name)
        return specialise(models.get_model(name, num_classes=classes, weights=None))
    return specialise(MODELS[name](num_classes=classes, weights=None))


def _own(name: str, classes: int) -> nn.Module:
    """The user's model with its layers as they were written."""
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
    """Has it see two images as in training, and leaves it as it is."""
    images = torch.zeros(2, 3, 32, 32).to(memory_format=torch.channels_last)
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    try:
        with torch.no_grad():
            logits = functional_call(model.train(), buffers, (images,))
    except Exception as error:
        raise ModelError(
            f"model {name}: it takes no images of 32x32 pixels: {user_models.failure(error)}"
        ) from error
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != [2, classes]:
        raise ModelError(f"model {name}: expected logits [2, {classes}] of 2 images, found {found}")
