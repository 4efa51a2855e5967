import pytest
import torch
from torch import nn

from fedbench.learning.sgd import SGD

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_updates_as_torch_optim_does(device: str, decay: float) -> None:
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


def test_leaves_a_parameter_without_gradient_alone() -> None:
    frozen, trained = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    trained.grad = torch.ones(2)

    SGD([frozen, trained], 0.1, weight_decay=0.5).step()

    assert frozen.tolist() == [1.0, 1.0]
    assert trained.tolist() == pytest.approx([1 - 0.1 * 1.5 * 1.9] * 2)
