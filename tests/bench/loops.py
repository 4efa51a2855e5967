"""The training loops that are compared; runs inside the image, one process for each.

`python loops.py KIND cpu|cuda` reads a model's name from each line of its input, trains one epoch,
and answers with samples per second: of CPU time, or of wall time on a GPU. KIND is `ours`, `plain`
(Flower's PyTorch quickstart), `layers` (ours without its layers), or `limit`: what the arithmetic
and the optimizer's memory traffic alone would allow on this CPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from fedbench.learning import models  # before torchvision, which does not load without it
from fedbench.learning.data import ImageSet
from fedbench.learning.train import train

from torchvision import transforms  # isort: skip

IMAGES = {"cpu": 480, "cuda": 8000}
BATCH = 32

Epoch = Callable[[], object]
Batches = DataLoader[tuple[torch.Tensor, int]] | list[tuple[torch.Tensor, torch.Tensor]]


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


def plain_epoch(model: nn.Module, loader: Batches, device: torch.device) -> float:
    """One epoch as the quickstart teaches it: contiguous layout, default Adam, loss.item()."""
    return plain_steps(model, torch.optim.Adam(model.parameters(), lr=0.001), loader, device)


def plain_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Batches, device: torch.device
) -> float:
    """The same with an optimizer that is there already."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    running_loss = 0.0
    for pictures, answers in loader:
        images, labels = pictures.to(device), answers.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return running_loss / len(loader)


def our_epoch(model: nn.Module, images: ImageSet) -> None:
    # cuDNN's convolutions are TF32 unless told otherwise: also in the plain loop.
    settings = {"batch_size": BATCH, "learning_rate": 0.001, "precision": "tf32"}
    train(model, images, epochs=1, seed=0, **settings)


def epochs(kind: str, device: torch.device) -> Callable[[str], Epoch]:
    """Makes a model by name, and an epoch of its training."""
    random = np.random.default_rng(0)
    count = IMAGES[device.type]
    pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = random.integers(0, 10, count)
    if kind == "plain":
        loader = DataLoader(Pictures(pixels, labels), batch_size=BATCH, shuffle=True)
        return lambda name: partial(plain_epoch, plain_model(name).to(device), loader, device)
    images = ImageSet(
        torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device), ("",) * 10
    )
    build = channels_last_model if kind == "layers" else models.build
    return lambda name: partial(our_epoch, build(name).to(device), images)


def plain_model(name: str) -> nn.Module:
    return models.MODELS[name](num_classes=10, weights=None)


def channels_last_model(name: str) -> nn.Module:
    return plain_model(name).to(memory_format=torch.channels_last)


def limit(name: str) -> float:
    """Samples per second if nothing but multiplying and Adam's memory traffic took time.

    The backward pass multiplies twice as often as the forward pass: for the gradient of the input
    and for that of the weights. (FlopCounterMode overlooks the groups of a backward convolution.)
    Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
    """
    model = plain_model(name)
    multiplying = flops_of_step(model, BATCH) / flops_per_second()
    return BATCH / (multiplying + adam_bytes(model) / bytes_per_second())


def flops_of_step(model: nn.Module, batch: int) -> float:
    """Floating-point operations of a step, but for normalisation and the optimizer."""
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(torch.zeros(batch, 3, 32, 32))
    return 3.0 * forward.get_total_flops()


def adam_bytes(model: nn.Module) -> float:
    """Bytes that Adam reads and writes at each step."""
    return 7.0 * 4 * sum(p.numel() for p in model.parameters())


@cache
def flops_per_second() -> float:
    """Of the fastest of several products of 1024 x 1024 matrices, on one thread."""
    matrix = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(cpu_seconds(lambda: matrix @ matrix) for _ in range(20))


@cache
def bytes_per_second() -> float:
    """Read and written by the fastest of several additions to 64 MiB, on one thread."""
    array = torch.zeros(16 * 2**20)
    return 2 * array.nbytes / min(cpu_seconds(lambda: array.add_(1)) for _ in range(20))


def cpu_seconds(work: Epoch) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def speed(epoch: Epoch, device: torch.device) -> float:
    """Samples per second of this process' CPU time, or of wall time until the GPU is done."""
    if device.type == "cpu":
        return IMAGES["cpu"] / cpu_seconds(epoch)
    start = time.perf_counter()
    epoch()
    torch.cuda.synchronize()
    return IMAGES["cuda"] / (time.perf_counter() - start)


def main() -> None:
    kind, device = sys.argv[1], torch.device(sys.argv[2])
    torch.set_num_threads(1)
    make = epochs(kind, device)
    made: dict[str, Epoch] = {}
    for line in sys.stdin:
        name = line.strip()
        if kind != "limit" and name not in made:
            made = {name: make(name)}  # one at a time: what is cached belongs to one model
            made[name]()  # warms up
        print(limit(name) if kind == "limit" else speed(made[name], device), flush=True)


if __name__ == "__main__":
    main()
