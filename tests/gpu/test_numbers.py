"""Gradients and precisions on the device, against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from trainings import without_dropout

from fedbench.learning import models
from fedbench.learning.flat import from_flat, to_flat
from fedbench.learning.processor import Precision, arithmetic

Record = Callable[[str, float], None]


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    cross_entropy(model(images), labels).backward()
    return torch.cat([p.grad.reshape(-1).double().cpu() for p in model.parameters()])


def error(value: Tensor, truth: Tensor) -> float:
    return float((value.double().cpu() - truth).norm() / truth.norm())


def smooth(model: nn.Module) -> nn.Module:
    """Replace what has a kink: there, rounding alone changes a gradient by percents."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish):
                setattr(module, name, nn.SiLU())
            if isinstance(child, nn.Hardsigmoid):
                setattr(module, name, nn.Sigmoid())
    return without_dropout(model).train()


@pytest.mark.parametrize("name", models.MODELS)
def test_gradients_are_those_of_torchs_layers_in_float64(
    name: str, device: torch.device, record: Record
) -> None:
    ours = models.build(name)
    plain = models.MODELS[name](num_classes=10, weights=None)
    from_flat(plain, to_flat(ours))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(32, 3, 32, 32, generator=generator) * 2 - 1
    labels = torch.arange(32) % 10

    truth = gradient(smooth(plain).double(), images.double(), labels)
    pictures = images.to(device, memory_format=torch.channels_last)
    with arithmetic("fp32", device):
        value = gradient(smooth(ours).to(device), pictures, labels.to(device))

    record("relative error", error(value, truth))
    assert error(value, truth) < 0.001


def product(device: torch.device) -> tuple[Tensor, Tensor]:
    """A matrix product, and what it should be."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    return a.to(device) @ b.to(device), a.double() @ b.double()


def convolution(device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 64, 16, 16, generator=generator)
    weights = torch.randn(64, 64, 3, 3, generator=generator)
    value = conv2d(images.to(device), weights.to(device), padding=1)
    return value, conv2d(images.double(), weights.double(), padding=1)


@pytest.mark.parametrize("work", [product, convolution])
def test_each_precision_rounds_as_it_should(
    work: Callable[[torch.device], tuple[Tensor, Tensor]],
    device: torch.device,
    record: Record,
) -> None:
    errors: dict[Precision, float] = {}
    for precision in ("fp32", "tf32", "bf16"):
        with arithmetic(precision, device):
            errors[precision] = error(*work(device))
        record(precision, errors[precision])

    assert errors["fp32"] < 5e-5
    assert 1e-3 < errors["bf16"] < 1e-2
    assert errors["tf32"] < 1e-3
    if device.type == "cpu":
        assert errors["tf32"] == errors["fp32"]
    elif work is product:  # cuDNN may, but need not, have a faster kernel in tf32
        assert errors["tf32"] > 1e-4


def test_after_a_block_products_are_as_before(device: torch.device) -> None:
    before = product(device)[0]
    for precision in ("tf32", "bf16", "fp32"):
        with arithmetic(precision, device):
            product(device)
        after = product(device)[0]
        assert after.dtype == torch.float32
        assert torch.equal(after, before)
