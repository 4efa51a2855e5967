from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedbench.learning.layers import BatchNorm2d, DepthwiseConv2d, PointwiseConv2d, specialise
from fedbench.learning.torchvision_models import models


def with_gradients(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """Output, and gradients of a loss in which every output pixel counts differently."""
    images = images.clone().requires_grad_()
    output = layer(images)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    loss = (output * weights).sum()
    return [output, *torch.autograd.grad(loss, [images, *layer.parameters()])]


def same_as_plain(conv: nn.Conv2d, images: Tensor) -> bool:
    fast = specialise(nn.Sequential(copy.deepcopy(conv)))
    plain, ours = with_gradients(conv, images), with_gradients(fast, images)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(plain, ours, strict=True))


@given(
    channels=st.integers(1, 8), out=st.integers(1, 8), pixels=st.integers(1, 10), bias=st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_pointwise_is_the_convolution(channels: int, out: int, pixels: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out, 1, bias=bias)
    assert same_as_plain(conv, torch.randn(3, channels, pixels, pixels))


@given(
    channels=st.integers(1, 8),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    size=st.sampled_from([3, 5]),
    stride=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_depthwise_is_the_convolution(
    channels: int, height: int, width: int, size: int, stride: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(
        channels, channels, size, stride=stride, padding=size // 2, groups=channels, bias=False
    )
    assert same_as_plain(conv, torch.randn(3, channels, height, width))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding=1),  # with bias
        nn.Conv2d(4, 4, 3, groups=4, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="circular", bias=False),
        nn.Conv2d(4, 4, (3, 1), groups=4, bias=False),
    ],
)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d) -> None:
    assert type(specialise(nn.Sequential(conv))[0]) is nn.Conv2d


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_the_plain_one(training: bool) -> None:
    plain = nn.BatchNorm2d(4).train(training)
    nn.init.uniform_(plain.weight)
    fast = specialise(nn.Sequential(copy.deepcopy(plain)))[0].train(training)
    images = torch.randn(3, 4, 2, 2)
    assert type(fast) is BatchNorm2d
    for a, b in zip(with_gradients(plain, images), with_gradients(fast, images), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(plain.running_mean, fast.running_mean)
    assert torch.equal(plain.running_var, fast.running_var)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, track_running_stats=False)]
)
def test_a_batch_norm_that_counts_or_keeps_nothing_is_left_alone(norm: nn.BatchNorm2d) -> None:
    assert type(specialise(nn.Sequential(norm))[0]) is nn.BatchNorm2d


def test_activations_change_nothing_in_place() -> None:
    images = torch.full((1, 1, 1, 1), -1.0)
    assert specialise(nn.Sequential(nn.ReLU6(inplace=True)))(images).item() == 0
    assert images.item() == -1


def test_a_model_keeps_its_parameters_and_their_names() -> None:
    plain = models.mobilenet_v2(num_classes=10, weights=None)
    before = dict(plain.named_parameters())
    fast = specialise(plain)
    assert dict(fast.named_parameters()).keys() == before.keys()
    assert all(parameter is before[name] for name, parameter in fast.named_parameters())
    kinds = [type(module) for module in fast.modules()]
    fast_kinds = (PointwiseConv2d, DepthwiseConv2d, BatchNorm2d)
    assert tuple(map(kinds.count, fast_kinds)) == (34, 17, 52)


def test_gradients_of_a_whole_model_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    plain = models.mobilenet_v2(num_classes=10, weights=None).double()
    fast = specialise(copy.deepcopy(plain))
    images, labels = torch.randn(4, 3, 32, 32).double(), torch.tensor([0, 1, 2, 3])
    for model in (plain, fast):
        model.eval()  # without dropout; batch norm by its running statistics
        nn.functional.cross_entropy(model(images), labels).backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12), name


def test_a_layer_that_was_evaluated_first_can_be_trained() -> None:
    layer = DepthwiseConv2d(6, 6, 3, stride=1, padding=1, groups=6, bias=False)
    images = torch.rand(3, 6, 1, 2)  # a size that no other test has: what is cached is cached here
    with torch.inference_mode():
        layer(images)
    layer(images).sum().backward()
    assert layer.weight.grad is not None
