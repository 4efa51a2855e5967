from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedbench.learning.optimizers import SGD, Adam

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("decay", "kind"), [(0.0, torch.optim.Adam), (0.1, torch.optim.AdamW)], ids=["Adam", "AdamW"]
)
def test_adam_updates_as_torch_optim_does(
    device: str, decay: float, kind: Callable[..., torch.optim.Optimizer]
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((4, 3, 1, 1), (7,), (40, 33))]
    ours = [nn.Parameter(value.clone().to(device)) for value in start]
    theirs = [nn.Parameter(value.clone().to(device)) for value in start]
    adam = Adam(ours, 0.01, decay)
    reference = kind(theirs, lr=0.01, weight_decay=decay, fused=True)

    for _ in range(5):
        for our, their in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=generator).to(device)
            their.grad = our.grad.clone()
        adam.step()
        reference.step()

    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our, their)


@pytest.mark.parametrize("device", DEVICES)
def test_a_rate_that_changes_is_read_at_each_step(device: str) -> None:
    parameter = nn.Parameter(torch.ones(2, device=device))
    rate = torch.tensor(0.1, device=device)
    adam = Adam([parameter], rate)
    seen = []
    for value in (0.1, 0.0, 0.2):
        rate.fill_(value)
        parameter.grad = torch.ones(2, device=device)
        adam.step()
        seen.append(parameter[0].item())

    assert seen == pytest.approx([0.9, 0.9, 0.7])


def test_adam_leaves_a_parameter_without_gradient_alone() -> None:
    frozen, trained = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    trained.grad = torch.ones(2)

    Adam([frozen, trained], 0.1).step()

    assert frozen.tolist() == [1.0, 1.0]
    assert trained.tolist() == pytest.approx([0.9, 0.9])


def test_zero_grad_drops_the_gradients() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)

    Adam([parameter], 0.1).zero_grad()

    assert parameter.grad is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_sgd_updates_as_torch_optim_does(device: str, decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((4, 3, 1, 1), (7,), (40, 33))]
    ours = [nn.Parameter(value.clone().to(device)) for value in start]
    theirs = [nn.Parameter(value.clone().to(device)) for value in start]
    sgd = SGD(ours, 0.1, decay)
    reference = torch.optim.SGD(
        theirs, lr=0.1, momentum=0.9, nesterov=True, weight_decay=decay, foreach=False
    )

    for _ in range(5):
        for our, their in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=generator).to(device)
            their.grad = our.grad.clone()
        sgd.step()
        reference.step()

    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


def test_sgd_leaves_a_parameter_without_gradient_alone() -> None:
    frozen, trained = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    trained.grad = torch.ones(2)

    SGD([frozen, trained], 0.1, weight_decay=0.5).step()

    assert frozen.tolist() == [1.0, 1.0]
    assert trained.tolist() == pytest.approx([1 - 0.1 * 1.5 * 1.9] * 2)
