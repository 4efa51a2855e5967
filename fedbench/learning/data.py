"""The images of one partition, decoded, in memory.

A partition file is safetensors with `images` uint8 [N, 32, 32, 3], `labels` int64 [N] and, as
metadata, `classes`: the names of the classes as a JSON list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

IMAGE = (32, 32, 3)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 [N, 32, 32, 3] (height, width, channel) and labels int64 [N], on one device."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, index: Tensor | slice, augment: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return images float32 [n, 3, 32, 32] in channels_last, scaled to -1..1, and labels [n].

        MobileNet was published with this scale, `x / 127.5 - 1`. It is the same for all data sets:
        clients see only their own partition, and could not agree on a mean and a deviation.
        `augment` changes the uint8 images [n, 32, 32, 3] before that.
        """
        pixels = self.images[index]
        if augment:
            pixels = augment(pixels)
        # NHWC in memory, so that permute alone makes it channels_last.
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return images.mul_(1 / 127.5).sub_(1), self.labels[index]


def load(path: Path, device: torch.device | str = "cpu") -> ImageSet:
    """Read a partition file into the memory of a device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no partition file; names the file and what was expected.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from None
    for name, dtype, shape in (("images", torch.uint8, IMAGE), ("labels", torch.int64, ())):
        _check(path, tensors, name, dtype, shape)
    images, labels = tensors["images"], tensors["labels"]
    classes = _classes(path, metadata)
    if not 0 < len(images) == len(labels):
        raise ValueError(f"{path}: {len(images)} images and {len(labels)} labels, expected N each")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"{path}: labels: expected 0 to {len(classes) - 1}, one for each class")
    # A copy, because safetensors maps the file: it may be replaced while a client trains on it.
    return ImageSet(images.to(device, copy=True), labels.to(device, copy=True), classes)


def _check(
    path: Path, tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    if name not in tensors:
        raise ValueError(f"{path}: {name} is missing")
    tensor = tensors[name]
    if tensor.dtype != dtype or tensor.shape[1:] != shape or tensor.ndim != 1 + len(shape):
        expected = f"{dtype} [{', '.join(map(str, ('N', *shape)))}]"
        raise ValueError(
            f"{path}: {name}: expected {expected}, found {tensor.dtype} {list(tensor.shape)}"
        )


def _classes(path: Path, metadata: dict[str, str]) -> tuple[str, ...]:
    classes: object = None
    with suppress(KeyError, ValueError, RecursionError):
        classes = json.loads(metadata["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{path}: metadata: expected classes, a JSON list of names")
    return tuple(classes)
