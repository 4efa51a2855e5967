from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbench.config import Experiment
from fedbench.learning.processor import Precision, TimeShare, arithmetic, limit_memory, set_threads


class Clock:
    """Time that passes by sleeping and by waiting for a GPU."""

    def __init__(self) -> None:
        self.now = self.busy = self.work = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def synchronise(self) -> None:
        self.now += self.work
        self.busy += self.work


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.floats(0.05, 1))
def test_the_gpu_is_busy_for_its_share_of_the_time(work: list[float], share: float) -> None:
    clock = Clock()
    part = TimeShare(share, clock.synchronise, clock.sleep, clock)
    for clock.work in work:
        part.after_batch()
    assert clock.busy / clock.now == pytest.approx(share)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_beyond_the_limit_is_refused() -> None:
    device = torch.device("cuda:0")
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        assert limit_memory(total // 4, device) == pytest.approx(0.25)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 2, dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


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


@pytest.mark.parametrize(
    ("cpus", "threads"), [(0.2, 1), (1, 1), (1.99, 1), (2, 2), (2.5, 2), (8, 8)]
)
def test_threads_follow_the_quota(cpus: float, threads: int) -> None:
    assert set_threads(cpus) == threads
    assert torch.get_num_threads() == threads
