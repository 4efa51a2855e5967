"""Samples per CPU-second of local training, against the loop of Flower's PyTorch quickstart.

Both train the same model on the same images, in turns, in one process, on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image
from row import Row, row
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fedbench.learning import models  # before torchvision, which does not load without it
from fedbench.learning.data import ImageSet
from fedbench.learning.train import train

from torchvision import transforms  # isort: skip

IMAGES, BATCH, TURNS = 480, 32, 5


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """PIL images with the quickstart's transforms, as a DataLoader takes them."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self._images = [Image.fromarray(image) for image in pixels]
        self._labels = labels.tolist()
        self._transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


def plain_epoch(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, int]]) -> float:
    """One epoch as the quickstart teaches it: contiguous layout, default Adam, loss.item()."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    model.train()
    running_loss = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return running_loss / len(loader)


def rows(command: str) -> Iterator[Row]:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, 10, IMAGES)
    loader = DataLoader(Pictures(pixels, labels), batch_size=BATCH, shuffle=True)
    images = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), ("",) * 10)
    for name, make in models.MODELS.items():
        plain = partial(plain_epoch, make(num_classes=10, weights=None), loader)
        ours = partial(our_epoch, models.build(name), images)
        turns = [(speed(ours), speed(plain)) for _ in range(TURNS + 1)][1:]  # the first warms up
        speeds, peers = zip(*turns, strict=True)
        yield row(
            f"train_{name}", speeds, "samples per CPU-second", command, peers, more_is_better=True
        )


def our_epoch(model: nn.Module, images: ImageSet) -> None:
    train(model, images, epochs=1, batch_size=BATCH, learning_rate=0.001, seed=0)


def speed(epoch: Callable[[], object]) -> float:
    """Samples per second of this process' CPU time."""
    start = time.process_time()
    epoch()
    return IMAGES / (time.process_time() - start)
