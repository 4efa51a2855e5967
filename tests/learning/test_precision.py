from typing import get_args

import pytest
import torch

from fedbench.config import Experiment
from fedbench.learning.precision import Precision, arithmetic

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "output", "units"),
    [
        ("fp32", torch.float32, "ieee"),
        ("tf32", torch.float32, "tf32"),
        ("bf16", torch.bfloat16, "ieee"),
    ],
)
def test_products_have_the_precision(precision: Precision, output: torch.dtype, units: str) -> None:
    matrix = torch.ones(2, 2)

    with arithmetic(precision, CPU):
        assert (matrix @ matrix).dtype == output
        assert torch.backends.cuda.matmul.fp32_precision == units
        assert torch.backends.cudnn.conv.fp32_precision == units


def test_experiments_offer_every_precision() -> None:
    assert Experiment.model_fields["precision"].annotation == Precision
    assert get_args(Precision) == ("fp32", "tf32", "bf16")


def test_settings_are_as_before() -> None:
    units = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [unit.fp32_precision for unit in units]

    with pytest.raises(KeyError), arithmetic("tf32", CPU):
        raise KeyError

    assert [unit.fp32_precision for unit in units] == before
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
