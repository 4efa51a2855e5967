from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbench.learning.gpu import TimeShare, limit_memory


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
