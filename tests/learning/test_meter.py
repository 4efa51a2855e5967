import pytest
import torch

from fedbench.learning.meter import Meter


def test_means_over_samples_of_unequal_batches() -> None:
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0]] * 3), torch.tensor([1, 1, 0]))
    meter.add(torch.tensor(5.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    meter.samples = 4

    seconds, loss, accuracy, samples = meter.result()

    assert (loss, accuracy, samples) == (pytest.approx(2.0), 0.75, 4)
    assert 0 < seconds <= meter.seconds()


def test_starts_anew_in_the_same_memory() -> None:
    meter = Meter(torch.device("cpu"))
    sums = meter._sums
    meter.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    meter.samples = 1

    meter.start()

    assert meter.samples == 0
    assert meter._sums is sums
    assert sums.tolist() == [0, 0]
